"""Rewarded meta-pruning: a reward that trades the metric off against the cost, as the fitness of the same search.

Source: Shibu, Kumar, Jung, Lee, Rewarded meta-pruning: Meta Learning with Rewards for Channel Pruning, Mathematics
11(23), 2023, arXiv 2301.11063. R = psi rho with psi = (A0 / (A0 - A))^2 and rho = -ln(F / F0).

Departures, with reasons. As published, psi has a pole at A = A0 and falls again beyond, so that who is better than the
base is punished; here A0 - A never counts as less than `POLE` of A0. Where F > F0, rho is below zero, and the more
accurate scores worse; here R is rho alone there, whatever the metric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from metaprune.graph.arguments import is_finite
from metaprune.graph.errors import MetapruneError

__all__ = ["POLE", "Fitness", "Rewarded", "front", "rewarded"]

POLE = 0.01
"""A gap to the base below this share of the base counts as this much."""


class Fitness(Protocol):
    """What candidates are ranked by: the highest is the best."""

    def __call__(self, metric: float, share: float, /) -> float:
        """Of a candidate's metric on the validation data and the share of the dense cost that it leaves."""


@dataclass(frozen=True)
class Rewarded:
    """See `rewarded`."""

    base_metric: float
    base_cost: float = 1.0
    exponent: float = 2.0
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if not (is_finite(self.base_metric) and self.base_metric):
            raise MetapruneError(f"rewarded: expected a base metric other than 0, got {self.base_metric!r}")
        if not (is_finite(self.base_cost) and 0 < self.base_cost <= 1):
            raise MetapruneError(
                f"rewarded: expected a base cost as a share of the dense one, in (0, 1], got {self.base_cost!r}"
            )
        if not (is_finite(self.exponent) and self.exponent > 0):
            raise MetapruneError(f"rewarded: expected an exponent above 0, got {self.exponent!r}")

    def __call__(self, metric: float, share: float) -> float:
        """R: the higher, the better."""
        efficiency = -math.log(share / self.base_cost)
        return efficiency * self.accuracy(metric) if efficiency > 0 else efficiency

    def accuracy(self, metric: float) -> float:
        """psi: it rises up to `POLE` before the base, and stays there beyond."""
        gap = self.base_metric - metric if self.higher_is_better else metric - self.base_metric
        size = abs(self.base_metric)
        return float((size / max(gap, POLE * size)) ** self.exponent)


def rewarded(
    base_metric: float, base_cost: float = 1.0, *, exponent: float = 2.0, higher_is_better: bool = True
) -> Rewarded:
    """The reward of Rewarded meta-pruning, for `mp.MetaPruning(fitness=…)`.

    Args:
        base_metric: A0, the metric of the network to compare with.
        base_cost: F0, what it costs, as a share of the dense network's.
        exponent: How much the metric counts against the cost.
        higher_is_better: Whether more of the metric is better; else its excess over A0 counts.

    Raises:
        MetapruneError: A base that nothing can be compared with.
    """
    return Rewarded(base_metric, base_cost, exponent, higher_is_better)


class Measured(Protocol):
    """What has a metric and a cost."""

    @property
    def metric(self) -> float:
        """On the validation data."""

    @property
    def share(self) -> float:
        """Of the dense cost."""


Point = TypeVar("Point", bound=Measured)


def front(candidates: Sequence[Point], *, higher_is_better: bool = True) -> list[Point]:
    """The Pareto front, the cheapest first: those that nobody is better than at the same cost or less."""
    sign = 1.0 if higher_is_better else -1.0
    found: list[Point] = []
    best = -math.inf
    for point in sorted(candidates, key=lambda one: (one.share, -sign * one.metric)):
        if sign * point.metric > best:
            best = sign * point.metric
            found.append(point)
    return found
