"""Sums of what tensors hold, over all that lies on a channel."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune.graph.graph import ChannelGraph
from metaprune.graph.term import axes_of, places

__all__ = ["on_channels"]


def on_channels(
    entries: Iterable[tuple[str, Tensor]],
    graph: ChannelGraph,
    axes: Collection[str],
    where: Collection[tuple[str, int, str]] | None = None,
) -> Iterator[tuple[str, Float[Tensor, " size"]]]:
    """For each tensor, dimension and axis that the dimension holds, the sums of the entries on each channel.

    Args:
        entries: Names of the graph's tensors, each with something of the tensor's shape; one is held at a time.
        graph: The channel graph.
        axes: The names of those that are wanted.
        where: Which tensors, dimensions and axes count; by default all.
    """
    for name, tensor in entries:
        for dim, term in enumerate(graph.tensors[name]):
            held_here = {axis.name for axis in axes_of(term)} & set(axes)
            wanted = [axis for axis in held_here if where is None or (name, dim, axis) in where]
            if not wanted:
                continue
            per_position = tensor.movedim(dim, 0).reshape(tensor.shape[dim], -1).sum(1).cpu()
            for axis in wanted:
                held = places(term, axis)
                inside = held >= 0
                zeros = torch.zeros(graph.axes[axis].size, dtype=tensor.dtype, device="cpu")
                yield axis, zeros.index_add(0, held[inside], per_position[inside])
