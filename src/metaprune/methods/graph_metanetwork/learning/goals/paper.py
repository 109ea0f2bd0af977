"""The paper's goal: the task's loss of the edited network, and a regulariser that makes weak channels weaker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from metaprune.methods.graph_metanetwork.learning.goals.data_model import DataModel
from metaprune.methods.graph_metanetwork.learning.goals.goal import between, check, whole
from metaprune.methods.graph_metanetwork.learning.goals.objective import Objective, group_penalty, task_loss
from metaprune.train.task import Batch, Task

__all__ = ["Paper"]


@dataclass(frozen=True)
class Paper:
    """The task's loss, the mean over batches, plus strength times the group-norm regulariser.

    Attributes:
        strength: How much the regulariser counts. (The paper's 10 for a sum over 100 batches is 0.1 for their mean,
            with `relative=False`.)
        spread: How much more weak channels are pulled: 2^spread.
        relative: Whether the regulariser is divided by what it is before editing, so that one strength suits networks
            of any size; False takes it as it is, as the paper does.
        low: The smallest share that an edit is said to be aimed at; it does not enter the objective.
        high: The largest.
    """

    strength: float = 1.0
    spread: float = 4.0
    relative: bool = True
    low: float = 0.2
    high: float = 0.7

    batch_statistics: ClassVar[bool] = False
    apart: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check(self, "strength", "spread")

    def share(self, data: DataModel, drawn: torch.Generator) -> float:
        """Any from `low` to `high`."""
        return between(self.low, self.high, drawn)

    def objectives(
        self, data: DataModel, task: Task, batches: Sequence[Batch], share: float
    ) -> Iterator[tuple[str, Objective]]:
        """One loss a batch, and the regulariser."""
        for batch in batches:
            yield "loss", whole(task_loss(data.model, task, batch), 1 / len(batches))
        scale = 1.0
        if self.relative:
            scale = max(group_penalty(data.read, data.weights, self.spread).item(), 1e-30)
        yield "penalty", whole(partial(group_penalty, data.read, spread=self.spread), self.strength / scale)
