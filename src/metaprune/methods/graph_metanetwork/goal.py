"""Goals of meta-training: which objectives a step adds up, for a data model and some batches.

`Paper` is that of Liu et al. 2025 (arXiv 2506.12041): the task's loss of the edited network, and the group-norm
regulariser. `Direct` is beside the paper: the task's loss of the edited network without the channels that rank lowest,
at budgets drawn at random, along a short tuning. (Only the channels that stay learn from it. Scores that learned to
rank, from the gradients of gates passed straight through, were tried: those of channels that live are noise around zero
in a trained network, and the ranking got worse.)
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
from metaprune.methods.graph_metanetwork.criterion import Criterion, ranking
from metaprune.methods.graph_metanetwork.evidence import informed
from metaprune.methods.graph_metanetwork.network_graph import NetworkGraph, graph_of
from metaprune.methods.graph_metanetwork.objective import Objective, Weights, group_penalty, living, masked, task_loss
from metaprune.methods.saliency import evidence_per_cost, gate_gradients
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
        read: What the metanetwork reads, with evidence.
        allocation: Plans of any share of its MACs.
        evidence: What its own training data say of its channels, per cost (`saliency.evidence_per_cost`).
    """

    name: str
    model: nn.Module
    graph: ChannelGraph
    read: NetworkGraph
    allocation: Allocation
    evidence: dict[str, Tensor]

    @classmethod
    def of(cls, name: str, model: nn.Module, graph: ChannelGraph, task: Task, device: torch.device) -> DataModel:
        """Ready to learn from; `model` is left untouched, and some training data of the task are asked about it.

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
        said = gate_gradients(own, graph, task)
        allocation = Allocation(graph, Budget(macs=1.0, multiple_of=1))
        evidence = evidence_per_cost(said, allocation.prices({})) if len(task.train) else {}
        return cls(name, own, graph, informed(read, said), allocation, evidence)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Its own tensors that are edited."""
        tensors = named_tensors(self.model)
        return {block.name: tensors[block.name].detach() for block in self.read.learned}

    def ranked(self, edited: Weights, criterion: Criterion = "blend") -> dict[str, Tensor]:
        """For each free axis what its channels weigh in the ranking, once edited."""
        tensors = named_tensors(self.model) | dict(edited)
        return ranking(tensors, self.graph, self.read, criterion, self.evidence)

    def plan(self, ranked: dict[str, Tensor], share: float) -> Plan:
        """What a share of its MACs leaves; the smallest network where that cannot be met."""
        least = self.allocation.form.at(self.allocation.least)
        return self.allocation.plan(ranked, limit=max(share * self.allocation.dense, least))


class Goal(Protocol):
    """What a metanetwork is trained for."""

    batch_statistics: ClassVar[bool]
    """Whether batch norms take the statistics of batches, as where they are measured anew after a cut."""

    @property
    def low(self) -> float:
        """The smallest share of the MACs that an edit is aimed at."""
        ...

    @property
    def high(self) -> float:
        """The largest."""
        ...

    def objectives(
        self, data: DataModel, task: Task, batches: Sequence[Batch], share: float
    ) -> Iterator[tuple[str, Objective]]:
        """The objectives of a step, each with the name it is reported under.

        Args:
            data: What is edited.
            task: What for.
            batches: Of its training data.
            share: Of the MACs, that the edit is aimed at; drawn between `low` and `high`.
        """
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
        low: The smallest share that an edit is said to be aimed at; it does not enter the objective.
        high: The largest.
    """

    strength: float = 1.0
    spread: float = 4.0
    relative: bool = True
    low: float = 0.2
    high: float = 0.7

    batch_statistics: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self, "strength", "spread")

    def objectives(
        self, data: DataModel, task: Task, batches: Sequence[Batch], share: float
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

    def __post_init__(self) -> None:
        _check(self, "dense", "tuning")

    def objectives(
        self, data: DataModel, task: Task, batches: Sequence[Batch], share: float
    ) -> Iterator[tuple[str, Objective]]:
        """One loss of the cut network for each batch, and one of the whole network."""
        cut = _Tuned(self, data, share)
        for batch in batches:
            loss = task_loss(data.model, task, batch)
            yield "loss", cut.step(loss, 1 / len(batches))
        if self.dense:
            yield "dense", _share(task_loss(data.model, task, batches[0]), self.dense)


def _check(goal: Paper | Direct, *names: str) -> None:
    """Refuse shares that are none, and fields of these names that are negative or not finite."""
    who = type(goal).__name__
    if not 0 < goal.low <= goal.high <= 1:
        raise MetapruneError(f"{who}: expected 0 < low <= high <= 1, got {goal.low!r} and {goal.high!r}")
    for name in names:
        if not 0 <= getattr(goal, name) < float("inf"):
            raise MetapruneError(f"{who}: expected {name} from 0, got {getattr(goal, name)!r}")


class _Tuned:
    """The network that a budget leaves, on its way through the batches of a step."""

    def __init__(self, goal: Direct, data: DataModel, share: float) -> None:
        self.goal, self.data, self.share = goal, data, share
        self.alive: Tensor | None = None
        self.moved: dict[str, Tensor] = {}

    def step(self, loss: Objective, factor: float) -> Objective:
        """The loss where the tuning has come to, which then takes a step."""

        def objective(weights: Weights) -> Tensor:
            if self.alive is None:
                plan = self.data.plan(self.data.ranked(weights), self.share)
                self.alive = living(self.data.read, plan)
                self.moved = {name: torch.zeros_like(weight) for name, weight in weights.items()}
            now = {name: weight + self.moved[name] for name, weight in weights.items()}
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


def _share(objective: Objective, factor: float) -> Objective:
    return lambda weights: factor * objective(weights)
