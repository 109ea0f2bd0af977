"""A lesson: what stays of a network at a budget, as somebody found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from metaprune.graph.plan import Plan

__all__ = ["Lesson", "nearest", "of_share", "shares"]


@dataclass(frozen=True)
class Lesson:
    """What a search left of a network.

    Attributes:
        share: Of the MACs, that it was asked to leave.
        plan: The channels that stayed.
        weight: How much it counts among the lessons of the same share.
        worth: What the network was worth after a short tuning, more is better; None where that was not measured.
    """

    share: float
    plan: Plan
    weight: float = 1.0
    worth: float | None = None


def shares(lessons: Sequence[Lesson]) -> list[float]:
    """Those of the MACs that there are lessons for, each once."""
    return list(dict.fromkeys(lesson.share for lesson in lessons))


def of_share(lessons: Sequence[Lesson], share: float) -> tuple[Lesson, ...]:
    """Those for a share of the MACs, with weights that sum to 1."""
    found = [lesson for lesson in lessons if lesson.share == share]
    whole = sum(lesson.weight for lesson in found)
    return tuple(replace(lesson, weight=lesson.weight / whole) for lesson in found)


def nearest(lessons: Sequence[Lesson], share: float) -> float:
    """The share among those of some lessons that is nearest to another, as a ratio."""
    return min(shares(lessons), key=lambda own: abs(math.log(own / share)))
