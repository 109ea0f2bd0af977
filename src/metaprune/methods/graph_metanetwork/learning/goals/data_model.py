"""A network that a metanetwork learns from, with all that goals ask about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from metaprune.cost.budget import Allocation, Budget
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import clone, named_tensors
from metaprune.methods.graph_metanetwork.criterion import Criterion, ranking
from metaprune.methods.graph_metanetwork.editor.metanetwork import Edited
from metaprune.methods.graph_metanetwork.learning.lessons.lesson import Lesson, of_share, shares
from metaprune.methods.graph_metanetwork.learning.lessons.tries import Tries, tries_of
from metaprune.methods.graph_metanetwork.reading.evidence import informed
from metaprune.methods.graph_metanetwork.reading.network_graph import NetworkGraph, graph_of
from metaprune.methods.graph_metanetwork.reading.survey.left import left
from metaprune.methods.graph_metanetwork.reading.survey.survey import surveyed
from metaprune.methods.graph_metanetwork.widths import widened
from metaprune.methods.saliency import evidence_per_cost, gate_gradients, relative_norms
from metaprune.surgery.attention import written_out
from metaprune.train.task import Task

__all__ = ["DataModel"]


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
        asks_left: Whether a metanetwork is told what the criterion leaves of it.
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
    asks_left: bool = False

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
        held: bool = False,
    ) -> DataModel:
        """Ready to learn from; `model` is left untouched, and some training data of the task are asked about it.

        What a metanetwork is told of its axes beside (`Metanetwork.surveys`) is surveyed here; `held` is as it has it.

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
        said = gate_gradients(own, graph, task, held=held)
        allocation = Allocation(graph, Budget(macs=1.0, multiple_of=1))
        evidence = evidence_per_cost(said, allocation.prices({})) if len(task.train) else {}
        read = informed(read, said, relative_norms(named_tensors(own), graph))
        read = surveyed(read, own, graph, task, surveys, said)
        return cls(name, own, graph, read, allocation, evidence, task, tuple(lessons), criterion, "left" in surveys)

    def aimed(self, share: float) -> NetworkGraph:
        """What a metanetwork reads of it, where it is to be cut to a share of its MACs."""
        if not self.asks_left:
            return self.read.aimed(share)
        plan = self.asked_for(share).plan(self.heights) if self.can_be(share) else self.plan(self.heights, share)
        return self.read.aimed(share, left(self.allocation, plan, self.read.names))

    @cached_property
    def tries(self) -> dict[float, Tries]:
        """What was measured of it, for each share of its lessons."""
        heights, found = self.heights, {}
        for share in shares(self.lessons):
            allocation = self.asked_for(share)
            found[share] = tries_of(of_share(self.lessons, share), allocation, allocation.plan(heights))
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

    @cached_property
    def heights(self) -> dict[str, Tensor]:
        """For each free axis what its channels weigh in the ranking as it is, with no metanetwork."""
        return ranking(named_tensors(self.model), self.graph, self.read, self.criterion, None, self.evidence)

    def plan(self, ranked: dict[str, Tensor], share: float) -> Plan:
        """What a share of its MACs leaves; the smallest network where that cannot be met."""
        return self.allocation.plan(ranked, limit=max(share * self.allocation.dense, self.least))

    def left(self, edited: Edited, share: float) -> Plan:
        """What a share of its MACs leaves of it, once edited."""
        ranked = self.ranked(edited)
        if edited.tilts.any() and self.can_be(share):
            tilts = dict(zip(self.read.names, edited.tilts.tolist(), strict=True))
            ranked = widened(self.asked_for(share), ranked, tilts)
        return self.plan(ranked, share)

    def can_be(self, share: float) -> bool:
        """Whether it can be cut to a share of its MACs."""
        return share * self.allocation.dense > self.least

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
