"""A lesson: what stays of a network at a budget, as somebody found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metaprune.graph.plan import Plan

__all__ = ["Lesson", "of_share"]


@dataclass(frozen=True)
class Lesson:
    """What a search left of a network.

    Attributes:
        share: Of the MACs, that it was asked to leave.
        plan: The channels that stayed.
        weight: How much it counts among the lessons of the same share.
    """

    share: float
    plan: Plan
    weight: float = 1.0


def of_share(lessons: Sequence[Lesson], share: float) -> tuple[Lesson, ...]:
    """Those for a share of the MACs, with weights that sum to 1."""
    found = [lesson for lesson in lessons if lesson.share == share]
    whole = sum(lesson.weight for lesson in found)
    return tuple(Lesson(share, lesson.plan, lesson.weight / whole) for lesson in found)
