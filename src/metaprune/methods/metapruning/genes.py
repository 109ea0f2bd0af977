"""What MetaPruning searches: a width for each lane of axes, and the channels that stay at each width."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from metaprune.cost.budget import Allocation
from metaprune.graph.plan import Plan

__all__ = ["Genes", "Widths"]

BISECTIONS = 8
"""How near to the window's lower end widths come that were below it."""

Widths = tuple[int, ...]
"""A width for each lane, in the order of `Allocation.lanes`: the paper's network encoding vector."""


@dataclass(frozen=True)
class Genes:
    """All vectors of widths that a graph, limits and alignment allow.

    Attributes:
        allocation: The graph and the budget.
        scores: For each free axis the channels' scores, of which the highest stay, shape (size,); None for the first
            channels. Either way narrower widths lie inside wider ones.
        window: The share of the budget that widths cost at least: narrower ones grow. 1 uses it up, 0 leaves it free.
    """

    allocation: Allocation
    scores: Mapping[str, Tensor] | None = None
    window: float = 1.0

    @cached_property
    def order(self) -> dict[str, list[int]]:
        """For each free axis its channels, the last to leave first."""
        given = self.scores or {}
        sizes = self.allocation.sizes
        return {
            name: torch.argsort(given[name].cpu(), stable=True).flip(0).tolist() if name in given else list(range(size))
            for name, size in sizes.items()
        }

    def plan(self, widths: Widths) -> Plan:
        """The plan of these widths, whatever it costs."""
        lanes = self.allocation.lanes.values()
        return Plan(
            {
                axis: sorted(self.order[axis][:count])
                for lane, width in zip(lanes, widths, strict=True)
                for axis, count in lane.channels(width).items()
                if width < lane.size
            }
        )

    def of(self, plan: Plan) -> Widths:
        """The widths of a plan."""
        return tuple(self.allocation.units(plan.widths).values())

    def within(self, widths: Widths) -> Widths:
        """The nearest widths within the budget: a projection, in place of the paper's rejection."""
        if self.window == 1:
            return self._grown(widths, 1.0, spend=True)
        low, high = 1.0, 1.0
        while self._too_narrow(found := self._grown(widths, high)) and high < max(self.whole()):
            low, high = high, 2 * high
        for _ in range(BISECTIONS if high > 1 else 0):
            middle = (low + high) / 2
            if self._too_narrow(tried := self._grown(widths, middle)):
                low = middle
            else:
                high, found = middle, tried
        return found

    def _grown(self, widths: Widths, by: float, spend: bool = False) -> Widths:
        """The nearest within the budget to so many times as wide ones."""
        lanes = self.allocation.lanes.values()
        ratios = {
            axis: min(by * width / lane.size, 1.0)
            for lane, width in zip(lanes, widths, strict=True)
            for axis in lane.axes
        }
        return self.of(self.allocation.nearest(ratios, spend=spend))

    def _too_narrow(self, widths: Widths) -> bool:
        return self.share(widths) < self.window * self.allocation.limit / self.allocation.dense

    def whole(self) -> Widths:
        """The widest of each lane; within the budget, that is uniform widths."""
        return tuple(lane.most for lane in self.allocation.lanes.values())

    def drawn(self, numbers: random.Random) -> Widths:
        """Each width by itself, uniformly."""
        return tuple(numbers.choice(lane.widths) for lane in self.allocation.lanes.values())

    def anywhere(self, numbers: random.Random) -> Widths:
        """Each width by itself, uniformly, then within the budget."""
        return self.within(self.drawn(numbers))

    def mutated(self, parent: Widths, rate: float, numbers: random.Random) -> Widths:
        """Each width becomes another with probability `rate`, then within the budget."""
        lanes = self.allocation.lanes.values()
        return self.within(
            tuple(
                numbers.choice([other for other in lane.widths if other != width] or [width])
                if numbers.random() < rate
                else width
                for lane, width in zip(lanes, parent, strict=True)
            )
        )

    def crossed(self, parents: Sequence[Widths], numbers: random.Random) -> Widths:
        """Each width from one of the parents, by chance, then within the budget."""
        return self.within(tuple(numbers.choice(theirs) for theirs in zip(*parents, strict=True)))

    def share(self, widths: Widths) -> float:
        """The share of the cost that the budget bounds (first) which these widths leave."""
        return self.allocation.form.at(self.plan(widths).widths) / self.allocation.dense

    def shrinking(self, widths: Widths) -> dict[str, Tensor]:
        """For each free axis scores that say these widths: 1 for the last channel that stays, falling as 1 / rank."""
        lanes = self.allocation.lanes.values()
        found: dict[str, Tensor] = {}
        for lane, width in zip(lanes, widths, strict=True):
            for axis, count in lane.channels(width).items():
                size = self.allocation.sizes[axis]
                ranks = torch.empty(size, dtype=torch.float64)
                ranks[torch.tensor(self.order[axis])] = torch.arange(1, size + 1, dtype=torch.float64)
                found[axis] = count / ranks
        return found
