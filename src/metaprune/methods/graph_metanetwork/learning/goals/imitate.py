"""What a search kept, said at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from metaprune.graph.errors import MetapruneError
from metaprune.methods.graph_metanetwork.editor.metanetwork import Edited
from metaprune.methods.graph_metanetwork.learning.goals.data_model import DataModel
from metaprune.methods.graph_metanetwork.learning.goals.goal import Goal
from metaprune.methods.graph_metanetwork.learning.goals.objective import Objective
from metaprune.methods.graph_metanetwork.learning.lessons.lesson import of_share, shares
from metaprune.methods.graph_metanetwork.reading.masks import living
from metaprune.train.task import Batch, Task

__all__ = ["Imitate"]


@dataclass(frozen=True)
class Imitate:
    """The scores say which channels a search kept, at the budgets that it was asked for.

    The cross-entropy between what was kept and sigmoid(log ranking - its mean over all channels): the mean over the
    channels of each axis, and then over axes, so that slim axes count like wide ones. Of several lessons at a budget, a
    channel counts as kept by as much as their weights say. Weights learn nothing from it.

    Attributes:
        weights: What the weights learn from in the same steps, at the same budgets; None leaves them as they are.
    """

    weights: Goal | None = None

    @property
    def batch_statistics(self) -> bool:
        """As for the weights."""
        return self.weights is not None and self.weights.batch_statistics

    @property
    def apart(self) -> bool:
        """As for the weights."""
        return self.weights is None or self.weights.apart

    def share(self, data: DataModel, drawn: torch.Generator) -> float:
        """That of any of its lessons."""
        if not data.lessons:
            raise MetapruneError(
                f"Imitate: expected lessons for data model {data.name!r}, got none; make them with teach(...)"
            )
        known = shares(data.lessons)
        return known[int(torch.randint(len(known), (), generator=drawn))]

    def objectives(
        self, data: DataModel, task: Task, batches: Sequence[Batch], share: float
    ) -> Iterator[tuple[str, Objective]]:
        """One without any of the batches, and those for the weights."""
        taught = of_share(data.lessons, share)
        stays = torch.stack([lesson.weight * living(data.read, lesson.plan) for lesson in taught]).sum(0)

        def surprise(edited: Edited) -> Tensor:
            ranked = data.ranked(edited._replace(scores=torch.zeros_like(edited.scores)))
            heights = {name: weighed.clamp(min=1e-30).log() for name, weighed in ranked.items()}
            middle = torch.cat(list(heights.values())).mean()
            losses = []
            for name, nodes in data.read.free.items():
                said = (heights[name] - middle).clamp(-REACH, REACH).to(edited.scores) + edited.scores[nodes]
                losses.append(F.binary_cross_entropy_with_logits(said, stays[nodes].to(said)))
            return torch.stack(losses).mean()

        yield "surprise", surprise
        if self.weights is not None:
            yield from self.weights.objectives(data, task, batches, share)


REACH = 4.0
"""How far the ranking without scores may stand out, as a logarithm; what is dead would be a surprise without end."""
