"""A budget in milliseconds, translated to MACs by cutting networks and measuring them."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from metaprune.cost.bound import Bound
from metaprune.cost.budget import Allocation, Budget
from metaprune.graph.errors import BudgetError
from metaprune.graph.graph import ChannelGraph
from metaprune.methods.saliency import group_norms
from metaprune.session.measuring import in_turns
from metaprune.surgery.slice import carve
from metaprune.train.recipe import Recipe

__all__ = ["HALVINGS", "Measured", "translated"]

HALVINGS = 6
"""How often the interval of MACs is halved."""

Measured = list[tuple[float, float]]
"""Pairs of (share of the MACs, milliseconds)."""


def translated(model: nn.Module, graph: ChannelGraph, budget: Budget, recipe: Recipe) -> tuple[Budget, Measured]:
    """A budget in MACs or parameters, and what was measured to find it; a budget without a latency is given back.

    Networks are cut by group norm, and the interval between the smallest and the dense one is halved.

    Raises:
        BudgetError: The smallest network takes longer.
    """
    if budget.latency is None:
        return budget, []
    scores = group_norms(model, graph)
    loosest = Allocation(graph, Budget(macs=1.0, multiple_of=budget.multiple_of))
    low, high = loosest.form.at(loosest.least), loosest.dense
    measured: Measured = []

    def time(macs: int) -> float:
        plan = loosest.plan(scores, limit=macs)
        found = in_turns({"cut": carve(model, graph, plan).model}, graph, recipe)
        measured.append((macs / loosest.dense, found["cut"].median_ms))
        return measured[-1][1]

    most = 1.0 if budget.macs is None else budget.macs
    if (dense := time(high)) <= budget.latency:
        return replace(budget, latency=None, macs=most), measured
    if (least := time(low)) > budget.latency:
        raise BudgetError(
            f"budget: {budget} cannot be met; the smallest network takes {least:.3g} ms and the dense one "
            f"{dense:.3g} ms on this device; ask for more"
        )
    for _ in range(HALVINGS):
        middle = (low + high) // 2
        low, high = (middle, high) if time(middle) <= budget.latency else (low, middle)
    within = min(max(low, 2), Bound.of(graph, "macs", most).limit)
    return replace(budget, latency=None, macs=within), measured
