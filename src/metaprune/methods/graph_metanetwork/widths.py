"""From widths that a metanetwork says to a ranking that has them: the ranking is what all else works with."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from metaprune.cost.budget import Allocation
from metaprune.graph.plan import ratios_of

__all__ = ["widened"]

LOWEST = 1e-30
"""What channels weigh at least: what is dead would take up no factor."""


def widened(allocation: Allocation, heights: Mapping[str, Tensor], tilts: Mapping[str, float]) -> dict[str, Tensor]:
    """The ranking with each axis raised or lowered as a whole, so that a budget leaves it wider, or narrower.

    What is said need not cost what the budget allows. Of the widths that do, those are taken that are nearest to it, in
    logarithms, where an axis counts by the root of its elasticity g (`Allocation.elasticities`): t - √g (g·t) / (g·√g).
    Then each axis is divided by what lies between the last of its channels that stays and the first that goes.

    Args:
        allocation: Within the budget.
        heights: For each free axis what its channels weigh, above 0; shape (size,).
        tilts: For each free axis the logarithm of its width over the one that `heights` leaves it.
    """
    graph = allocation.graph
    plan = allocation.plan(heights)
    plain, grows = ratios_of(graph, plan), allocation.elasticities(plan.widths)
    over = sum(grows[name] * tilts[name] for name in plain) / max(sum(own**1.5 for own in grows.values()), LOWEST)
    wanted = {
        name: min(1.0, ratio * math.exp(tilts[name] - over * math.sqrt(grows[name]))) for name, ratio in plain.items()
    }
    widths = allocation.nearest(wanted, heights).widths
    return {name: height / _edge(height, widths.get(name, len(height))) for name, height in heights.items()}


def _edge(height: Tensor, width: int) -> float:
    """Between the `width` largest and the others: their geometric mean; where all stay, below the smallest."""
    falling = height.double().clamp(min=LOWEST).sort(descending=True).values
    last = float(falling[width - 1])
    return last / 2 if width == len(falling) else math.sqrt(last * float(falling[width]))
