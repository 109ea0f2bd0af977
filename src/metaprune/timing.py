"""A budget in time, on a clock: the time as a function of the widths, and the widths that the clock likes.

The operators are measured, or known (`cost/table.py`); the dense and the smallest network set their sum right, and so
does a network cut to the budget by group norms, which is as large as the one that is looked for.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from metaprune.cost.budget import MULTIPLE, Allocation, Budget
from metaprune.cost.clock import Clock
from metaprune.cost.closed_form import macs
from metaprune.cost.latency_form import NANOSECONDS, Anchor, LatencyForm, Sum
from metaprune.cost.roofline import Roofline
from metaprune.cost.table_sum import TableSum
from metaprune.graph.errors import BudgetError, MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.infer import Inference, infer
from metaprune.graph.plan import Plan
from metaprune.methods.saliency import group_norms
from metaprune.surgery.attention import written_out
from metaprune.surgery.resized import Resized

__all__ = ["Timed", "corrected", "form_of", "inference_at", "recalled", "timed"]

STEPS = (1, 2, 4, 8, 16, 32)
"""Multiples that widths may have, where the clock chooses."""

_WORTH = 0.02
"""Another multiple than 8 must keep more MACs by this share of the dense ones, in the same time."""

_MORE = 4
"""So many networks more are measured where a form has constants to be fitted."""

_NEAR = 0.02
"""A network this near to the limit needs no other to set the form right."""


@dataclass(frozen=True)
class Timed:
    """What was found out of time before pruning.

    Attributes:
        budget: The budget, with its form and multiple.
        anchors: The networks that were measured, the dense one first.
        later: Those that were measured after a method had decided.
        steps: For each multiple that widths could have, the share of the MACs that stays in the time asked for.
        note: What the table of measured operators has to say; None where it has nothing.
    """

    budget: Budget
    anchors: tuple[Anchor, ...] = ()
    later: tuple[Anchor, ...] = ()
    steps: Mapping[int, float] = field(default_factory=dict)
    note: str | None = None

    @property
    def tree(self) -> dict[str, Any]:
        """What a later start of a run must know, as JSON holds it."""
        form = self.budget.form
        operators = form.sum.tree if form is not None and isinstance(form.sum, TableSum) else {}
        return {
            "anchors": [[dict(anchor.widths), anchor.ms] for anchor in self.anchors],
            "latency": self.budget.latency,
            "later": [[dict(anchor.widths), anchor.ms] for anchor in self.later],
            "multiple_of": self.budget.step,
            "steps": {str(step): share for step, share in self.steps.items()},
            "operators": operators,
        }

    @property
    def settled(self) -> Timed:
        """The same, its form set right by what was measured later too."""
        form = self.budget.form
        return self if form is None else replace(self, budget=self.budget.on(form.through(*self.later)))

    @property
    def limit(self) -> float:
        """Milliseconds that the pruned network may take."""
        dense = self.anchors[0].ms
        given = self.budget.latency, None if self.budget.speedup is None else dense / self.budget.speedup
        return min(ms for ms in given if ms is not None)


def timed(model: nn.Module, graph: ChannelGraph, budget: Budget, clock: Clock) -> Timed:
    """A budget in time with its form: measured, set right and checked.

    Args:
        model: The network; left untouched.
        graph: From `mp.trace(model, …)`.
        budget: Bounds, some of which are on time.
        clock: Where time is measured.

    Raises:
        BudgetError: The smallest network takes longer.
    """
    bench = _Bench(model, graph, clock, budget.step)
    form = bench.form
    dense, least = form.anchors[:2]
    found = Timed(budget.on(form), form.anchors)
    if least.ms > found.limit:
        speed = dense.ms / least.ms
        raise BudgetError(
            f"budget: {budget} cannot be met; the smallest network takes {least.ms:.3g} ms and the dense one "
            f"{dense.ms:.3g} ms on this device, {speed:.3g} times the speed; ask for less"
        )
    if dense.ms > found.limit:
        found = _aligned(found, bench)
        found = _nearby(found, bench)
    else:
        found = replace(found, budget=replace(found.budget, multiple_of=budget.step))
    note = clock.table.note if clock.has_tables else None
    return replace(found, note=note)


def form_of(model: nn.Module, graph: ChannelGraph, clock: Clock) -> LatencyForm:
    """The time of a network as a function of its widths, set right by the dense and the smallest one.

    Args:
        model: The network; left untouched.
        graph: From `mp.trace(model, …)`.
        clock: Where time is measured.
    """
    return _Bench(model, graph, clock).form


def inference_at(model: nn.Module, graph: ChannelGraph, clock: Clock) -> Inference:
    """The first call, at the batch of the clock.

    Raises:
        MetapruneError: At that batch the channels divide otherwise than at that of the example inputs.
    """
    args, kwargs = clock.inputs(graph.args, graph.kwargs)
    if args is graph.args or not clock.has_tables:
        known: Inference = graph.inferences[0]
        return known
    found = infer(written_out(model, graph.written_out), args, kwargs, graph.ties)
    ours = {name: axis.size for name, axis in graph.free.items()}
    if any(name not in found.graph.axes or found.graph.axes[name].size != size for name, size in ours.items()):
        raise MetapruneError(
            f"clock: with {clock.batch} examples the network divides its channels otherwise than with the "
            f"{graph.batch} of the example inputs; give inputs of that batch"
        )
    return found


class _Bench:
    """One network to be measured at several widths."""

    def __init__(self, model: nn.Module, graph: ChannelGraph, clock: Clock, step: int = MULTIPLE) -> None:
        self.model = model
        self.graph = graph
        self.clock = clock
        self.step = step
        self.resized = Resized(model, graph)

    @cached_property
    def scores(self) -> dict[str, Tensor]:
        return group_norms(self.model, self.graph)

    @cached_property
    def loosest(self) -> Allocation:
        return Allocation(self.graph, Budget(macs=1.0, multiple_of=self.step))

    @cached_property
    def form(self) -> LatencyForm:
        """Set right by two networks, or fitted to some."""
        several = () if self.clock.has_tables else self.several()
        anchors = self.measured({}, self.loosest.least, *several)
        return LatencyForm(self.graph, self.sum(anchors), anchors)

    def sum(self, anchors: Sequence[Anchor]) -> Sum:
        """Over the operators; fitted to the anchors where they cannot be measured."""
        found = self.clock.operators(self.graph, inference_at(self.model, self.graph, self.clock))
        if not isinstance(found, Roofline):
            return found
        sizes = LatencyForm(self.graph, found).sizes_of(*(anchor.widths for anchor in anchors))
        return found.fitted(sizes, [anchor.ms for anchor in anchors])

    def several(self) -> list[dict[str, int]]:
        """Widths of all kinds, the same each time."""
        draw, found = random.Random(0), []
        for place in range(_MORE):
            low = 0.2 + 0.6 * place / (_MORE - 1)
            shares = {name: draw.uniform(low, 1.0) for name in self.loosest.lanes}
            found.append(
                {
                    axis: width
                    for name, lane in self.loosest.lanes.items()
                    for axis, width in lane.channels(lane.nearest(shares[name])).items()
                }
            )
        return found

    def measured(self, *widths: Mapping[str, int]) -> tuple[Anchor, ...]:
        """Networks of these widths, beside the dense one; which channels stay does not matter."""
        dense = self.alone(self.model)
        plans = [Plan({name: range(width) for name, width in one.items()}) for one in widths]
        return tuple(self.compared(plan, self.model, dense) for plan in plans)

    def beside(self, begun: nn.Module, plan: Plan, found: Timed) -> Anchor:
        """A network of this plan, timed; of a speed-up beside the one that the session began with."""
        if found.budget.latency is None:
            return self.compared(plan, begun, found.anchors[0].ms)
        return self.anchor(plan, self.alone(self.network(plan)))

    def compared(self, plan: Plan, other: nn.Module, ms: float) -> Anchor:
        """A network of this plan, timed beside another, in units of what that took first."""
        network = self.network(plan)
        if network is not other:
            ms *= self.clock.ratio(network, other, self.graph.args, self.graph.kwargs, ms)
        return self.anchor(plan, ms)

    def alone(self, network: nn.Module) -> float:
        return self.clock.latencies({"": network}, self.graph.args, self.graph.kwargs)[""].median_ms

    def network(self, plan: Plan) -> nn.Module:
        return self.resized.copy(plan) if plan.kept else self.model

    def anchor(self, plan: Plan, ms: float) -> Anchor:
        return Anchor({name: axis.size for name, axis in self.graph.free.items()} | plan.widths, ms)


def _aligned(found: Timed, bench: _Bench) -> Timed:
    """With the multiple that keeps most in the time asked for, and what the others keep."""
    if found.budget.multiple_of is not None or not bench.clock.has_tables:
        return replace(found, budget=replace(found.budget, multiple_of=found.budget.step))
    whole, kept = macs(bench.graph), {}
    for step in STEPS:
        try:
            allocation = Allocation(bench.graph, replace(found.budget, multiple_of=step))
        except BudgetError:
            continue
        plan = allocation.plan(bench.scores, limit=allocation.limit)
        kept[step] = macs(bench.graph, plan) / whole
    best = max(kept, key=lambda step: (kept[step] - (_WORTH if step != MULTIPLE else 0.0), step), default=MULTIPLE)
    return replace(found, budget=replace(found.budget, multiple_of=best), steps=kept)


def _nearby(found: Timed, bench: _Bench) -> Timed:
    """Set right by a network as large as the one that is looked for."""
    for _ in range(2):
        try:
            plan = Allocation(bench.graph, found.budget).plan(bench.scores)
        except BudgetError:
            break
        anchor = bench.beside(bench.model, plan, found)
        form = found.budget.form
        assert form is not None
        expected = form.at(plan.widths) / NANOSECONDS
        found = replace(found, budget=found.budget.on(form.through(anchor)), anchors=(*found.anchors, anchor))
        if abs(anchor.ms / expected - 1) < _NEAR:
            break
    return found


def corrected(
    model: nn.Module, graph: ChannelGraph, plan: Plan, found: Timed, clock: Clock, begun: nn.Module
) -> tuple[Timed, float]:
    """What is known of time, set right by the network that was found; and its time over what it may take.

    Args:
        model: The network at full width.
        graph: Its channel graph.
        plan: The channels that stay.
        found: What was known before.
        clock: Where time is measured.
        begun: The network that was measured first.
    """
    form = found.budget.form
    assert form is not None
    steady = _Bench(model, graph, clock).beside(begun, plan, found)
    new = replace(found, budget=found.budget.on(form.through(steady)), later=(*found.later, steady))
    return new, steady.ms / found.limit


def recalled(known: Mapping[str, Any], model: nn.Module, graph: ChannelGraph, budget: Budget, clock: Clock) -> Timed:
    """What an earlier start of a run found out of time, as its `Timed.tree` says; nothing is measured.

    Raises:
        BudgetError: It is of another form.
    """
    try:
        anchors, later = (
            tuple(Anchor(dict(widths), float(ms)) for widths, ms in known[name]) for name in ("anchors", "later")
        )
        steps = {int(step): float(share) for step, share in known["steps"].items()}
        bench = _Bench(model, graph, clock)
        if clock.has_tables:
            clock.table.recall(known["operators"])
        form = LatencyForm(graph, bench.sum(anchors), anchors)
        whole = replace(budget, multiple_of=int(known["multiple_of"]))
        if budget.speedup is not None and known["latency"] is not None:
            whole = replace(whole, speedup=None, latency=float(known["latency"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BudgetError(
            f"budget: what the run remembers of time is damaged ({error}); name another folder"
        ) from error
    return Timed(whole.on(form), anchors, later, steps)
