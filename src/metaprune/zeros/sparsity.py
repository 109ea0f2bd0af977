"""Zeros that come and go while a network trains: dense-sparse-dense, and iterative hard thresholding.

Source: Tian, Liu, Yuan, Liu, Meta-Learning with Network Pruning, ECCV 2020, arXiv 2007.03219, where they constrain what
a meta-learner may fit; any training may use them. DSD is Han et al., ICLR 2017, arXiv 1607.04381; IHT with relaxed
phases is Jin et al., 2016, arXiv 1607.05423.

Departures, with reasons. Phases are shares of a training's steps, not counts. The last interval of IHT is not relaxed,
so that it ends sparse. Weights are found by what multiplies inputs, not by their place in a list of variables. With a
channel graph, whole channels are zero, as many of each axis as the share says, and can then be cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from metaprune.graph.arguments import is_number, is_whole, wanted
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.rehearsal import on_the_cpu
from metaprune.graph.steps import steps_of_operators
from metaprune.graph.sums import on_channels
from metaprune.graph.tensors import in_double
from metaprune.graph.term import axes_of, channels, size
from metaprune.zeros.contractions import contractions
from metaprune.zeros.sparsify import named_like

__all__ = ["Phase", "Sparsity", "Zeros"]

BEGIN = {"dsd": 0.3, "iht": 0.2}
"""Share of the steps that are dense at first, by the schedule."""


@dataclass(frozen=True)
class Phase:
    """A stretch of a training in which the same entries are zero.

    Attributes:
        place: Which one it is; masks are found at its first step.
        share: Of each weight's entries, or of each axis's channels, that is zero.
    """

    place: int
    share: float


@dataclass(frozen=True)
class Sparsity:
    """Which share of each weight is zero, and when.

    Example::

        zeros = mp.Sparsity(0.5, "iht").on(model)
        mp.fit(model, task, recipe, during=[zeros])

    Attributes:
        share: Of each weight's entries that is zero at the most; with a graph, of each free axis's channels.
        schedule: "dsd": dense up to `begin`, then the smallest are zero, from `end` on they may grow again. "iht": from
            `begin` on, in intervals, each of which finds the smallest anew, at a share that rises from `first`; in the
            last part of each interval but the last, they may grow again.
        graph: From `mp.trace(model, …)`: whole channels, wherever they stand. Axes that a norm or mean runs over stay
            whole, since a channel of zeros would still be counted there.
        begin: Share of the steps that are dense at first; None for 0.3 of "dsd", 0.2 of "iht".
        end: Share of the steps after which "dsd" is dense again.
        interval: Share of the steps that an interval of "iht" takes.
        first: Share of zeros in the first interval of "iht".
        sparse: Share of an interval of "iht" that is sparse.
        spare_first: Whether the first weight stays dense, as in the paper; without a graph.
        skip: Patterns (as `head.*`) of the names of weights or modules that stay dense; without a graph.
        random: The seed of random zeros in place of the smallest: a control.
    """

    share: float
    schedule: Literal["dsd", "iht"] = "iht"
    graph: ChannelGraph | None = None
    begin: float | None = None
    end: float = 0.9
    interval: float = 0.2
    first: float = 0.1
    sparse: float = 0.75
    spare_first: bool = True
    skip: Sequence[str] = ()
    random: int | None = None

    def __post_init__(self) -> None:
        if self.schedule not in BEGIN:
            raise MetapruneError(f"sparsity: expected schedule 'dsd' or 'iht', got {self.schedule!r}")
        for name, low, high in (("share", 0, 1), ("first", 0, 1), ("end", 0, 1), ("sparse", 0, 1), ("interval", 0, 1)):
            value = getattr(self, name)
            closed = name in ("end", "sparse", "interval")
            if not (is_number(value) and low <= value and (value <= high if closed else value < high)):
                raise MetapruneError(f"sparsity: expected {name} in [0, 1{']' if closed else ')'}, got {value!r}")
        if not self.interval:
            raise MetapruneError("sparsity: expected an interval above 0, got 0")
        if self.begin is not None and not (is_number(self.begin) and 0 <= self.begin < 1):
            raise MetapruneError(f"sparsity: expected begin in [0, 1), got {self.begin!r}")
        if self.random is not None and not is_whole(self.random):
            raise MetapruneError(f"sparsity: expected random as a seed, got {self.random!r}")
        if isinstance(self.skip, str):
            raise MetapruneError(f"sparsity: expected skip as a list of patterns, got {self.skip!r}")
        if self.graph is not None and self.skip:
            raise MetapruneError(
                "sparsity: skip belongs to weights; for channels give the graph of mp.Limits.on(graph)"
            )

    def phase(self, done: int, steps: int) -> Phase | None:
        """The phase after `done` of all `steps`; None where it is dense."""
        begin = BEGIN[self.schedule] if self.begin is None else self.begin
        start = round(begin * steps)
        if done < start:
            return None
        if self.schedule == "dsd":
            return Phase(0, self.share) if self.end == 1 or done < round(self.end * steps) else None
        count = max(1, round((1 - begin) / self.interval))
        bounds = [start + round(place * (steps - start) / count) for place in range(count + 1)]
        place = max(place for place in range(count) if bounds[place] <= done)
        if place == count - 1:
            return Phase(place, self.share)
        first = min(self.first, self.share)
        relaxed = bounds[place] + round(self.sparse * (bounds[place + 1] - bounds[place]))
        return Phase(place, first + (self.share - first) * place / (count - 1)) if done < relaxed else None

    def on(self, model: nn.Module) -> Zeros:
        """What a training of this network is given: `mp.fit(model, …, during=[zeros])`.

        Raises:
            MetapruneError: There is nothing to set to zero, or a pattern fits nothing.
            PlanError: The graph is of another network.
        """
        wanted("sparsity", "network", model, nn.Module, "an nn.Module", MetapruneError)
        return Zeros(self, model)


class Zeros:
    """The zeros of a network while it trains; its state goes into checkpoints.

    Attributes:
        settings: What is zero when.
        model: The network.
        weights: The names of the weights that have zeros; with a graph, of all that hold a channel that may go.
        masks: Name of a weight -> True where it stays; empty in dense phases.
        plan: With a graph, the channels that stay; of the last sparse phase while it is dense.
    """

    def __init__(self, settings: Sparsity, model: nn.Module) -> None:
        self.settings, self.model = settings, model
        self.masks: dict[str, Bool[Tensor, " ..."]] = {}
        self.plan = Plan({})
        self._place: int | None = None
        graph = settings.graph
        if graph is None:
            found, _ = contractions(model)
            spared = list(found)[:1] if settings.spare_first and len(found) > 1 else []
            skipped = named_like("sparsity", list(found), settings.skip)
            self.axes: tuple[str, ...] = ()
            self.weights = tuple(name for name in found if name not in skipped and name not in spared)
        else:
            graph.check(model)
            self.axes = silent(graph)
            held = {name for name in graph.parameters if _axes(graph, name) & set(self.axes)}
            self.weights = tuple(name for name in graph.parameters if name in held)
        if not self.weights:
            raise MetapruneError(
                f"sparsity: expected a {type(model).__name__} with "
                + ("weights that multiply inputs" if graph is None else "axes that may be silenced; print the graph")
                + ", got none"
            )

    @property
    def sparsity(self) -> float:
        """Share of the entries of its weights that the masks set to zero."""
        total = sum(parameter.numel() for name, parameter in self.model.named_parameters() if name in self.weights)
        return sum(int((~mask).sum()) for mask in self.masks.values()) / max(total, 1)

    def after_step(self, step: int, steps: int) -> None:
        """After a step of the optimizer: the zeros of the phase, found anew where it begins."""
        phase = self.settings.phase(step + 1, steps)
        if phase is None:
            self.masks, self._place = {}, None
            return
        if phase.place != self._place:
            self._place = phase.place
            self._find(phase.share)
        self.project(dict(self.model.named_parameters()))

    @torch.no_grad()
    def project(self, weights: Mapping[str, Tensor]) -> None:
        """Set to zero, in place, what the masks say; for weights that a step of one's own trains beside the network's.

        Args:
            weights: By the network's names; others are left alone.
        """
        for name, mask in self.masks.items():
            if name in weights:
                weights[name].masked_fill_(~mask.to(weights[name].device), 0)

    def state_dict(self) -> dict[str, Any]:
        """Masks, and where it is."""
        kept = {name: list(stays) for name, stays in self.plan.kept.items()}
        return {"masks": dict(self.masks), "place": self._place, "plan": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; what was zero is.

        Raises:
            MetapruneError: It is of another network.
        """
        if not state["masks"].keys() <= set(self.weights):
            raise MetapruneError("sparsity: expected a state of this network's weights, got others")
        self.masks = {name: mask.clone() for name, mask in state["masks"].items()}
        self._place, self.plan = state["place"], Plan(state["plan"])
        self.project(dict(self.model.named_parameters()))

    @on_the_cpu()
    def _find(self, share: float) -> None:
        """Masks for a share of zeros."""
        weights = dict(self.model.named_parameters())
        if self.settings.graph is None:
            self.masks = {
                name: _largest(self._scored(weights[name].detach().abs().cpu(), seed), share)
                for seed, name in enumerate(self.weights)
            }
            return
        graph = self.settings.graph
        norms = _norms(graph, weights, self.axes)
        scores = {axis: self._scored(norms[axis], seed) for seed, axis in enumerate(self.axes)}
        for group in graph.limits.alike_channels:
            alike = [axis for axis in group if axis in scores]
            scores |= {axis: torch.stack([scores[each] for each in alike]).mean(0) for axis in alike}
        steps = steps_of_operators(graph)
        self.plan = Plan(
            {axis: _best(score, _width(graph, axis, share, steps[axis])) for axis, score in scores.items()}
        )
        self.masks = {name: _stays(graph, name, self.plan) for name in self.weights}

    def _scored(self, sizes: Tensor, seed: int) -> Tensor:
        """What ranks: sizes, or chance."""
        if self.settings.random is None:
            return sizes
        return torch.rand(sizes.shape, generator=torch.Generator().manual_seed(1000 * self.settings.random + seed))


