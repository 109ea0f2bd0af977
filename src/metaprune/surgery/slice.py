"""Slice: a new module with fewer channels, verified by tracing it again and by what it computes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from torch import Tensor, nn

from metaprune.graph.arguments import wanted_cut
from metaprune.graph.calling import Call
from metaprune.graph.capture import Captured, capture
from metaprune.graph.errors import TraceError
from metaprune.graph.graph import ChannelGraph, Pass
from metaprune.graph.infer import Inference, read
from metaprune.graph.plan import Plan
from metaprune.graph.rehearsal import undisturbed
from metaprune.graph.tensors import clone
from metaprune.surgery.attention import written_out
from metaprune.surgery.blame import Failure, blame
from metaprune.surgery.culprits import Culprits
from metaprune.surgery.rescale import factors, rescale
from metaprune.surgery.resized import cropped
from metaprune.surgery.shapes import failure
from metaprune.surgery.training import trains_alike
from metaprune.surgery.unsaid import warning_when_saved
from metaprune.surgery.values import Judge, moved, with_states_cut
from metaprune.surgery.verify import distinct, mismatch, scale_changes

__all__ = ["Cut", "CutWarning", "Fate", "carve", "fate", "make_up", "slice"]


class CutWarning(UserWarning):
    """Part of a plan could not be verified and was undone."""


@dataclass(frozen=True)
class Cut:
    """A verified cut.

    Attributes:
        model: The smaller network.
        plan: What was cut.
        undone: The axes that were left whole against the plan, each with the reason.
        unjudged: Why its outputs were not compared with the masked network's; None where they were.
    """

    model: nn.Module
    plan: Plan
    undone: Mapping[str, str]
    unjudged: str | None = None


def slice(model: nn.Module, graph: ChannelGraph, plan: Plan) -> nn.Module:
    """Cut `model` down to `plan`; a new module, verified by tracing it again and by comparing outputs with the mask's.

    Args:
        model: The network that `graph` was traced from; left untouched.
        graph: From `mp.trace`.
        plan: The channels that stay. Ties, dtypes, devices, modes and frozen parameters are kept.

    Returns:
        The smaller network. Axes whose cut could not be verified are left whole, with a `CutWarning` that says why.

    Raises:
        PlanError: The plan does not fit the graph.
    """
    wanted_cut("slice", model, graph, plan)
    done = carve(model, graph, plan)
    for axis, reason in done.undone.items():
        warnings.warn(f"axis {axis!r} was left whole: {reason}", CutWarning, stacklevel=2)
    return done.model


@undisturbed
def carve(model: nn.Module, graph: ChannelGraph, plan: Plan, by_values: bool = True) -> Cut:
    """As `slice`, but returns what was cut and what was left whole instead of warning.

    Args:
        model: As in `slice`.
        graph: As in `slice`.
        plan: As in `slice`.
        by_values: Whether outputs are compared, too, or only what shows without values: for cuts that nobody keeps.

    Raises:
        PlanError: The plan does not fit the graph.
    """
    dense, model = model, written_out(model, graph.written_out)
    graph.check(model)
    plan.check(graph)
    wanted = {name: stays for name, stays in plan.kept.items() if len(stays) < graph.axes[name].size}
    if not wanted:
        return Cut(clone(dense), plan, {})
    carving = _Carving(model, graph, by_values)
    result = carving.attempt(wanted)
    undone: dict[str, str] = {}
    if isinstance(result, str):
        culprits = Culprits(graph, wanted, carving.attempt_where_some_fail, undone)
        culprits.sort(result)
        result = carving.attempt({}) if culprits.model is None else culprits.model
    if isinstance(result, str):
        raise TraceError(f"slice: the network does not trace to the same graph twice ({result}); is its code random?")
    plan = Plan({name: stays for name, stays in plan.kept.items() if name not in undone})
    return Cut(warning_when_saved(result), plan, undone, carving.judge.silent)


class Fate(Enum):
    """What becomes of a network that is cut, as far as its code shows in a small part of the time of an export."""

    RUNS = "it runs, and in training what it runs in evaluation, if the whole one does"
    CRASHES = "its code fails"
    TRAINS_OTHERWISE = "in training it runs other operators, where the whole one runs the same"


def fate(model: nn.Module, graph: ChannelGraph, plan: Plan) -> Fate:
    """What becomes of the network cut to `plan`."""
    if not plan.kept:
        return Fate.RUNS
    carving = _Carving(written_out(model, graph.written_out), graph)
    small = carving.cut(plan.kept)
    twins = [one for one in carving.judge.seen if graph.passes[one.place].like is not None]
    alike = all(trains_alike(small, with_states_cut(moved(small, one.call), one, plan.kept)) for one in twins)
    if carving.crash(plan.kept, small, ran=len(twins) if alike else 0) is not None:
        return Fate.CRASHES
    return Fate.RUNS if alike else Fate.TRAINS_OTHERWISE


class _Carving:
    """Cuts a network, and verifies the cut."""

    def __init__(self, model: nn.Module, graph: ChannelGraph, by_values: bool = True) -> None:
        self.model = model
        self.graph = graph
        self.by_values = by_values
        self.judge = Judge(model, graph)

    @cached_property
    def runs_without_values(self) -> bool:
        """Whether the network's code runs on tensors that have no values: then what that of a cut one raises counts."""
        return failure(self.model, self.calls(self.model, {})) is None

    def calls(self, small: nn.Module, kept: Mapping[str, tuple[int, ...]]) -> list[Call]:
        """The calls that run different operators, and the same each time, as a cut network is called."""
        passes = self.graph.passes
        distinct = [s for s in self.judge.seen if passes[s.place].like is None and passes[s.place].seed is None]
        return [with_states_cut(moved(small, one.call), one, kept) for one in distinct]

    def crash(self, kept: Mapping[str, tuple[int, ...]], small: nn.Module, ran: int = 0) -> Failure | None:
        """What the code of a cut network raises; None where it runs, or where that cannot be told without values.

        So many calls, the first, are known to run.
        """
        error = failure(small, self.calls(small, kept)[ran:])
        return None if error is None or not self.runs_without_values else blame(error, small)

    def cut(self, kept: Mapping[str, tuple[int, ...]]) -> nn.Module:
        """The network cut, not verified."""
        return cropped(self.model, self.graph, kept)

    def attempt_where_some_fail(self, kept: Mapping[str, tuple[int, ...]]) -> nn.Module | str:
        """As `attempt`; that the code does not run at all shows much sooner, and what one call shows, before others."""
        small = self.cut(kept)
        return self.crash(kept, small) or self.attempt(kept, small, hopeful=False)

    def attempt(
        self, kept: Mapping[str, tuple[int, ...]], small: nn.Module | None = None, hopeful: bool = True
    ) -> nn.Module | str:
        """The network cut and verified, or in words what went wrong; without hope, the first call is judged first."""
        widths = {name: len(stays) for name, stays in kept.items()}
        small = self.cut(kept) if small is None else small
        seen: list[Captured] = []
        calls = self.calls(small, kept)
        for call in calls:
            try:
                seen.append(capture(small, call, recorded=False))
            except TraceError as error:
                found = blame(error, small)
                return Failure(f"{found} (in the call {call})", found.paths) if seen else found
            only = not hopeful and len(seen) == 1 < len(calls)
            if only and (problem := self.objection_to_the_first(small, seen, widths)) is not None:
                return problem
        cut = read(small, seen, outputs=self.graph.outputs)
        problem = mismatch(self.graph, cut[0].graph, widths) or make_up(small, self.graph, cut)
        return problem or (self.judge.objection(small, kept) if self.by_values else None) or small

    def objection_to_the_first(
        self, small: nn.Module, seen: Sequence[Captured], widths: Mapping[str, int]
    ) -> str | None:
        """What a cut network does otherwise in its first call, as far as that shows without the others."""
        cut = read(small, seen, outputs=self.graph.outputs)
        problem = mismatch(self.graph, cut[0].graph, widths, first=True)
        made_up = [] if problem else _made_up_for(small, distinct(self.graph)[:1], cut)
        return problem or (made_up if isinstance(made_up, Failure) else None)


