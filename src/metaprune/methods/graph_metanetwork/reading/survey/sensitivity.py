"""How much the loss rises where some of an axis is left out, on one batch."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import named_tensors
from metaprune.methods.graph_metanetwork.reading.masks import living, masked
from metaprune.methods.graph_metanetwork.reading.network_graph import NetworkGraph
from metaprune.train import randomness
from metaprune.train.stepping import asker
from metaprune.train.task import Task, on

__all__ = ["GONE", "SENSITIVITY", "sensitivity"]

GONE = (0.1, 0.5)
"""Shares of an axis that are left out, by zeros in the weights that lie on its channels."""

SENSITIVITY = 2 * len(GONE)

LEAST = 1e-4
"""A rise below this share of the mean is none."""


@torch.no_grad()
def sensitivity(
    model: nn.Module, graph: ChannelGraph, read: NetworkGraph, task: Task, order: Mapping[str, Tensor]
) -> dict[str, list[float]]:
    """For each free axis and each of `GONE`: the rise of the loss, as a logarithm relative to the mean over axes.

    And as a share of the loss, between -1 and 1. Zeros where there is no training data. The network is asked in
    evaluation mode.

    Args:
        model: The network, written out where its graph is; left untouched.
        graph: Its channel graph.
        read: What the metanetwork reads of it.
        task: Its training data give the batch.
        order: For each free axis, what its channels weigh; those that weigh least go.
    """
    free = {name: graph.axes[name] for name in read.free}
    found: dict[str, list[float]] = {name: [] for name in free}
    tensors = named_tensors(model)
    weights = {block.name: tensors[block.name].detach() for block in read.learned}
    modes = [(module, module.training) for module in model.modules()]
    device = next(iter(tensors.values())).device
    with randomness.isolated():
        randomness.seed(0)
        batch = next(iter(task.train), None)
    if batch is None:
        return {name: [0.0] * SENSITIVITY for name in found}
    model.eval()
    try:
        asked, batch = asker(model, task), on(device, batch)
        whole = float(asked(weights, batch))
        for share in GONE:
            rises = {}
            for name, axis in free.items():
                gone = min(max(1, round(share * axis.size)), axis.size - 1)
                stays = sorted(order[name].argsort(stable=True)[gone:].tolist())
                left = masked(read, weights, living(read, Plan({name: stays})))
                rises[name] = float(asked(left, batch)) - whole if gone else 0.0
            finite = [abs(rise) for rise in rises.values() if math.isfinite(rise)]
            mean = sum(finite) / max(len(finite), 1) or 1.0
            for name, rise in rises.items():
                rise = rise if math.isfinite(rise) else 10 * mean
                high = math.log10(max(rise / mean, LEAST)) / 2
                found[name] += [high, max(-1.0, min(1.0, rise / max(abs(whole), 1e-6)))]
    finally:
        for module, mode in modes:
            module.training = mode
    return found
