"""The paper's hypernetwork, and the gate that computes the same.

Notation: v, the latent of a tensor dimension; W, a generated parameter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["HyperNetwork", "collapse"]


class HyperNetwork(nn.Module):
    """The paper's hypernetwork of one weight: W = <w2, Z w1 + b1> + b2 with Z = v_out v_in^T + b0 (DHP, section 3).

    Every location (out, in) has its own m-dimensional embedding; the network is affine in Z, so it spans the same
    functions as the gate (`collapse`).

    Args:
        shape: Of the weight, (out, in, *kernel).
        embedding: m, the dimension of the embedding.
        offsets: Whether to have the paper's biases b0, b1, b2. With them a dead channel still speaks, and the cut is
            not exact.
    """

    def __init__(self, shape: Sequence[int], embedding: int = 8, offsets: bool = False) -> None:
        super().__init__()
        rows, columns, *kernel = shape
        self.shape = tuple(shape)
        taps = math.prod(kernel)
        self.weight1 = nn.Parameter(torch.empty(rows, columns, embedding).uniform_(-(3**0.5), 3**0.5))
        bound = (3 / (embedding * columns * taps)) ** 0.5
        self.weight2 = nn.Parameter(torch.empty(rows, columns, taps, embedding).uniform_(-bound, bound))
        self.offsets = nn.ParameterList(
            [
                torch.zeros(rows, columns),
                torch.zeros(rows, columns, embedding),
                torch.zeros(rows, columns, taps),
            ]
            if offsets
            else []
        )

    def forward(self, v_out: Tensor, v_in: Tensor) -> Tensor:
        """Generate the weight from the latents of its two channel dimensions, shapes (out,) and (in,)."""
        latent = torch.outer(v_out, v_in)
        if self.offsets:
            latent = latent + self.offsets[0]
        embedded = latent[..., None] * self.weight1
        if self.offsets:
            embedded = embedded + self.offsets[1]
        explicit = torch.einsum("oikm,oim->oik", self.weight2, embedded)
        if self.offsets:
            explicit = explicit + self.offsets[2]
        return explicit.reshape(self.shape)

    @torch.no_grad()
    def reproduce(self, weight: Tensor, v_out: Tensor, v_in: Tensor) -> None:
        """Set w2 such that the given latents generate `weight`, with the least norm: w2 = W w1^T / (Z |w1|^2)."""
        target = weight.reshape(*self.weight1.shape[:2], -1, 1)
        latent = torch.outer(v_out, v_in)[..., None, None]
        direction = self.weight1[:, :, None, :]
        self.weight2.copy_(target * direction / (latent * direction.square().sum(-1, keepdim=True)))


def collapse(hypernetwork: HyperNetwork) -> tuple[Tensor, Tensor]:
    """The gate that computes the same: W = v_out v_in^T * A + C, elementwise.

    Returns:
        A and C, both of the weight's shape.
    """
    w1, w2 = hypernetwork.weight1, hypernetwork.weight2
    free = torch.einsum("oikm,oim->oik", w2, w1)
    fixed = torch.zeros_like(free)
    if hypernetwork.offsets:
        b0, b1, b2 = hypernetwork.offsets
        fixed = torch.einsum("oikm,oim->oik", w2, b0[..., None] * w1 + b1) + b2
    return free.reshape(hypernetwork.shape), fixed.reshape(hypernetwork.shape)
