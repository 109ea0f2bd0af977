"""A goal of meta-training: what a search measured, explained by how far from the widths that are said it was.

Of the widths around a network's criterion, some cost accuracy and some gain it. A search that has tuned some thirty
allocations knows which, but each of them is noisy, and its best is the luckiest. So what is learned is no allocation
but a surface: accuracy falls with the squared distance, in logarithms of widths, from the peak that the metanetwork
says (a response surface, Box and Wilson 1951, with one curvature; `lessons/surface.py` draws one for a network alone).
All that was tried teaches, the bad as much as the good, and what is noise on one network averages out over many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metaprune.graph.errors import MetapruneError
from metaprune.methods.graph_metanetwork.editor.metanetwork import Edited
from metaprune.methods.graph_metanetwork.learning.goals.data_model import DataModel
from metaprune.methods.graph_metanetwork.learning.goals.objective import Objective
from metaprune.methods.graph_metanetwork.learning.lessons.lesson import nearest, shares
from metaprune.train.recipe import Recipe
from metaprune.train.task import Batch, Task

__all__ = ["LINEAR", "Worth"]

LINEAR = Recipe(40, lr=0.1, weight_decay=0.03, optimizer="adamw", clip_norm=1.0)
"""For a metanetwork without messages: a sum of some thirty numbers takes larger steps than a network."""

FEWEST = 4
"""Measured allocations that a surface is drawn through, at least."""


@dataclass(frozen=True)
class Worth:
    """Widths are said that are the peak of a surface through all that was measured: for `scored="widths"`.

    The objective is 1 - the correlation of what was measured with -|x - t|^2, by weights that say how sure each is:
    x are the logarithms of an allocation's widths over the criterion's, t what the metanetwork says. An axis counts in
    the distance by the root of what it costs. The objective has no units, and how steep a surface is need not be known.

    Attributes:
        near: The share that a step is aimed at is the lessons' own times up to 2^near or 2^-near, so that what is said
            between the budgets of lessons lies between what is said at them.
        short: How much the mean square of what is said counts beside: where measurements say nothing, nothing is said.
    """

    near: float = 0.5
    short: float = 0.5

    batch_statistics: ClassVar[bool] = False
    apart: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("near", "short"):
            if not 0 <= getattr(self, name) < math.inf:
                raise MetapruneError(f"Worth: expected {name} from 0, got {getattr(self, name)!r}")

    def share(self, data: DataModel, drawn: torch.Generator) -> float:
        """Around that of any of its lessons."""
        known = shares(data.lessons)
        for own in known or [math.nan]:
            measured = sum(lesson.worth is not None for lesson in data.lessons if lesson.share == own)
            if measured < FEWEST:
                raise MetapruneError(
                    f"Worth: expected {FEWEST} lessons or more of data model {data.name!r} that were measured at a "
                    f"share, got {measured}; search(...) makes them, and Searched.graded() tells what they were worth"
                )
        own = known[int(torch.randint(len(known), (), generator=drawn))]
        return min(1.0, own * 2 ** (self.near * (2 * torch.rand((), generator=drawn).item() - 1)))

    def objectives(
        self, data: DataModel, task: Task, batches: Sequence[Batch], share: float
    ) -> Iterator[tuple[str, Objective]]:
        """One without any of the batches."""
        tries = data.tries[nearest(data.lessons, share)]
        places = torch.tensor([data.read.names.index(name) for name in data.graph.free])

        def unexplained(edited: Edited) -> Tensor:
            peak = edited.tilts[places.to(edited.tilts.device)]
            away, worth, weight, steep = (told.to(peak) for told in tries)
            explained = away @ (steep * peak) - away.square() @ steep / 2
            return 1 - _correlation(explained, worth, weight) + self.short * peak.square().mean()

        yield "unexplained", unexplained


def _correlation(one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """Weighted by weights that sum to 1."""
    one, other = one - (weight * one).sum(), other - (weight * other).sum()
    product = (weight * one * other).sum()
    return product / ((weight * one * one).sum() * (weight * other * other).sum()).clamp(min=1e-20).sqrt()
