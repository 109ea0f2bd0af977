"""Zeros instead of fewer channels: unstructured sparsity, and n of every m weights.

Source: the unstructured and N:M variants of Liu et al. 2025 (arXiv 2506.12041); N:M as in Mishra et al., Accelerating
Sparse Deep Neural Networks, 2021, arXiv 2104.08378. Nothing gets faster by itself: a zero costs what another number
costs, unless a library makes use of the pattern.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from metaprune.graph.errors import MetapruneError
from metaprune.graph.tensors import clone

__all__ = ["Sparse", "sparsify"]


@dataclass(frozen=True)
class Sparse:
    """A network with zeros, and what keeps them.

    Give `keep` to `mp.fit` as `after_step`: momentum and weight decay then leave the zeros as they are.

    Attributes:
        model: A copy of the network with zeros in it.
        masks: Name of a weight -> True where it stays; of the weight's shape.
        dense: Weights that were left as they are, each with the reason.
    """

    model: nn.Module
    masks: Mapping[str, Bool[Tensor, " ..."]]
    dense: Mapping[str, str] = field(default_factory=dict)

    @torch.no_grad()
    def keep(self, step: int = 0, steps: int = 0) -> None:
        """Put the zeros back where they were, whatever the step."""
        weights = dict(self.model.named_parameters())
        for name, mask in self.masks.items():
            weights[name].masked_fill_(~mask.to(weights[name].device), 0)

    @property
    def sparsity(self) -> float:
        """Share of the entries of the masked weights that is zero by the masks."""
        total = sum(mask.numel() for mask in self.masks.values())
        return 1 - sum(int(mask.sum()) for mask in self.masks.values()) / max(total, 1)


def sparsify(model: nn.Module, sparsity: float | None = None, *, n: int | None = None, m: int | None = None) -> Sparse:
    """Set the smallest weights of linear layers and convolutions to zero, by magnitude.

    Either a share of all of them together (`sparsity=0.8`), or all but the n largest of every m neighbours along the
    input dimension (`n=2, m=4`). Biases, norms and embeddings stay.

    Args:
        model: Any network; left untouched.
        sparsity: The share that becomes zero, in [0, 1); `round(sparsity * number)` of them.
        n: How many stay.
        m: Of how many. Layers whose inputs are no multiple of it stay dense, and are named.

    Raises:
        MetapruneError: Neither or both are given, or there is nothing to set to zero.
    """
    if (sparsity is None) == (n is None) or (n is None) != (m is None):
        raise MetapruneError(f"sparsify: expected sparsity, or n and m, got sparsity={sparsity!r}, n={n!r}, m={m!r}")
    if sparsity is not None and not 0 <= sparsity < 1:
        raise MetapruneError(f"sparsify: expected sparsity in [0, 1), got {sparsity!r}; 0.8 sets four fifths to zero")
    if n is not None and m is not None and not 0 < n < m:
        raise MetapruneError(f"sparsify: expected 0 < n < m, got n={n!r}, m={m!r}; 2 and 4 are usual")
    copy = clone(model)
    layers = _layers(copy)
    if not layers:
        raise MetapruneError(
            f"sparsify: expected a {type(model).__name__} with linear layers or convolutions, got none"
        )
    dense: dict[str, str] = {}
    if sparsity is not None:
        masks = _largest({name: layer.weight for name, layer in layers.items()}, sparsity)
    else:
        assert n is not None
        assert m is not None
        masks = {}
        for name, layer in layers.items():
            blocks = _along_inputs(layer, layer.weight.detach())
            if blocks.shape[-1] % m:
                dense[name] = f"it has {blocks.shape[-1]} inputs, no multiple of {m}"
            else:
                masks[name] = _n_of_m(layer, n, m)
        if not masks:
            raise MetapruneError(f"sparsify: expected layers with inputs in multiples of {m}, got none; see {dense}")
    sparse = Sparse(copy, masks, dense)
    sparse.keep()
    return sparse


Layer = nn.Linear | _ConvNd


def _layers(model: nn.Module) -> dict[str, Layer]:
    """Name of a weight -> the layer that holds it; tied ones once."""
    parameters = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        parameters.pop(id(module.weight)): module
        for module in model.modules()
        if isinstance(module, nn.Linear | _ConvNd) and id(module.weight) in parameters
    }


def _largest(weights: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """All but the smallest of all together; of equals, the first ones go."""
    sizes = torch.cat([weight.detach().abs().flatten().float().cpu() for weight in weights.values()])
    stays = torch.ones(len(sizes), dtype=torch.bool)
    stays[sizes.argsort(stable=True)[: round(sparsity * len(sizes))]] = False
    parts = torch.split(stays, [weight.numel() for weight in weights.values()])
    return {name: part.view_as(weights[name]) for name, part in zip(weights, parts, strict=True)}


def _along_inputs(layer: Layer, weight: Tensor) -> Tensor:
    """A view of a weight whose last dimension is the inputs of a group."""
    if isinstance(layer, _ConvTransposeNd):
        return weight.view(layer.groups, -1, *weight.shape[1:]).movedim(1, -1)
    return weight.movedim(1, -1)


def _n_of_m(layer: Layer, n: int, m: int) -> Tensor:
    """True for the n largest of every m neighbours; of equals, the first ones."""
    sizes = _along_inputs(layer, layer.weight.detach().abs())
    blocks = (*sizes.shape[:-1], -1, m)
    order = sizes.view(blocks).argsort(dim=-1, descending=True, stable=True)[..., :n]
    mask = torch.zeros(layer.weight.shape, dtype=torch.bool, device=layer.weight.device)
    _along_inputs(layer, mask).view(blocks).scatter_(-1, order, True)
    return mask
