"""What a criterion leaves of each axis at the budget that a network will be cut to."""

from __future__ import annotations

import math
from collections.abc import Sequence

from metaprune.cost.budget import Allocation
from metaprune.graph.plan import Plan, ratios_of

__all__ = ["LEFT", "left"]

LEFT = 2

LEAST = 1e-3
"""Of an elasticity: what costs less is told apart no further."""


def left(allocation: Allocation, plan: Plan, names: Sequence[str]) -> list[list[float]]:
    """For each axis the logarithm of the share that is left of it, and that of its elasticity then; zeros if not free.

    Args:
        allocation: What the elasticity is of (`Allocation.elasticities`).
        plan: What the criterion leaves.
        names: The axes.
    """
    ratios, grows = ratios_of(allocation.graph, plan), allocation.elasticities(plan.widths)
    return [
        [math.log(ratios[name]), math.log(max(grows[name], LEAST))] if name in ratios else [0.0] * LEFT
        for name in names
    ]
