"""How well a network can be pruned, as one number: the area under its metric over the share of MACs that stays.

No fine-tuning between, and the test data are not touched: what is measured is measured on the validation data.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from metaprune.graph.errors import MetapruneError
from metaprune.graph.tensors import with_tensors
from metaprune.methods.graph_metanetwork.criterion import Criterion, ranking
from metaprune.methods.graph_metanetwork.goal import DataModel
from metaprune.methods.graph_metanetwork.metanetwork import Metanetwork
from metaprune.methods.graph_metanetwork.objective import living, masked
from metaprune.surgery.recalibrate import recalibrate
from metaprune.train.engine import Recipe, evaluate
from metaprune.train.task import Batch, Loader, Task

__all__ = ["SHARES", "area", "metrics"]

SHARES = (0.3, 0.5, 0.7, 0.9)
"""Shares of the MACs that are tried."""


@torch.no_grad()
def metrics(
    metanetwork: Metanetwork,
    data: DataModel,
    task: Task,
    recipe: Recipe,
    *,
    shares: Sequence[float] = SHARES,
    criterion: Criterion = "magnitude",
    most: int = 8,
) -> list[float]:
    """The task's metric of the edited network, cut to each share of its MACs, its statistics measured anew.

    What is cut is masked (`objective.masked`): where no statistic runs over channels, that is what a cut computes.

    Args:
        metanetwork: What edits.
        data: The network.
        task: Its validation data measure, its training data recalibrate.
        recipe: Device, precision and seed.
        shares: Of the MACs.
        criterion: By what channels are ranked.
        most: Use at most this many batches, of each.
    """
    weights = {name: tensor.contiguous() for name, tensor in metanetwork(data.read).items()}
    ranked = ranking(with_tensors(data.model, weights), data.graph, criterion)
    part = replace(task, val=_First(task.val, most))
    found = []
    for share in shares:
        alive = living(data.read, data.plan(ranked, share))
        hidden = {name: tensor.contiguous() for name, tensor in masked(data.read, weights, alive).items()}
        model = with_tensors(data.model, hidden)
        recalibrate(model, task.train, task.inputs, most)
        found.append(evaluate(model, part.val, part, recipe))
    return found


def area(values: Sequence[float], shares: Sequence[float] = SHARES) -> float:
    """The mean of a metric over shares of the MACs, by trapezoids: int metric d share / (last - first)."""
    if len(values) != len(shares) or len(shares) < 2 or list(shares) != sorted(set(shares)):
        raise MetapruneError(f"area: expected two or more ascending shares and a value for each, got {list(shares)}")
    points = itertools.pairwise(zip(shares, values, strict=True))
    whole = sum((after - before) * (a + b) / 2 for (before, a), (after, b) in points)
    return whole / (shares[-1] - shares[0])


@dataclass(frozen=True)
class _First:
    """The first batches of a loader."""

    loader: Loader
    most: int

    def __iter__(self) -> Iterator[Batch]:
        return itertools.islice(iter(self.loader), self.most)

    def __len__(self) -> int:
        return min(self.most, len(self.loader))
