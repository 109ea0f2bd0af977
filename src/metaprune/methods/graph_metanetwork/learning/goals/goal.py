"""What meta-training asks of a goal, and what goals share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from metaprune.graph.errors import MetapruneError
from metaprune.methods.graph_metanetwork.criterion import Weights
from metaprune.methods.graph_metanetwork.learning.goals.data_model import DataModel
from metaprune.methods.graph_metanetwork.learning.goals.objective import Objective
from metaprune.train.task import Batch, Task

__all__ = ["Goal", "between", "check", "whole"]


class Goal(Protocol):
    """What a metanetwork is trained for."""

    @property
    def batch_statistics(self) -> bool:
        """Whether batch norms take the statistics of batches, as where they are measured anew after a cut."""
        ...

    @property
    def apart(self) -> bool:
        """Whether no objective of a step hangs on the others, so that several processes may take turns with them."""
        ...

    def share(self, data: DataModel, drawn: torch.Generator) -> float:
        """The share of the MACs that the edit of a step is aimed at."""
        ...

    def objectives(
        self, data: DataModel, task: Task, batches: Sequence[Batch], share: float
    ) -> Iterator[tuple[str, Objective]]:
        """The objectives of a step, each with the name it is reported under.

        Args:
            data: What is edited.
            task: What for.
            batches: Of its training data.
            share: Of the MACs, that the edit is aimed at.
        """
        ...


def between(low: float, high: float, drawn: torch.Generator) -> float:
    """A number drawn evenly."""
    return low + (high - low) * torch.rand((), generator=drawn).item()


def check(goal: Any, *names: str) -> None:
    """Refuse shares that are none, and fields of these names that are negative or not finite."""
    who = type(goal).__name__
    if not 0 < goal.low <= goal.high <= 1:
        raise MetapruneError(f"{who}: expected 0 < low <= high <= 1, got {goal.low!r} and {goal.high!r}")
    for name in names:
        if not 0 <= getattr(goal, name) < float("inf"):
            raise MetapruneError(f"{who}: expected {name} from 0, got {getattr(goal, name)!r}")


def whole(loss: Callable[[Weights], Tensor], factor: float) -> Objective:
    """An objective that asks of the edited weights alone, times a factor."""
    return lambda edited: factor * loss(edited.weights)
