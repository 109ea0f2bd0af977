"""How much each channel of an axis weighs, over all the tensors that hold it; and what data say of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.sums import on_channels
from metaprune.graph.tensors import in_double, named_tensors
from metaprune.graph.uses import Use
from metaprune.surgery.attention import written_out
from metaprune.train import randomness
from metaprune.train.processes import now
from metaprune.train.stepping import asker
from metaprune.train.task import Task, on

__all__ = ["BATCHES", "evidence_per_cost", "gate_gradients", "group_norms", "relative_norms"]

BATCHES = 32
"""How many batches of the training data are asked."""


def group_norms(model: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    """The root mean square, over the parameters that hold an axis, of each channel's relative l2 norm.

    Returns:
        For each free axis a float64 tensor of shape (size,).
    """
    return relative_norms(named_tensors(written_out(model, graph.written_out)), graph)


def relative_norms(tensors: Mapping[str, Tensor], graph: ChannelGraph) -> dict[str, Tensor]:
    """The same of parameters by name.

    For every parameter and dimension that holds the axis, the squared entries of a channel's slice are summed and
    divided by their mean over channels, so that each tensor counts alike whatever its scale; axes are comparable,
    since each has the mean square 1.

    Returns:
        For each free axis a float64 tensor of shape (size,).
    """
    sums = {name: torch.zeros(axis.size, dtype=torch.float64, device="cpu") for name, axis in graph.free.items()}
    counts = dict.fromkeys(sums, 0)
    squares = ((name, in_double(tensors[name]).square()) for name in graph.parameters)
    for axis, channel in on_channels(squares, graph, graph.free):
        if (mean := channel.mean()) > 0:
            sums[axis] += channel / mean
            counts[axis] += 1
    return {name: (total / max(counts[name], 1)).sqrt() for name, total in sums.items()}


def gate_gradients(
    model: nn.Module, graph: ChannelGraph, task: Task, most: int = BATCHES, seed: int = 0, *, held: bool = False
) -> dict[str, Float[Tensor, " batches size"]]:
    """How the loss of a batch would change to first order if a channel went: dL/dg of a gate g = 1 on it.

    The gate is where the channel is read, and multiplies the weights there, so that by the chain rule its gradient is
    the sum of w dL/dw over them, frozen ones too (Molchanov et al. 2019, https://arxiv.org/abs/1906.10771, for groups).
    What makes and carries the channel (rows, biases, norms, depthwise filters) says the same once more, and before a
    norm over several channels something else. Along axes that weights alone do not read (`ChannelGraph.unabsorbed`),
    such as that of queries and keys, it is half of what weights say that make or read them: each side says it once.
    Processes that prune together take turns with the batches, and each is told of all.

    Args:
        model: The network, on any device; asked in evaluation mode and left untouched.
        graph: From `mp.trace(model, …)`.
        task: Its training data and loss.
        most: Use at most this many batches.
        seed: Of their order.
        held: Whether the gate multiplies all that holds the channel, along every axis.

    Returns:
        For each free axis a float64 tensor on the CPU; no rows where the task gave no batches.
    """
    model = written_out(model, graph.written_out)
    modes = [(module, module.training) for module in model.modules()]
    tensors = named_tensors(model)
    leaves = {
        name: tensors[name].detach().requires_grad_() for name in graph.parameters if tensors[name].is_floating_point()
    }
    device = next((leaf.device for leaf in leaves.values()), None)
    found: dict[str, list[Tensor]] = {name: [] for name in graph.free}
    model.eval()
    asked, group, gates = asker(model, task), now(), _gates(graph, held)
    try:
        with randomness.isolated():
            randomness.seed(seed)
            for place, batch in enumerate(itertools.islice(iter(task.train), most)):
                if place % group.size != group.rank:
                    continue
                with torch.enable_grad():
                    loss = asked(leaves, on(device, batch))
                    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
                said = {
                    name: in_double(leaf * gradient)
                    for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
                    if gradient is not None
                }
                totals = {
                    name: torch.zeros(axis.size, dtype=torch.float64, device="cpu") for name, axis in graph.free.items()
                }
                for axis, channel in on_channels(said.items(), graph, graph.free, gates.places):
                    totals[axis] += channel / gates.sides[axis]
                for axis, total in totals.items():
                    found[axis].append(total)
    finally:
        for module, mode in modes:
            module.training = mode
    every = group.gathered(found)  # in the order of the batches
    found = {
        name: [row for turn in itertools.zip_longest(*(one[name] for one in every)) for row in turn if row is not None]
        for name in found
    }
    empty = {name: torch.zeros(0, axis.size, dtype=torch.float64, device="cpu") for name, axis in graph.free.items()}
    return {name: torch.stack(rows) if rows else empty[name] for name, rows in found.items()}


class _Gates(NamedTuple):
    """Where the gates of channels are.

    Attributes:
        places: Tensors, dimensions and axes; None: wherever a tensor holds an axis.
        sides: For each axis, how many times they multiply its channels.
    """

    places: frozenset[tuple[str, int, str]] | None
    sides: Mapping[str, int]


def _gates(graph: ChannelGraph, held: bool) -> _Gates:
    if held:
        return _Gates(None, dict.fromkeys(graph.free, 1))
    made, read = ({use.axis for use in graph.uses if use.role == role} for role in ("writes", "reads"))
    alone = read - graph.unabsorbed.keys()

    def counts(use: Use) -> bool:
        if use.role == "reads" or use.axis in alone:
            return use.role == "reads"
        return use.role == "writes" or use.axis not in made  # where it is only carried, by what carries it

    places = frozenset((use.tensor, use.dim, use.axis) for use in graph.uses if counts(use))
    return _Gates(places, {axis: 2 if axis in made - alone else 1 for axis in graph.free})


def evidence_per_cost(
    gradients: Mapping[str, Float[Tensor, " batches size"]], prices: Mapping[str, float], power: float = 1.0
) -> dict[str, Float[Tensor, " size"]]:
    """For each free axis the root of the mean square over batches of its gates' gradients, over their price^power.

    Args:
        gradients: From `gate_gradients`.
        prices: What one channel of each axis costs (`Allocation.prices`).
        power: 0 counts the evidence alone.

    Raises:
        MetapruneError: There is no evidence, since the training data gave no batches.
    """
    if not all(map(len, gradients.values())):
        raise MetapruneError("evidence: expected training data to ask, got a loader without batches")
    return {
        name: (rows.square().mean(0) / max(prices[name], 1e-30) ** power).sqrt() for name, rows in gradients.items()
    }
