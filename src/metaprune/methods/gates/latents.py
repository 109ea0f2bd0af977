"""One number per channel of an axis, and what that makes of a dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from metaprune.graph.errors import MetapruneError
from metaprune.graph.term import Term, axes_of, fold

__all__ = ["Latents", "along", "finite"]


def along(term: Term, vectors: Mapping[str, Tensor]) -> Tensor:
    """What vectors per axis make of a dimension: outer products over products, concatenations over concatenations.

    Args:
        term: The dimension.
        vectors: Axis name -> one number per channel.

    Returns:
        Shape (size of the term,); ones where an axis has no vector.
    """

    def product(factors: Sequence[Tensor]) -> Tensor:
        result = factors[0]
        for factor in factors[1:]:
            result = torch.outer(result, factor).flatten()
        return result

    device = next((vector.device for vector in vectors.values()), None)
    return fold(
        term,
        lambda axis: vectors[axis.name] if axis.name in vectors else torch.ones(axis.size, device=device),
        lambda factors: product(factors) if factors else torch.ones(1, device=device),
        lambda parts: torch.cat(list(parts)),
    )


def finite(who: str, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gates of each axis on the CPU, without a tape.

    Args:
        who: The method, for the error.
        vectors: Axis name -> one number per channel.

    Raises:
        MetapruneError: One is no number any more: neither dead nor alive.
    """
    found = {name: vector.detach().cpu() for name, vector in vectors.items()}
    if (lost := next((name for name, vector in found.items() if not vector.isfinite().all()), None)) is not None:
        raise MetapruneError(
            f"{who}: expected finite gates, got others for axis {lost}: a loss or a gradient was not finite; lower the "
            "learning rate, or, if the network's code divides weights by their own size, keep that axis whole (limits=)"
        )
    return found


class Latents(nn.Module):
    """One latent vector per free axis: a channel whose latent is zero is dead.

    Args:
        start: Axis name -> the latents to start from, shape (size,), none of them zero.
    """

    def __init__(self, start: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = tuple(start)
        self.vectors = nn.ParameterList([nn.Parameter(vector.float().clone()) for vector in start.values()])

    def named(self) -> dict[str, nn.Parameter]:
        """Axis name -> latent vector."""
        return dict(zip(self.names, self.vectors, strict=True))

    def touches(self, term: Term) -> bool:
        """Whether any axis of the term has a latent vector."""
        return any(axis.name in self.names for axis in axes_of(term))

    def of(self, term: Term) -> Tensor:
        """The latent of a tensor dimension; ones where an axis has no latent vector. Shape (size of the term,)."""
        return along(term, self.named())
