"""Goals of meta-training: which objectives a step adds up, for a data model and some batches.

`Paper` is that of Liu et al. 2025 (arXiv 2506.12041): the task's loss of the edited network, and the group-norm
regulariser. `Direct` is the task's loss of the edited network with its weakest channels masked, at budgets drawn at
random. (Beside the paper; only the channels that stay learn from it, since a ranking has no gradient.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from metaprune.cost.budget import Allocation, Budget
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import clone, named_tensors
from metaprune.methods.graph_metanetwork.network_graph import NetworkGraph, graph_of
from metaprune.methods.graph_metanetwork.objective import (
    Objective,
    Weights,
    group_penalty,
    living,
    masked,
    scores,
    task_loss,
)
from metaprune.surgery.attention import written_out
from metaprune.train.task import Batch, Task

__all__ = ["DataModel", "Direct", "Goal", "Paper"]


@dataclass(frozen=True)
class DataModel:
    """A network that a metanetwork learns from.

    Attributes:
        name: Its name.
        model: A copy in evaluation mode, on the device of the training.
        graph: Its channel graph.
        read: What the metanetwork reads.
        allocation: Plans of any share of its MACs.
    """

    name: str
    model: nn.Module
    graph: ChannelGraph
    read: NetworkGraph
    allocation: Allocation

    @classmethod
    def of(cls, name: str, model: nn.Module, graph: ChannelGraph, device: torch.device) -> DataModel:
        """Ready to learn from; `model` is left untouched.

        Raises:
            MetapruneError: Nothing of it trains, or nothing of it can be cut.
        """
        own = clone(written_out(model, graph.written_out)).to(device).eval()
        read = graph_of(own, graph).to(device)
        if not read.learned:
            raise MetapruneError(
                f"meta_train: expected parameters that train in data model {name!r}, got none; "
                "call model.requires_grad_()"
            )
        if not graph.free:
            raise MetapruneError(
                f"meta_train: expected axes that can be cut in data model {name!r}, got none; print the graph"
            )
        return cls(name, own, graph, read, Allocation(graph, Budget(macs=1.0, multiple_of=1)))

    @property
    def weights(self) -> dict[str, Tensor]:
        """Its own tensors that are edited."""
        tensors = named_tensors(self.model)
        return {block.name: tensors[block.name].detach() for block in self.read.learned}

    def plan(self, ranked: dict[str, Tensor], share: float) -> Plan:
        """What a share of its MACs leaves; the smallest network where that cannot be met."""
        least = self.allocation.form.at(self.allocation.least)
        return self.allocation.plan(ranked, limit=max(share * self.allocation.dense, least))


class Goal(Protocol):
    """What a metanetwork is trained for."""

    batch_statistics: ClassVar[bool]
    """Whether batch norms take the statistics of batches, as where they are measured anew after a cut."""

    def objectives(
        self, data: DataModel, task: Task, batches: Sequence[Batch], generator: torch.Generator
    ) -> Iterator[tuple[str, Objective]]:
        """The objectives of a step, each with the name it is reported under."""
        ...


@dataclass(frozen=True)
class Paper:
    """The task's loss, the mean over batches, plus strength times the group-norm regulariser.

    Attributes:
        strength: How much the regulariser counts. (The paper's 10 for a sum over 100 batches is 0.1 for their mean,
            with `relative=False`.)
        spread: How much more weak channels are pulled: 2^spread.
        relative: Whether the regulariser is divided by what it is before editing, so that one strength suits networks
            of any size; False takes it as it is, as the paper does.
    """

    strength: float = 1.0
    spread: float = 4.0
    relative: bool = True

    batch_statistics: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("strength", "spread"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise MetapruneError(f"Paper: expected {name} from 0, got {getattr(self, name)!r}")

    def objectives(
        self, data: DataModel, task: Task, batches: Sequence[Batch], generator: torch.Generator
    ) -> Iterator[tuple[str, Objective]]:
        """One loss a batch, and the regulariser."""
        for batch in batches:
            yield "loss", _share(task_loss(data.model, task, batch), 1 / len(batches))
        scale = 1.0
        if self.relative:
            scale = max(group_penalty(data.read, data.weights, self.spread).item(), 1e-30)
        yield "penalty", lambda weights: self.strength / scale * group_penalty(data.read, weights, self.spread)


@dataclass(frozen=True)
class Direct:
    """The task's loss with the weakest channels masked, the mean over batches; each batch has a budget of its own.

    Attributes:
        low: The smallest share of the MACs that is drawn.
        high: The largest.
        dense: How much the loss of the unmasked network counts beside it.
    """

    low: float = 0.3
    high: float = 0.9
    dense: float = 0.5

    batch_statistics: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high <= 1:
            raise MetapruneError(f"Direct: expected 0 < low <= high <= 1, got {self.low!r} and {self.high!r}")
        if not 0 <= self.dense < float("inf"):
            raise MetapruneError(f"Direct: expected dense from 0, got {self.dense!r}")

    def objectives(
        self, data: DataModel, task: Task, batches: Sequence[Batch], generator: torch.Generator
    ) -> Iterator[tuple[str, Objective]]:
        """One loss of the masked and one of the unmasked network a batch."""
        for batch in batches:
            share = self.low + (self.high - self.low) * torch.rand((), generator=generator).item()
            loss = _share(task_loss(data.model, task, batch), 1 / len(batches))
            yield "loss", _cut(data, loss, share)
            if self.dense:
                yield "dense", _share(loss, self.dense)


def _share(objective: Objective, factor: float) -> Objective:
    return lambda weights: factor * objective(weights)


def _cut(data: DataModel, loss: Objective, share: float) -> Objective:
    """The loss of what a share of the MACs leaves of the edited network."""

    def objective(weights: Weights) -> Tensor:
        plan = data.plan(scores(data.read, weights), share)
        return loss(masked(data.read, weights, living(data.read, plan)))

    return objective
