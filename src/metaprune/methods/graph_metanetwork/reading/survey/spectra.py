"""How much the channels of an axis say the same as one another: effective ranks of what lies on them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune.graph.graph import ChannelGraph
from metaprune.graph.term import axes_of, places

__all__ = ["SPECTRA", "effective_rank", "spectra"]

SPECTRA = 3

MOST = 512
"""Channels that are looked at."""


def effective_rank(rows: Float[Tensor, " channels entries"]) -> float:
    """exp of the entropy of the squared singular values' shares, over the largest that it can be (Roy, Vetterli 2007).

    1 where all directions count alike, near to 0 where one does; of rows without any, 1.
    """
    most = min(rows.shape)
    if most < 2:
        return 1.0
    rows = rows[:MOST].double()
    gram = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
    energies = torch.linalg.eigvalsh(gram).clamp(min=0)
    if float(energies.sum()) <= 0:
        return 1.0
    shares = energies / energies.sum()
    entropy = -(shares * shares.clamp(min=1e-30).log()).sum()
    return float(entropy.exp()) / min(rows.shape)


def spectra(
    graph: ChannelGraph, tensors: Mapping[str, Tensor], gradients: Mapping[str, Float[Tensor, " batches size"]]
) -> dict[str, list[float]]:
    """For each free axis: the mean and the least effective rank of the weights that hold it, and that of its gates.

    Gates' gradients differ from batch to batch as what flows through the channels does, so that channels which do the
    same have the same ones.

    Args:
        graph: The channel graph.
        tensors: The network's, by name.
        gradients: From `saliency.gate_gradients`.
    """
    found: dict[str, list[float]] = {name: [] for name in graph.free}
    for name in graph.parameters:
        tensor = tensors[name].detach()
        if tensor.dim() < 2 or not tensor.is_floating_point():
            continue
        for dim, term in enumerate(graph.tensors[name]):
            for axis in {axis.name for axis in axes_of(term)} & found.keys():
                held = places(term, axis)
                order = torch.argsort(held, stable=True)[int((held < 0).sum()) :].to(tensor.device)
                rows = tensor.movedim(dim, 0)[order].reshape(graph.axes[axis].size, -1)
                if min(rows.shape) > 1:
                    found[axis].append(effective_rank(rows))
    return {
        name: [
            sum(ranks) / len(ranks) if ranks else 1.0,
            min(ranks, default=1.0),
            effective_rank(gradients[name].T) if len(gradients.get(name, ())) else 1.0,
        ]
        for name, ranks in found.items()
    }
