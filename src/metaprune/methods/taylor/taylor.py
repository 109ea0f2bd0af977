"""One shot by evidence: rank channels by how much the loss would change without them.

Source: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019. Departures: a gate where a
channel is read takes the place of one behind a norm, and evidence is counted per unit of cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from metaprune.cost.budget import Allocation
from metaprune.graph.arguments import check_switch, is_number, is_whole
from metaprune.graph.errors import MetapruneError
from metaprune.methods.method import Found, Problem
from metaprune.methods.saliency import BATCHES, evidence_per_cost, gate_gradients

__all__ = ["Taylor"]


@dataclass(frozen=True)
class Taylor:
    """Channels go whose gates have the smallest gradients, over all axes together.

    Attributes:
        batches: How many batches of the training data are asked.
        cost_power: Evidence, the mean square of the gradient, is divided by the cost of a channel to this power.
        held: Whether the gate of a channel multiplies all the parameters that hold it, in place of those that read it.
    """

    batches: int = BATCHES
    cost_power: float = 1.0
    held: bool = False

    name: ClassVar[str] = "Taylor"
    asks_data: ClassVar[bool] = True
    reference: ClassVar[str] = "Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019"

    def __post_init__(self) -> None:
        if not (is_whole(self.batches) and self.batches >= 1):
            raise MetapruneError(f"Taylor: expected batches from 1, got {self.batches!r}")
        if not (is_number(self.cost_power) and 0 <= self.cost_power < float("inf")):
            raise MetapruneError(f"Taylor: expected cost_power from 0, got {self.cost_power!r}")
        check_switch("Taylor", "held", self.held)

    def scores(self, problem: Problem) -> dict[str, Tensor]:
        """What the training data say of each channel, per unit of cost."""
        seed = problem.recipe.seed
        said = gate_gradients(problem.model, problem.graph, problem.task, self.batches, seed, held=self.held)
        return evidence_per_cost(said, Allocation(problem.graph, problem.budget).prices({}), self.cost_power)

    def find(self, problem: Problem) -> Found:
        """Ask the training data, rank, and fit the budget."""
        scores = self.scores(problem)
        return Found(Allocation(problem.graph, problem.budget).plan(scores), problem.model, scores)