def make_up(small: nn.Module, graph: ChannelGraph, cut: Sequence[Inference]) -> str | None:
    """Multiply the weights of a network, in place, where a number that it computes with is other than in the graph.

    Args:
        small: Of the same code as the network of the graph, as far as it runs.
        graph: What it shall compute.
        cut: What was read from it, for each pass of the graph that runs operators of its own.

    Returns:
        Why it cannot be done, in words, or None where it was.
    """
    wanted = _made_up_for(small, distinct(graph), cut)
    return wanted if isinstance(wanted, str) else rescale(small, cut, wanted)


def _made_up_for(
    small: nn.Module, passes: Sequence[Pass], cut: Sequence[Inference]
) -> list[dict[str, Tensor]] | Failure:
    """By what to multiply which tensors, for each pass that was read; or why that cannot be done."""
    wanted: list[dict[str, Tensor]] = []
    problems: dict[str, list[float]] = {}
    for one, inference in zip(passes, cut, strict=True):
        changes, lost = scale_changes(one, inference.graph.passes[inference.place])
        problems |= {one: [] for one in lost}
        here: dict[str, Tensor] = {}
        for change in changes if not any(tensor.is_meta for tensor in small.parameters()) else ():
            found = factors(inference, inference.nodes[change.index], change.argument, change.factor)
            if isinstance(found, str):
                problems.setdefault(f"{change.where}: {found}", []).append(change.factor)
                continue
            here |= {name: here.get(name, 1.0) * scale for name, scale in found.items()}
        wanted.append(here)
    if problems:
        first, *others = (Failure(reason, factors=factors) for reason, factors in problems.items())
        return Failure(first, others=others, factors=first.factors)
    return wanted
