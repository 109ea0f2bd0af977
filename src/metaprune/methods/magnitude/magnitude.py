"""One shot: rank channels once, cut, fine-tune.

Source: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017; group norms over coupled channels as in Fang et
al., DepGraph, CVPR 2023. Departures: the group norm is relative per tensor (`saliency.group_norms`), and channels leave
in blocks that hardware likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metaprune.cost.budget import Allocation
from metaprune.graph.arguments import check_switch
from metaprune.methods.method import Found, Problem
from metaprune.methods.saliency import group_norms

__all__ = ["Magnitude", "Random", "Uniform"]


UNSPENT = 0.005
"""What a plan leaves of its budget is said from this share of the dense cost on."""


@dataclass(frozen=True)
class Magnitude:
    """Channels with the smallest group l2 norm go, over all axes together."""

    name: ClassVar[str] = "magnitude"
    reference: ClassVar[str] = "Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017 (group l2 norm)"
    asks_data: ClassVar[bool] = False

    def scores(self, problem: Problem) -> dict[str, Tensor]:
        """Group norms."""
        return group_norms(problem.model, problem.graph)

    def find(self, problem: Problem) -> Found:
        """Rank by group norm and fit the budget."""
        scores = self.scores(problem)
        return Found(Allocation(problem.graph, problem.budget).plan(scores), problem.model, scores)


@dataclass(frozen=True)
class Uniform:
    """The same share of every axis stays, to half a step of its width: the channels with the largest group norm.

    A control. What the steps leave of the budget stays unspent, and is said.

    Attributes:
        spend: Whether axes may be a step wider, to use more of it up.
    """

    spend: bool = False

    name: ClassVar[str] = "uniform"
    reference: ClassVar[str] = "control: the same share of every axis"
    asks_data: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_switch("Uniform", "spend", self.spend)

    def scores(self, problem: Problem) -> dict[str, Tensor]:
        """Ranks inside each axis, which are comparable between axes."""
        return {name: _ranks(norm) for name, norm in group_norms(problem.model, problem.graph).items()}

    def find(self, problem: Problem) -> Found:
        """Rank inside each axis, and take the largest share that fits the budget."""
        scores = self.scores(problem)
        allocation = Allocation(problem.graph, problem.budget)
        plan = allocation.proportional(scores, spend=self.spend)
        left, steps = allocation.left_unspent(plan), "a step and a half" if self.spend else "half a step"
        said = f"widths are uniform to {steps} each, which leaves {left:.2%} of the dense cost unspent"
        return Found(plan, problem.model, scores, notes=(said,) if plan.kept and left > UNSPENT else ())


@dataclass(frozen=True)
class Random:
    """Channels drawn at random, over all axes together. A control.

    Attributes:
        seed: Of the draw.
    """

    seed: int = 0

    name: ClassVar[str] = "random"
    reference: ClassVar[str] = "control: random channels"
    asks_data: ClassVar[bool] = False

    def scores(self, problem: Problem) -> dict[str, Tensor]:
        """A score drawn for every channel."""
        generator = torch.Generator("cpu").manual_seed(self.seed)
        free = problem.graph.free
        return {name: torch.rand(axis.size, generator=generator, device="cpu") for name, axis in free.items()}

    def find(self, problem: Problem) -> Found:
        """Draw, and fit the budget."""
        scores = self.scores(problem)
        return Found(Allocation(problem.graph, problem.budget).plan(scores), problem.model, scores)


def _ranks(scores: Tensor) -> Tensor:
    """Each channel's rank among its axis, in (0, 1]."""
    ranks = torch.empty_like(scores)
    ranks[torch.argsort(scores, stable=True)] = torch.arange(
        1, len(scores) + 1, dtype=scores.dtype, device=scores.device
    )
    return ranks / len(scores)
