"""Zeros instead of fewer channels: unstructured sparsity, and n of every m weights.

Source: the unstructured and N:M variants of Liu et al. 2025 (arXiv 2506.12041); N:M as in Mishra et al., Accelerating
Sparse Deep Neural Networks, 2021, arXiv 2104.08378. Nothing gets faster by itself: a zero costs what another number
costs, unless a library makes use of the pattern.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from metaprune.graph.arguments import is_number, is_whole, wanted
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.rehearsal import on_the_cpu
from metaprune.graph.tensors import clone
from metaprune.zeros.contractions import Weight, contractions

__all__ = ["Sparse", "named_like", "sparsify"]


@dataclass(frozen=True)
class Sparse:
    """A network with zeros, and what keeps them.

    Give it to `mp.fit` (`during=[sparse]`): momentum and weight decay then leave the zeros as they are.

    Attributes:
        model: A copy of the network with zeros in it.
        masks: Name of a weight -> True where it stays; of the weight's shape.
        dense: Weights (of two dimensions or more) that were left as they are, each with the reason.
    """

    model: nn.Module
    masks: Mapping[str, Bool[Tensor, " ..."]]
    dense: Mapping[str, str] = field(default_factory=dict)

    @torch.no_grad()
    def keep(self) -> None:
        """Put the zeros back where they were."""
        weights = dict(self.model.named_parameters())
        for name, mask in self.masks.items():
            weights[name].masked_fill_(~mask.to(weights[name].device), 0)

    def after_step(self, step: int, steps: int) -> None:
        """After a step of the optimizer, the zeros are where they were."""
        self.keep()

    def state_dict(self) -> dict[str, Tensor]:
        """The masks."""
        return dict(self.masks)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put the zeros of such masks back, which must be these.

        Raises:
            MetapruneError: they are others.
        """
        if state.keys() != self.masks.keys() or not all(torch.equal(self.masks[n].cpu(), state[n]) for n in state):
            raise MetapruneError("sparsify: expected a state with these masks, got others; is it of another run?")
        self.keep()

    @property
    def sparsity(self) -> float:
        """Share of the entries of the masked weights that is zero by the masks."""
        total = sum(mask.numel() for mask in self.masks.values())
        return 1 - sum(int(mask.sum()) for mask in self.masks.values()) / max(total, 1)


@on_the_cpu()
def sparsify(
    model: nn.Module,
    sparsity: float | None = None,
    *,
    n: int | None = None,
    m: int | None = None,
    skip: Sequence[str] = (),
    graph: ChannelGraph | None = None,
) -> Sparse:
    """Set the smallest weights of whatever multiplies its inputs to zero, by magnitude.

    Either a share of all of them together (`sparsity=0.8`), or all but the n largest of every m neighbours along the
    input dimension (`n=2, m=4`). Linear layers, convolutions, recurrent layers and PyTorch's attention are known by
    themselves; weights of other modules are when a graph says how they are used. Biases, norms and embeddings stay.

    Args:
        model: Any network; left untouched.
        sparsity: The share that becomes zero, in [0, 1); `round(sparsity * number)` of them.
        n: How many stay.
        m: Of how many. Weights whose inputs are no multiple of it stay dense, and are named.
        skip: Patterns (as `head.*` or `layers.*.attention`) of the names of modules or weights that stay dense.
        graph: From `mp.trace(model, …)`: it knows the weights of contractions in modules of any kind.

    Raises:
        MetapruneError: Neither or both are given, a pattern fits nothing, or there is nothing to set to zero.
        PlanError: The graph is of another network.
    """
    wanted("sparsify", "network", model, nn.Module, "an nn.Module", MetapruneError)
    if (sparsity is None) == (n is None) or (n is None) != (m is None):
        raise MetapruneError(f"sparsify: expected sparsity, or n and m, got sparsity={sparsity!r}, n={n!r}, m={m!r}")
    if sparsity is not None and not (is_number(sparsity) and 0 <= sparsity < 1):
        raise MetapruneError(f"sparsify: expected sparsity in [0, 1), got {sparsity!r}; 0.8 sets four fifths to zero")
    if n is not None and m is not None and not (is_whole(n) and is_whole(m) and 0 < n < m):
        raise MetapruneError(f"sparsify: expected 0 < n < m, got n={n!r}, m={m!r}; 2 and 4 are usual")
    if isinstance(skip, str):
        raise MetapruneError(f"sparsify: expected skip as a list of patterns, got {skip!r}; write [{skip!r}]")
    copy = clone(model)
    found, dense = contractions(copy, graph)
    skipped = named_like("sparsify", [*found, *dense], skip)
    dense |= {name: f"skipped, as {pattern!r} says" for name, pattern in skipped.items()}
    found = {name: weight for name, weight in found.items() if name not in skipped}
    if not found:
        raise MetapruneError(
            f"sparsify: expected a {type(model).__name__} with linear layers or convolutions, got none"
            + (f"; left dense: {dense}" if dense else "")
        )
    if sparsity is not None:
        masks = _largest({name: weight.tensor for name, weight in found.items()}, sparsity)
    else:
        assert n is not None
        assert m is not None
        masks = {}
        for name, weight in found.items():
            inputs = weight.along_inputs(weight.tensor.detach()).shape[-1]
            if inputs % m:
                dense[name] = f"it has {inputs} inputs, no multiple of {m}"
            else:
                masks[name] = _n_of_m(weight, n, m)
        if not masks:
            raise MetapruneError(f"sparsify: expected layers with inputs in multiples of {m}, got none; see {dense}")
    sparse = Sparse(copy, masks, dense)
    sparse.keep()
    return sparse


def named_like(who: str, names: Sequence[str], patterns: Sequence[str]) -> dict[str, str]:
    """The weights that patterns fit, each with the last that does.

    Raises:
        MetapruneError: A pattern fits none.
    """
    fitting: dict[str, str] = {}
    for pattern in patterns:
        like = [name for name in names if _fits(name, pattern)]
        if not like:
            raise MetapruneError(f"{who}: {pattern!r} in skip fits no weight; names are as {next(iter(names), '')!r}")
        fitting |= dict.fromkeys(like, pattern)
    return fitting


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern fits a weight, or a module that it lies in."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:count]), pattern) for count in range(1, len(parts) + 1))


def _largest(weights: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """All but the smallest of all together; of equals, the first ones go."""
    sizes = torch.cat([weight.detach().abs().flatten().float().cpu() for weight in weights.values()])
    stays = torch.ones(len(sizes), dtype=torch.bool)
    stays[sizes.argsort(stable=True)[: round(sparsity * len(sizes))]] = False
    parts = torch.split(stays, [weight.numel() for weight in weights.values()])
    return {name: part.view_as(weights[name]) for name, part in zip(weights, parts, strict=True)}


def _n_of_m(weight: Weight, n: int, m: int) -> Tensor:
    """True for the n largest of every m neighbours; of equals, the first ones."""
    sizes = weight.along_inputs(weight.tensor.detach().abs())
    blocks = (*sizes.shape[:-1], -1, m)
    order = sizes.reshape(blocks).argsort(dim=-1, descending=True, stable=True)[..., :n]
    mask = torch.zeros(weight.tensor.shape, dtype=torch.bool, device=weight.tensor.device)
    weight.along_inputs(mask).view(blocks).scatter_(-1, order, True)
    return mask
