"""What two channels of an axis are compared by: the rows that make them, as a norm behind shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metaprune.graph.graph import ChannelGraph
from metaprune.graph.tensors import in_double, named_tensors, plain_tensors
from metaprune.graph.term import axes_of, leaves
from metaprune.surgery.attention import written_out
from metaprune.surgery.fuse import Norm, norms

__all__ = ["features"]


def features(
    model: nn.Module, graph: ChannelGraph, of: Literal["producers", "both"]
) -> dict[str, Float[Tensor, " size features"]]:
    """For each free axis the features of its channels, float64, on the CPU.

    The rows of everything that writes the axis, and of filters that carry it, one after the other. Behind a batch
    norm a channel is g w·x + b with g = weight / √variance, and its mean over the data is the norm's bias. Rows are
    taken times g there, scaled as a whole so that their root mean square is that of the norm's weights (what comes out
    then has that spread), and the norm's bias is a feature more. Where nothing writes an axis, as where learned numbers
    are multiplied with what is the same for all, those numbers are the features, beside a 1.

    Args:
        model: The network that `graph` was traced from.
        graph: From `mp.trace`.
        of: "producers", or "both": the columns of what reads the axis, too.
    """
    model = written_out(model, graph.written_out)
    tensors = plain_tensors(model, graph.tables) | named_tensors(model)
    terms = {**graph.tables, **graph.tensors}
    multiplied = {use for operator in graph.every_operator if operator.macs for use in operator.uses}
    behind = norms(model, graph)
    hidden = {name for norm in behind for name, _ in norm.rows if tensors[name].ndim == 1}
    seen = {
        name: _behind(in_double(tensors[name]), dim, norm, tensors)
        for norm in behind
        for name, dim in norm.rows
        if name not in hidden
    }
    blocks: dict[str, list[Tensor]] = {name: [] for name in graph.free}
    made: set[str] = set()

    def add(name: str, dim: int, axis: str, value: Tensor) -> None:
        for positions in leaves(terms[name][dim], axis):
            entries = value.cpu().movedim(dim, 0)[positions.flatten()]
            blocks[axis].append(entries.reshape(len(positions), -1))

    for use in graph.uses:
        is_filter = use.role == "carries" and (use in multiplied or tensors[use.tensor].ndim > 1)
        is_row = use.role == "writes" or is_filter
        asked = (is_row and use.tensor not in hidden) or (use.role == "reads" and of == "both")
        if use.axis in blocks and asked and tensors[use.tensor].is_floating_point():
            made |= {use.axis} if is_row else set()
            add(use.tensor, use.dim, use.axis, seen.get(use.tensor, in_double(tensors[use.tensor])))
    for name in (norm.bias for norm in behind if norm.bias is not None):
        for axis in blocks.keys() & {axis.name for axis in axes_of(terms[name][0])}:
            add(name, 0, axis, in_double(tensors[name]))
    for use in graph.uses:
        if use.axis in blocks and use.role == "carries" and use.axis not in made:
            add(use.tensor, use.dim, use.axis, in_double(tensors[use.tensor]))
    for name, found in blocks.items():
        if name not in made:
            found.append(torch.ones(graph.axes[name].size, 1, dtype=torch.float64))
    return {name: torch.cat(found, 1) for name, found in blocks.items()}


def _behind(rows: Tensor, dim: int, norm: Norm, tensors: Mapping[str, Tensor]) -> Tensor:
    """Rows times the norm's scale, with the root mean square of its weights (1 where it has none)."""
    scaled = rows * norm.scale(tensors).to(rows).reshape(-1, *[1] * (rows.ndim - 1 - dim))
    spread = 1.0 if norm.weight is None else float(in_double(tensors[norm.weight]).square().mean().sqrt())
    size = float(scaled.square().sum() / scaled.shape[dim]) ** 0.5
    return scaled * (spread / size if size > 0 else 1.0)
