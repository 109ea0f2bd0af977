"""How much each channel of an axis weighs, over all the tensors that hold it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metaprune.graph.graph import ChannelGraph
from metaprune.graph.tensors import named_tensors
from metaprune.graph.term import axes_of, places
from metaprune.surgery.attention import written_out

__all__ = ["group_norms"]


def group_norms(model: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    """The root mean square, over the parameters that hold an axis, of each channel's relative l2 norm.

    For every parameter and dimension that holds the axis, the squared entries of a channel's slice are summed and
    divided by their mean over channels, so that each tensor counts alike whatever its scale; axes are comparable,
    since each has the mean square 1.

    Returns:
        For each free axis a float64 tensor of shape (size,).
    """
    tensors = named_tensors(written_out(model, graph.written_out))
    sums = {name: torch.zeros(axis.size, dtype=torch.float64) for name, axis in graph.free.items()}
    counts = dict.fromkeys(sums, 0)
    for name in graph.parameters:
        squares = tensors[name].detach().double().cpu().square()
        for dim, term in enumerate(graph.tensors[name]):
            per_position = squares.movedim(dim, 0).reshape(squares.shape[dim], -1).sum(1)
            for axis in {axis.name for axis in axes_of(term)} & sums.keys():
                held = places(term, axis)
                inside = held >= 0
                channel = torch.zeros_like(sums[axis]).index_add(0, held[inside], per_position[inside])
                if (mean := channel.mean()) > 0:
                    sums[axis] += channel / mean
                    counts[axis] += 1
    return {name: (total / max(counts[name], 1)).sqrt() for name, total in sums.items()}