def silent(graph: ChannelGraph) -> tuple[str, ...]:
    """Free axes whose channels of zeros nobody notices: no statistic or norm of a weight counts them."""
    noticed: set[str] = set()
    for operator in graph.every_operator:
        noticed |= {axis.name for term in operator.statistics for axis in axes_of(term)}
    return tuple(name for name in graph.free if name not in noticed)


def _axes(graph: ChannelGraph, name: str) -> set[str]:
    return {axis.name for term in graph.tensors[name] for axis in axes_of(term)}


def _largest(sizes: Tensor, share: float) -> Bool[Tensor, " ..."]:
    """All but the smallest, `round(share * number)` of them; of equals, the first ones go."""
    mask = torch.ones(sizes.numel(), dtype=torch.bool)
    mask[sizes.flatten().argsort(stable=True)[: round(share * sizes.numel())]] = False
    return mask.view(sizes.shape)


def _norms(graph: ChannelGraph, weights: Mapping[str, Tensor], axes: Sequence[str]) -> dict[str, Tensor]:
    """For each axis the root mean square, over the weights that hold it, of its channels' relative norms: (size,)."""
    sums = {axis: torch.zeros(graph.axes[axis].size, dtype=torch.float64) for axis in axes}
    squares = ((name, in_double(weights[name]).square()) for name in graph.parameters)
    for axis, each in on_channels(squares, graph, sums):
        sums[axis] += each / each.mean().clamp(min=1e-300)
    return {axis: total.sqrt() for axis, total in sums.items()}


def _width(graph: ChannelGraph, axis: str, share: float, step: int) -> int:
    """How many channels stay: all but the share, in steps of what operators take, inside the limits."""
    whole = graph.axes[axis].size
    stay = min(whole, -(-max(1, whole - math.floor(share * whole + 1e-9)) // step) * step)
    return min(max(stay, graph.limits.least.get(axis, 1)), graph.limits.most.get(axis, whole))


def _best(scores: Tensor, width: int) -> list[int]:
    """The channels with the highest scores; of equals, the last ones stay."""
    return sorted(scores.argsort(stable=True)[len(scores) - width :].tolist())


def _stays(graph: ChannelGraph, name: str, plan: Plan) -> Bool[Tensor, " ..."]:
    """True where a parameter's entry lies on channels that stay, along every dimension."""
    terms = graph.tensors[name]
    mask = torch.ones(tuple(map(size, terms)), dtype=torch.bool)
    for dim, term in enumerate(terms):
        along = torch.zeros(size(term), dtype=torch.bool)
        along[channels(term, plan.kept)] = True
        mask &= along.reshape(-1, *[1] * (len(terms) - dim - 1))
    return mask
