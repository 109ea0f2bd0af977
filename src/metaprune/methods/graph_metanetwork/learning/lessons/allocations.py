"""Allocations: how many channels each axis keeps within a budget, as shares of the axes, and others around them."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence

from torch import Tensor

from metaprune.cost.budget import Allocation
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.infer import Inference
from metaprune.graph.plan import Plan, ratios_of
from metaprune.methods.graph_metanetwork.reading.features import axis_features, uses

__all__ = ["Ratios", "around", "between", "children", "directions", "moved", "toward"]

Ratios = Mapping[str, float]
"""For each free axis the share of its channels that stays."""

TILT = 0.5
"""How far an axis one standard deviation from the others is widened or narrowed, as a logarithm."""

SPREAD = 0.4
"""Of what is drawn at random, as a logarithm."""


def between(first: Ratios, second: Ratios) -> dict[str, float]:
    """Their geometric mean."""
    return {name: math.sqrt(ratio * second[name]) for name, ratio in first.items()}


def moved(ratios: Ratios, by: Mapping[str, float]) -> dict[str, float]:
    """Ratios times exp(by), at most 1."""
    return {name: min(1.0, ratio * math.exp(by[name])) for name, ratio in ratios.items()}


def directions(graph: ChannelGraph) -> dict[str, dict[str, float]]:
    """Ways in which axes differ in every network, each with mean 0 and deviation 1 over the free axes.

    Depth (the middle of where an axis reaches), size, share of the cost, and how many dimensions hold it; those in
    which all axes are alike are left out.
    """
    names = list(graph.free)
    if len(names) < 2 or not isinstance(graph.inference, Inference):
        return {}
    told = axis_features(graph, names, uses(graph, graph.inference)).double()
    columns = {"depth": told[:, 2] + told[:, 3], "size": told[:, 1], "cost": told[:, 4], "reach": told[:, 5]}
    found = {}
    for what, values in columns.items():
        if (spread := float(values.std())) > 1e-6:
            found[what] = dict(zip(names, ((values - values.mean()) / spread).tolist(), strict=True))
    return found


def around(
    allocation: Allocation, heights: Mapping[str, Tensor], rivals: Mapping[str, Plan], count: int, seed: int
) -> dict[str, Plan]:
    """Allocations to try: name -> plan, so many at most.

    First the rivals as they are; then their widths with the channels that `heights` ranks first, what lies half way
    between the first two rivals, the first one tilted along each of `directions`, and, as many as are left, moved at
    random.

    Args:
        allocation: Within the budget.
        heights: For each free axis, by what its channels are ranked; shape (size,).
        rivals: Name -> plan, the first ranked by `heights`.
        count: How many.
        seed: Of what is drawn.
    """
    graph = allocation.graph
    shares = {name: ratios_of(graph, plan) for name, plan in rivals.items()}
    own, *others = shares
    wanted = _toward(shares[own], {name: shares[name] for name in others})
    for what, direction in directions(graph).items():
        for sign, word in ((1, "more"), (-1, "less")):
            tilt = {name: sign * TILT * value for name, value in direction.items()}
            wanted.append((f"{word} with {what}", moved(shares[own], tilt)))
    drawn = random.Random(seed)
    for number in range(8 * count):
        base = shares[list(shares)[number % min(len(shares), 2)]]
        wanted.append((f"drawn {number}", moved(base, {name: drawn.gauss(0, SPREAD) for name in base})))
    return _different(allocation, heights, rivals, wanted, count)


def toward(
    allocation: Allocation,
    heights: Mapping[str, Tensor],
    known: Mapping[str, Plan],
    own: Plan,
    others: Mapping[str, Plan],
) -> dict[str, Plan]:
    """The widths of others with the channels that `heights` ranks first, and half way to them; none that is known.

    Args:
        allocation: Within the budget.
        heights: As for `around`.
        known: All that were tried.
        own: What `heights` alone would keep.
        others: Name -> plan.
    """
    shares = {name: ratios_of(allocation.graph, plan) for name, plan in others.items()}
    wanted = _toward(ratios_of(allocation.graph, own), shares)
    found = _different(allocation, heights, known, wanted, len(known) + len(wanted))
    return {name: plan for name, plan in found.items() if name not in known}


def children(
    allocation: Allocation,
    heights: Mapping[str, Tensor],
    known: Mapping[str, Plan],
    best: Sequence[str],
    count: int,
    seed: int,
) -> dict[str, Plan]:
    """So many more: between two of the best each, and a little beside it; none that is known.

    Args:
        allocation: Within the budget.
        heights: As for `around`.
        known: All that were tried.
        best: Names of the best of them, two or more.
        count: How many.
        seed: Of what is drawn.
    """
    drawn = random.Random(seed)
    shares = {name: ratios_of(allocation.graph, known[name]) for name in best}
    wanted = []
    for number in range(8 * count):
        first, second = drawn.sample(list(best), 2)
        noise = {name: drawn.gauss(0, SPREAD / 2) for name in shares[first]}
        wanted.append((f"child {number}", moved(between(shares[first], shares[second]), noise)))
    found = _different(allocation, heights, known, wanted, len(known) + count)
    return {name: plan for name, plan in found.items() if name not in known}


def _toward(own: Ratios, others: Mapping[str, Ratios]) -> list[tuple[str, Ratios]]:
    """All of the way, and half of it."""
    whole: list[tuple[str, Ratios]] = [(f"{name}'s widths", ratios) for name, ratios in others.items()]
    return whole + [(f"half way to {name}", between(own, ratios)) for name, ratios in others.items()]


def _different(
    allocation: Allocation,
    heights: Mapping[str, Tensor],
    known: Mapping[str, Plan],
    wanted: Sequence[tuple[str, Ratios]],
    count: int,
) -> dict[str, Plan]:
    """What is known and the plans nearest to what is wanted, each once."""
    found, seen = dict(known), {plan.to_json() for plan in known.values()}
    for name, ratios in itertools.takewhile(lambda _: len(found) < count, wanted):
        plan = allocation.nearest(ratios, heights)
        if (said := plan.to_json()) not in seen:
            seen.add(said)
            found[name] = plan
    return found
