"""The entries of a tensor that stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from metaprune.graph.term import Term, channels

__all__ = ["index"]


def index(tensor: Tensor, terms: Sequence[Term | None], kept: Mapping[str, Sequence[int]]) -> Tensor:
    """The entries of `tensor` that stay, in its layout in memory; itself where all of them do.

    Args:
        tensor: One dimension for each term.
        terms: What each dimension is made of; None for one that is not cut.
        kept: Axis -> the channels that stay, as in a plan.
    """
    given = tensor
    for dim, term in enumerate(terms):
        if term is not None and len(positions := channels(term, kept)) < tensor.shape[dim]:
            tensor = tensor.index_select(dim, positions.to(tensor.device))
    return tensor if tensor is given or given.is_contiguous() else _laid_out(tensor, given.stride())


def _laid_out(tensor: Tensor, stride: Sequence[int]) -> Tensor:
    """The tensor with its dimensions in memory in the order of the strides, such as channels last."""
    outermost = sorted(range(tensor.dim()), key=lambda dim: -stride[dim])
    places = [outermost.index(dim) for dim in range(tensor.dim())]
    return tensor.permute(outermost).contiguous().permute(places)
