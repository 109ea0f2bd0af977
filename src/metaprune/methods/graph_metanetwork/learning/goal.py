"""Goals of meta-training: which objectives a step adds up, for a data model and some batches.

`Paper` is that of Liu et al. 2025 (arXiv 2506.12041): the task's loss of the edited network, and the group-norm
regulariser. `Direct` is beside the paper: the task's loss of the edited network without the channels that rank lowest,
at budgets drawn at random, along a short tuning; only the channels that stay learn from it. `Imitate` teaches the
scores, by which channels are ranked: to say at once what a search found. `worth.Worth` teaches widths, by what each
allocation that a search tried was worth. (Scores that learned from the gradients of
gates, passed straight through, were tried: those of channels that live are noise around zero in a trained network, and
the ranking got worse.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaprune.cost.budget import Allocation, Budget
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import clone, named_tensors
from metaprune.methods.graph_metanetwork.criterion import Criterion, Weights, ranking
from metaprune.methods.graph_metanetwork.editor.metanetwork import Edited
from metaprune.methods.graph_metanetwork.learning.lessons.lesson import Lesson, of_share
from metaprune.methods.graph_metanetwork.learning.lessons.tries import Tries, tries_of
from metaprune.methods.graph_metanetwork.learning.objective import Objective, group_penalty, task_loss
from metaprune.methods.graph_metanetwork.reading.evidence import informed
from metaprune.methods.graph_metanetwork.reading.masks import living, masked
from metaprune.methods.graph_metanetwork.reading.network_graph import NetworkGraph, graph_of
from metaprune.methods.graph_metanetwork.reading.survey.survey import surveyed
from metaprune.methods.graph_metanetwork.widths import widened
from metaprune.methods.saliency import evidence_per_cost, gate_gradients, relative_norms
from metaprune.surgery.attention import written_out
from metaprune.train.task import Batch, Task

__all__ = ["DataModel", "Direct", "Goal", "Imitate", "Paper"]


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
        task: What it is for.
        lessons: What a search found for it.
        criterion: By what its channels are ranked.
    """

    name: str
    model: nn.Module
    graph: ChannelGraph
    read: NetworkGraph
    allocation: Allocation
    evidence: dict[str, Tensor]
    task: Task
    lessons: tuple[Lesson, ...] = ()
    criterion: Criterion = "blend"

    @classmethod
    def of(
        cls,
        name: str,
        model: nn.Module,
        graph: ChannelGraph,
        task: Task,
        device: torch.device,
        lessons: Sequence[Lesson] = (),
        criterion: Criterion = "blend",
        surveys: Sequence[str] = (),
    ) -> DataModel:
        """Ready to learn from; `model` is left untouched, and some training data of the task are asked about it.

        What a metanetwork is told of its axes beside (`Metanetwork.surveys`) is surveyed here.

        Raises:
            MetapruneError: Nothing of it trains, or nothing of it can be cut.
            PlanError: A lesson is of another network.
        """
        for lesson in lessons:
            lesson.plan.check(graph)
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
        read = informed(read, said, relative_norms(named_tensors(own), graph))
        read = surveyed(read, own, graph, task, surveys, said)
        return cls(name, own, graph, read, allocation, evidence, task, tuple(lessons), criterion)

    @cached_property
    def tries(self) -> dict[float, Tries]:
        """What was measured of it, for each share of its lessons."""
        heights, found = self.heights, {}
        for share in dict.fromkeys(lesson.share for lesson in self.lessons):
            origin = self.asked_for(share).plan(heights)
            found[share] = tries_of(of_share(self.lessons, share), self.graph, origin)
        return found

    @property
    def weights(self) -> dict[str, Tensor]:
        """Its own tensors that are edited."""
        tensors = named_tensors(self.model)
        return {block.name: tensors[block.name].detach() for block in self.read.learned}

    def ranked(self, edited: Edited) -> dict[str, Tensor]:
        """For each free axis what its channels weigh in the ranking, once edited."""
        tensors = named_tensors(self.model) | edited.weights
        return ranking(tensors, self.graph, self.read, self.criterion, edited.scores, self.evidence)

    @property
    def heights(self) -> dict[str, Tensor]:
        """For each free axis what its channels weigh in the ranking as it is, with no metanetwork."""
        scores = torch.zeros(len(self.read.axis))
        return ranking(named_tensors(self.model), self.graph, self.read, self.criterion, scores, self.evidence)

    def plan(self, ranked: dict[str, Tensor], share: float) -> Plan:
        """What a share of its MACs leaves; the smallest network where that cannot be met."""
        return self.allocation.plan(ranked, limit=max(share * self.allocation.dense, self.least))

    def left(self, edited: Edited, share: float) -> Plan:
        """What a share of its MACs leaves of it, once edited."""
        ranked = self.ranked(edited)
        if edited.tilts.any() and share * self.allocation.dense > self.least:
            tilts = dict(zip(self.read.names, edited.tilts.tolist(), strict=True))
            ranked = widened(self.asked_for(share), ranked, tilts)
        return self.plan(ranked, share)

    def asked_for(self, share: float) -> Allocation:
        """Plans of a share of its MACs, used up as where a network is pruned.

        Raises:
            BudgetError: The smallest network has more.
        """
        return Allocation(self.graph, Budget(macs=share, multiple_of=1))

    @property
    def least(self) -> float:
        """The MACs of the smallest network."""
        return self.allocation.form.at(self.allocation.least)


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
        _check(self, "strength", "spread")

    def share(self, data: DataModel, drawn: torch.Generator) -> float:
        """Any from `low` to `high`."""
        return _between(self.low, self.high, drawn)

    def objectives(
        self, data: DataModel, task: Task, batches: Sequence[Batch], share: float
    ) -> Iterator[tuple[str, Objective]]:
        """One loss a batch, and the regulariser."""
        for batch in batches:
            yield "loss", _whole(task_loss(data.model, task, batch), 1 / len(batches))
        scale = 1.0
        if self.relative:
            scale = max(group_penalty(data.read, data.weights, self.spread).item(), 1e-30)
        yield "penalty", _whole(partial(group_penalty, data.read, spread=self.spread), self.strength / scale)


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
        _check(self, "dense", "tuning")

    def share(self, data: DataModel, drawn: torch.Generator) -> float:
        """Any from `low` to `high`."""
        return _between(self.low, self.high, drawn)

    def objectives(
        self, data: DataModel, task: Task, batches: Sequence[Batch], share: float
    ) -> Iterator[tuple[str, Objective]]:
        """One loss of the cut network for each batch, and one of the whole network."""
        cut = _Tuned(self, data, share)
        for batch in batches:
            loss = task_loss(data.model, task, batch)
            yield "loss", cut.step(loss, 1 / len(batches))
        if self.dense:
            yield "dense", _whole(task_loss(data.model, task, batches[0]), self.dense)


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
        shares = list(dict.fromkeys(lesson.share for lesson in data.lessons))
        return shares[int(torch.randint(len(shares), (), generator=drawn))]

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


def _between(low: float, high: float, drawn: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=drawn).item()


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


def _whole(loss: Callable[[Weights], Tensor], factor: float) -> Objective:
    return lambda edited: factor * loss(edited.weights)
