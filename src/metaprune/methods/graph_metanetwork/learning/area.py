"""How well a network can be pruned, as one number: the area under its metric over the share of MACs that stays.

Between the cut and the measurement there are a few steps of fine-tuning, always the same, since a network just cut says
little about what becomes of it. The test data are not touched: what is measured is measured on the validation data.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from metaprune.graph.errors import MetapruneError
from metaprune.graph.tensors import with_tensors
from metaprune.methods.graph_metanetwork.editor.metanetwork import Metanetwork
from metaprune.methods.graph_metanetwork.learning.goals.data_model import DataModel
from metaprune.methods.graph_metanetwork.reading.masks import living, masked
from metaprune.surgery.recalibrate import recalibrate
from metaprune.train import randomness
from metaprune.train.engine import evaluate
from metaprune.train.recipe import Recipe
from metaprune.train.stepping import asker
from metaprune.train.task import First, Task, on

__all__ = ["RATE", "SHARES", "STEPS", "area", "metrics", "tune"]

SHARES = (0.2, 0.3, 0.5, 0.7)
"""Shares of the MACs that are tried."""

STEPS, RATE = 24, 0.02
"""Steps of fine-tuning after a cut, and their learning rate."""

RECALIBRATE = 8
"""Batches that the statistics are measured on."""


def metrics(
    metanetwork: Metanetwork,
    data: DataModel,
    task: Task,
    recipe: Recipe,
    *,
    shares: Sequence[float] = SHARES,
    most: int = 40,
    steps: int = STEPS,
) -> list[float]:
    """The task's metric of the edited network, cut to each share of its MACs and tuned for some steps.

    What is cut is masked (`masks.masked`): where no statistic runs over channels, that is what a cut computes.

    Args:
        metanetwork: What edits.
        data: The network.
        task: Its validation data measure, its training data tune and recalibrate.
        recipe: Device, precision and seed.
        shares: Of the MACs.
        most: Measure with at most this many batches.
        steps: Of stochastic gradient descent (momentum 0.9, rate `RATE`) between the cut and the measurement.
    """
    part = replace(task, val=First(task.val, most))
    found = []
    for share in shares:
        with torch.no_grad():
            edited = metanetwork(data.aimed(share))
        alive = living(data.read, data.left(edited, share))
        hidden = {name: tensor.contiguous() for name, tensor in masked(data.read, edited.weights, alive).items()}
        model = with_tensors(data.model, hidden)
        tune(model, task, steps)
        recalibrate(model, task.train, task.inputs, RECALIBRATE)
        found.append(evaluate(model, part.val, part, recipe))
    return found


def tune(model: nn.Module, task: Task, steps: int) -> None:
    """A few steps, always the same, in place; what is zero on both sides of a channel stays zero."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, RATE, momentum=0.9)
    device = parameters[0].device
    model.train()
    asked = asker(model, task)
    with randomness.isolated():
        randomness.seed(0)
        passes = itertools.chain.from_iterable(itertools.repeat(task.train))
        for batch in itertools.islice(passes, steps if len(task.train) else 0):
            optimizer.zero_grad()
            asked({}, on(device, batch)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    model.eval()


def area(values: Sequence[float], shares: Sequence[float] = SHARES) -> float:
    """The mean of a metric over shares of the MACs, by trapezoids: int metric d share / (last - first)."""
    if len(values) != len(shares) or len(shares) < 2 or list(shares) != sorted(set(shares)):
        raise MetapruneError(f"area: expected two or more ascending shares and a value for each, got {list(shares)}")
    points = itertools.pairwise(zip(shares, values, strict=True))
    whole = sum((after - before) * (a + b) / 2 for (before, a), (after, b) in points)
    return whole / (shares[-1] - shares[0])
