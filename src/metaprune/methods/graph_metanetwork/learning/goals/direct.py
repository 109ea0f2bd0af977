"""The loss of the network that a budget leaves, along a short tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metaprune.methods.graph_metanetwork.criterion import Weights
from metaprune.methods.graph_metanetwork.editor.metanetwork import Edited
from metaprune.methods.graph_metanetwork.learning.goals.data_model import DataModel
from metaprune.methods.graph_metanetwork.learning.goals.goal import between, check, whole
from metaprune.methods.graph_metanetwork.learning.goals.objective import Objective, task_loss
from metaprune.methods.graph_metanetwork.reading.masks import living, masked
from metaprune.train.task import Batch, Task

__all__ = ["Direct"]


@dataclass(frozen=True)
class Direct:
    """The task's loss without the channels that rank lowest, at a budget drawn for each step, along a short tuning.

    After each batch of a step the weights that stay take a step down its gradient, as in fine-tuning, so that what is
    learned is to edit for the network after it, not before. The metanetwork gets the mean of the gradients
    along the way (of first order, as Finn et al. 2017, arXiv 1703.03400, take it).

    Attributes:
        low: The smallest share of the MACs that is drawn.
        high: The largest.
        dense: How much the loss of the whole network counts beside it.
        tuning: The learning rate of the short tuning; 0 leaves it out.
    """

    low: float = 0.2
    high: float = 0.7
    dense: float = 0.1
    tuning: float = 0.05

    batch_statistics: ClassVar[bool] = True
    apart: ClassVar[bool] = False  # each batch goes on from where the one before it has led

    def __post_init__(self) -> None:
        check(self, "dense", "tuning")

    def share(self, data: DataModel, drawn: torch.Generator) -> float:
        """Any from `low` to `high`."""
        return between(self.low, self.high, drawn)

    def objectives(
        self, data: DataModel, task: Task, batches: Sequence[Batch], share: float
    ) -> Iterator[tuple[str, Objective]]:
        """One loss of the cut network for each batch, and one of the whole network."""
        cut = _Tuned(self, data, share)
        for batch in batches:
            loss = task_loss(data.model, task, batch)
            yield "loss", cut.step(loss, 1 / len(batches))
        if self.dense:
            yield "dense", whole(task_loss(data.model, task, batches[0]), self.dense)


class _Tuned:
    """The network that a budget leaves, on its way through the batches of a step."""

    def __init__(self, goal: Direct, data: DataModel, share: float) -> None:
        self.goal, self.data, self.share = goal, data, share
        self.alive: Tensor | None = None
        self.moved: dict[str, Tensor] = {}

    def step(self, loss: Callable[[Weights], Tensor], factor: float) -> Objective:
        """The loss where the tuning has come to, which then takes a step."""

        def objective(edited: Edited) -> Tensor:
            if self.alive is None:
                plan = self.data.left(edited, self.share)
                self.alive = living(self.data.read, plan)
                self.moved = {name: torch.zeros_like(weight) for name, weight in edited.weights.items()}
            now = {name: weight + self.moved[name] for name, weight in edited.weights.items()}
            leaves = {name: weight.detach().requires_grad_() for name, weight in now.items()}
            value = loss(masked(self.data.read, leaves, self.alive))
            slopes = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
            carried = value.detach()
            for (name, weight), slope in zip(now.items(), slopes, strict=True):
                if slope is not None:
                    self.moved[name] = self.moved[name] - self.goal.tuning * slope
                    carried = carried + ((weight - weight.detach()) * slope).sum()
            return factor * carried

        return objective
