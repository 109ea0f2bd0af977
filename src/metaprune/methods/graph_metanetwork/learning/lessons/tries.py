"""What a search measured at one share of the cost, as numbers that a surface is drawn through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune.cost.budget import Allocation
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan, ratios_of
from metaprune.methods.graph_metanetwork.learning.lessons.lesson import Lesson

__all__ = ["Tries", "logarithms", "tries_of"]


class Tries(NamedTuple):
    """What was measured; axes are those that may be cut.

    Attributes:
        away: Logarithms of widths over those that the criterion leaves.
        worth: What they were worth, more is better.
        weight: How much each counts; their sum is 1.
        steep: How much an axis counts in distances: the root of its elasticity at the criterion's widths
            (`Allocation.elasticities`); their sum is 1.
    """

    away: Float[Tensor, "tries axes"]
    worth: Float[Tensor, " tries"]
    weight: Float[Tensor, " tries"]
    steep: Float[Tensor, " axes"]


def tries_of(lessons: Sequence[Lesson], allocation: Allocation, origin: Plan) -> Tries:
    """Of the lessons that were measured, as numbers.

    Args:
        lessons: Of one share.
        allocation: Of the network that they are of.
        origin: What the criterion leaves.
    """
    known = [lesson for lesson in lessons if lesson.worth is not None]
    graph = allocation.graph
    middle = logarithms(graph, origin)
    moved = [logarithms(graph, lesson.plan) - middle for lesson in known]
    away = torch.stack(moved) if moved else middle.new_zeros(0, len(middle))
    weight = torch.tensor([lesson.weight for lesson in known], dtype=torch.float64)
    worth = torch.tensor([lesson.worth for lesson in known], dtype=torch.float64)
    grows = allocation.elasticities(origin.widths)
    roots = torch.tensor([grows[name] for name in graph.free], dtype=torch.float64).clamp(min=1e-12).sqrt()
    return Tries(away, worth, weight / weight.sum(), roots / roots.sum())


def logarithms(graph: ChannelGraph, plan: Plan) -> Float[Tensor, " axes"]:
    """Of the shares that a plan leaves of the axes that may be cut."""
    return torch.tensor(list(ratios_of(graph, plan).values()), dtype=torch.float64).log()
