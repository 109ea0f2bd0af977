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
from metaprune.methods.method import Found, Problem
from metaprune.methods.saliency import group_norms

__all__ = ["Magnitude", "Random", "Uniform"]


@dataclass(frozen=True)
class Magnitude:
    """Channels with the smallest group l2 norm go, over all axes together."""

    name: ClassVar[str] = "magnitude"
    reference: ClassVar[str] = "Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017 (group l2 norm)"

    def find(self, problem: Problem) -> Found:
        """Rank by group norm and fit the budget."""
        scores = group_norms(problem.model, problem.graph)
        return Found(Allocation(problem.graph, problem.budget).plan(scores), problem.model, scores)


@dataclass(frozen=True)
class Uniform:
    """The same share of every axis stays: the channels with the largest group norm. A control."""

    name: ClassVar[str] = "uniform"
    reference: ClassVar[str] = "control: the same share of every axis"

    def find(self, problem: Problem) -> Found:
        """Rank inside each axis; ranks are comparable between axes."""
        norms = group_norms(problem.model, problem.graph)
        scores = {name: _ranks(norm) for name, norm in norms.items()}
        return Found(Allocation(problem.graph, problem.budget).plan(scores), problem.model, scores)


@dataclass(frozen=True)
class Random:
    """Channels drawn at random, over all axes together. A control.

    Attributes:
        seed: Of the draw.
    """

    seed: int = 0

    name: ClassVar[str] = "random"
    reference: ClassVar[str] = "control: random channels"

    def find(self, problem: Problem) -> Found:
        """Draw a score for every channel."""
        generator = torch.Generator().manual_seed(self.seed)
        scores = {name: torch.rand(axis.size, generator=generator) for name, axis in problem.graph.free.items()}
        return Found(Allocation(problem.graph, problem.budget).plan(scores), problem.model, scores)


def _ranks(scores: Tensor) -> Tensor:
    """Each channel's rank among its axis, in (0, 1]."""
    ranks = torch.empty_like(scores)
    ranks[torch.argsort(scores, stable=True)] = torch.arange(1, len(scores) + 1, dtype=scores.dtype)
    return ranks / len(scores)
