"""The time of a network as a function of its widths: a sum over its operators, set right by networks measured whole.

It has the interface of the closed form, in whole nanoseconds, so that whatever plans, ranks or steers by MACs does so
by time. A sum S of operators measured one by one is not the time: their operands then lie in caches, and nothing stands
between them. So it is set right by anchors, networks that were measured whole: the dense one, the smallest, and what is
measured on the way. Between them the time is a straight line in S.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from metaprune.graph.graph import ChannelGraph
from metaprune.graph.rehearsal import on_the_cpu
from metaprune.graph.term import Axis, Term, fold

__all__ = ["NANOSECONDS", "Anchor", "LatencyForm", "Sum"]

_CHORD = 0.75
"""What a channel costs is a chord over the last quarter of the width: inside a step it would cost nothing."""

_APART = 0.05
"""Of anchors nearer to one another than this share of the range, the last counts; but the first always does."""

NANOSECONDS = 1_000_000  # in a ms


class Sum(Protocol):
    """A sum over operators, in ms or in proportion to it."""

    @property
    def terms(self) -> tuple[Term, ...]:
        """The dimensions that it is over."""

    def at(self, sizes: Tensor) -> Tensor:
        """Its values at sizes of `terms`, shape (terms, candidates), differentiable: float64 of shape (candidates,)."""

    def parts(self) -> Mapping[str, Any]:
        """For each place in the network its part: a sum again."""


@dataclass(frozen=True)
class Anchor:
    """A network that was measured whole.

    Attributes:
        widths: Axis -> width, of every axis that a graph may be cut along later; others are whole.
        ms: How long it took.
    """

    widths: Mapping[str, int]
    ms: float


class LatencyForm:
    """The time of a network as a function of the widths of its free axes.

    Attributes:
        axes: The names of the widths it depends on, in the graph's order.
        sizes: Axis -> its channels.
        sum: What is set right.
        anchors: The networks that set it right.
    """

    @on_the_cpu()
    def __init__(self, graph: ChannelGraph, sum_: Sum, anchors: Sequence[Anchor] = ()) -> None:
        self.axes = tuple(graph.free)
        self.sizes = {name: axis.size for name, axis in graph.free.items()}
        self.sum = sum_
        self.anchors = tuple(anchors)
        self._graph = graph
        self._place = {name: index for index, name in enumerate(self.axes)}
        self._sums, self._ms = self._line()

    def on(self, graph: ChannelGraph) -> LatencyForm:
        """The same over a graph of the same axes, some of which may be fixed, or cut already."""
        sizes = {name: axis.size for name, axis in graph.free.items()}
        return self if sizes == self.sizes else LatencyForm(graph, self.sum, self.anchors)

    @on_the_cpu()
    def through(self, *anchors: Anchor) -> LatencyForm:
        """The same, set right by more networks."""
        return LatencyForm(self._graph, self.sum, (*self.anchors, *anchors))

    def _line(self) -> tuple[Tensor, Tensor]:
        """Sums and times of the anchors that count, ascending."""
        if not self.anchors:
            return torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        sums = torch.cat([self._sum(self._row(anchor.widths)) for anchor in self.anchors]).tolist()
        apart = _APART * (max(sums) - min(sums))
        kept: list[tuple[float, float]] = []
        first, *others = [(s, anchor.ms) for s, anchor in zip(sums, self.anchors, strict=True)]
        for pair in (first, *reversed(others)):
            if all(abs(pair[0] - other[0]) > apart and _rises(pair, other) for other in kept):
                kept.append(pair)
        columns = torch.tensor(sorted(kept), dtype=torch.float64)
        return columns[:, 0].contiguous(), columns[:, 1].contiguous()

    @on_the_cpu()
    def at(self, widths: Mapping[str, int]) -> int:
        """The time at whole widths, in ns; axes that are not named are whole."""
        return int(self._times(self._row(widths))[0].round())

    @on_the_cpu()
    def many(self, widths: Tensor) -> Tensor:
        """The times at many whole widths, in ns.

        Args:
            widths: int64 of shape (candidates, axes), columns in the order of `axes`.

        Returns:
            int64 of shape (candidates,).
        """
        return self._times(widths.double()).round().to(torch.int64)

    def __call__(self, widths: Tensor) -> Tensor:
        """The time at real widths, in ns: a float64 scalar, differentiable in `widths`, of shape (axes,)."""
        return self._times(widths.double().cpu()[None])[0]

    @on_the_cpu()
    def slopes(self, widths: Tensor) -> Tensor:
        """What a channel of each axis costs, in ns: float64 of shape (axes,).

        The slope of the chord over the last quarter of the width; nothing is for free.

        Args:
            widths: Shape (axes,).
        """
        here = widths.detach().double().cpu()
        fewer = (here * _CHORD).floor().minimum(here - 1).clamp(min=0.5)
        rows = here.repeat(len(here) + 1, 1)
        rows[torch.arange(len(here)), torch.arange(len(here))] = fewer
        times = self._times(rows)
        slopes: Tensor = (times[-1] - times[:-1]) / (here - fewer)
        return slopes.maximum(1e-4 * times[-1] / here)

    @on_the_cpu()
    def parts(self, widths: Mapping[str, int]) -> dict[str, tuple[int, tuple[Term, ...]]]:
        """For each place in the network about how many ns it takes, and the dimensions that it is over."""
        row = self._row(widths)
        scale = float(self._times(row)[0] / self._sum(row)[0])
        parts = self.sum.parts()
        return {
            where: (round(scale * float(part.at(self._term_sizes(part, row))[0])), part.terms)
            for where, part in parts.items()
        }

    @on_the_cpu()
    def sizes_of(self, *widths: Mapping[str, int]) -> Tensor:
        """The sizes of the sum's dimensions at some widths: shape (dimensions, len(widths))."""
        return self._term_sizes(self.sum, torch.cat([self._row(one) for one in widths]))

    def _row(self, widths: Mapping[str, int]) -> Tensor:
        return torch.tensor([[float(widths.get(name, most)) for name, most in self.sizes.items()]], dtype=torch.float64)

    def _term_sizes(self, sum_: Sum, widths: Tensor) -> Tensor:
        """The sizes of a sum's dimensions: shape (dimensions, candidates)."""
        place = self._place
        plain = [place.get(term.name) if isinstance(term, Axis) else None for term in sum_.terms]

        def leaf(axis: Axis) -> Tensor:
            found = place.get(axis.name)
            if found is not None:
                return widths[:, found]
            now = self._graph.axes.get(axis.name, axis)  # cut before, and fixed since
            return widths.new_full((len(widths),), float(now.size))

        def product(factors: Sequence[Tensor]) -> Tensor:
            return math.prod(factors, start=widths.new_ones(len(widths)))

        def concat(parts: Sequence[Tensor]) -> Tensor:
            return sum(parts, start=widths.new_zeros(len(widths)))

        if not plain:
            return widths.new_zeros(0, len(widths))
        others = [fold(term, leaf, product, concat) for term, at in zip(sum_.terms, plain, strict=True) if at is None]
        columns = torch.cat([widths.T, torch.stack(others)]) if others else widths.T
        after = itertools.count(len(self.axes))
        return columns[torch.tensor([next(after) if at is None else at for at in plain])]

    def _sum(self, widths: Tensor) -> Tensor:
        return self.sum.at(self._term_sizes(self.sum, widths))

    def _times(self, widths: Tensor) -> Tensor:
        """In ns, for real widths of shape (candidates, axes)."""
        sums = self._sum(widths)
        if len(self._sums) == 1:
            return sums * (self._ms[0] / self._sums[0]) * NANOSECONDS
        after = torch.searchsorted(self._sums, sums.detach().contiguous()).clamp(1, len(self._sums) - 1)
        low, high = self._sums[after - 1], self._sums[after]
        share = (sums - low) / (high - low)
        times = self._ms[after - 1] * (1 - share) + self._ms[after] * share
        return times.maximum(1e-3 * self._ms[0] * sums / self._sums[0]) * NANOSECONDS


def _rises(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether the larger of two sums takes longer."""
    return (one[0] - other[0]) * (one[1] - other[1]) > 0
