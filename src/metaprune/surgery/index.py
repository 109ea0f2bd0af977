"""The entries of a tensor that stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from metaprune.graph.term import Term, channels

__all__ = ["index"]


def index(tensor: Tensor, terms: Sequence[Term | None], kept: Mapping[str, Sequence[int]]) -> Tensor:
    """The entries of `tensor` that stay; itself where all of them do.

    Args:
        tensor: One dimension for each term.
        terms: What each dimension is made of; None for one that is not cut.
        kept: Axis -> the channels that stay, as in a plan.
    """
    for dim, term in enumerate(terms):
        if term is not None and len(positions := channels(term, kept)) < tensor.shape[dim]:
            tensor = tensor.index_select(dim, positions.to(tensor.device))
    return tensor
