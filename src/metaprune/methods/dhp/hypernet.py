"""The modules of DHP: latent vectors, and the two ways in which they generate a network's weights.

Notation: z, the latent vector of an axis; v, the latent of a tensor dimension (a term over axes: outer products and
concatenations of z); W, a generated parameter; A, the free weight behind it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.memory import over
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import call_with, clone, named_tensors
from metaprune.graph.term import Product, Term, axes_of, fold, size
from metaprune.surgery.mask import Programs
from metaprune.surgery.own_code import has_hooks, hiding_in

__all__ = ["Generated", "HyperNetwork", "Latents", "collapse", "counted_axes"]


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
        """The latent of a tensor dimension: outer products over products, concatenations over concatenations.

        Returns:
            Shape (size of the term,); ones where an axis has no latent vector.
        """
        known = self.named()

        def product(factors: Sequence[Tensor]) -> Tensor:
            result = factors[0]
            for factor in factors[1:]:
                result = torch.outer(result, factor).flatten()
            return result

        device = self.vectors[0].device if self.names else None
        return fold(
            term,
            lambda axis: known[axis.name] if axis.name in known else torch.ones(axis.size, device=device),
            lambda factors: product(factors) if factors else torch.ones(1, device=device),
            lambda parts: torch.cat(list(parts)),
        )


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


class Generated(nn.Module):
    """A network whose parameters are generated from latent vectors; it is called like the network itself.

    Each parameter is A times the latents of its dimensions. In the hypernetwork form, weights of two channel dimensions
    come from a `HyperNetwork` each. At the start it computes exactly what `network` did. Once latents are zero it
    computes what the cut network will: zero is silence for whatever multiplies, and where an operator averages or
    normalises over an axis it is run over the living channels (`metaprune.surgery.mask.Programs`).

    Args:
        network: The network, taken over: its parameters become the free weights A.
        graph: Its channel graph.
        latents: The latent vectors.
        embedding: m of the paper's hypernetwork, or None for the gate form.
        offsets: See `HyperNetwork`; with them, only what hypernetworks generate is gated.
        scratch: Whether hypernetworks start from the paper's random weights instead of the network's; the network then
            need not be reproduced.
    """

    def __init__(
        self,
        network: nn.Module,
        graph: ChannelGraph,
        latents: Latents,
        embedding: int | None = None,
        offsets: bool = False,
        scratch: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.latents = latents
        self.hooked = has_hooks(network)
        self.programs = Programs(network, graph, recorded=self.hooked)
        self.kept: dict[str, tuple[int, ...]] = {}
        self.counted = frozenset() if offsets else counted_axes(graph)
        parameters = dict(network.named_parameters())
        for name, below in over(parameters).items():
            raise MetapruneError(
                f"DHP: {name} and {below.name} lie in one memory, so a gate would act on it twice; make them one "
                "parameter (`b.weight = a.weight`), or two (`.clone()`), before the search"
            )
        gated = gated_terms(graph)
        self.terms = {name: gated[name] for name in parameters if any(map(latents.touches, gated[name]))}
        self.hypernetworks = nn.ModuleDict()
        self.trained = {name: parameter.requires_grad for name, parameter in parameters.items()}
        with torch.no_grad():
            for name, terms in self.terms.items():
                tensor = parameters[name]
                if embedding is not None and tensor.ndim >= 2 and all(size(term) > 1 for term in terms[:2]):
                    hyper = HyperNetwork(tensor.shape, embedding, offsets)
                    hyper.to(tensor.device, torch.promote_types(tensor.dtype, torch.float32))
                    hyper.requires_grad_(tensor.requires_grad)
                    if not scratch:
                        hyper.reproduce(tensor, latents.of(terms[0]), latents.of(terms[1]))
                    self.hypernetworks[_key(name)] = hyper
                    tensor.requires_grad_(False)
                elif not scratch:
                    tensor.div_(self.gate(terms))
            if offsets:  # as in the paper, where norms and biases speak for dead channels too
                self.terms = {name: terms for name, terms in self.terms.items() if _key(name) in self.hypernetworks}

    def gate(self, terms: Sequence[Term]) -> Tensor | float:
        """The product of the latents of all dimensions, broadcast to the tensor's shape."""
        result: Tensor | float = 1.0
        for dim, term in enumerate(terms):
            if self.latents.touches(term):
                result = result * self.latents.of(term).reshape(-1, *[1] * (len(terms) - dim - 1))
        return result

    def parameters_generated(self) -> dict[str, Tensor]:
        """Every generated parameter by name: W = A * prod_a v_a, or the hypernetwork's."""
        parameters = dict(self.network.named_parameters())
        result = {}
        for name, terms in self.terms.items():
            key = _key(name)
            if key in self.hypernetworks:
                generated = self.hypernetworks[key](self.latents.of(terms[0]), self.latents.of(terms[1]))
            else:
                generated = parameters[name] * self.gate(terms)
            result[name] = generated.to(parameters[name].dtype)
        return result

    def hide(self, plan: Plan) -> None:
        """From now on leave the channels that `plan` removes, whose latents are zero, out of every average."""
        self.kept = dict(plan.kept) if self.counted & plan.kept.keys() else {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Generate the weights and run the network."""
        generated = self.parameters_generated()
        if not self.kept:
            return call_with(self.network, generated, args, kwargs)
        if self.hooked:
            interpreter = self.programs.interpreter(self.kept, args, kwargs, self.terms.keys())
            with hiding_in(self.network, interpreter):
                return call_with(self.network, generated, args, kwargs)
        known = named_tensors(self.network)
        names = {id(known[name]): name for name in generated}
        tensors = {name: generated[names[id(t)]] if id(t) in names else t for name, t in known.items()}
        return self.programs.run(self.kept, args, kwargs, tensors, self.terms.keys())

    @torch.no_grad()
    def fold(self) -> nn.Module:
        """A copy of the network with the generated weights written into it."""
        network = clone(self.network)
        generated = self.parameters_generated()
        for name, parameter in network.named_parameters():
            if name in generated:
                parameter.copy_(generated[name])
                parameter.requires_grad_(self.trained[name])
        return network


def _key(name: str) -> str:
    """A parameter's name as one of a module, which must not hold dots."""
    return name.replace(".", "/")


def gated_terms(graph: ChannelGraph) -> dict[str, tuple[Term, ...]]:
    """The terms of every tensor, less the dimensions along which only its direction counts.

    A weight norm, g v / |v|, has a norm for each entry of g: a gate on g silences it, and a gate on v would divide zero
    by zero.
    """
    terms = dict(graph.tensors)
    for operator in graph.every_operator:
        if operator.name == "aten._weight_norm":
            (direction, _), (length, _) = operator.operands[:2]
            if direction in terms and length in terms:
                pairs = zip(terms[direction], graph.tensors[length], strict=True)
                terms[direction] = tuple(term if size(along) == 1 else Product(()) for term, along in pairs)
    return terms


def counted_axes(graph: ChannelGraph) -> frozenset[str]:
    """Free axes that an operator averages or normalises over: there, a channel of zeros would still be counted."""
    over = {axis.name for operator in graph.every_operator for term in operator.statistics for axis in axes_of(term)}
    return frozenset(over & graph.free.keys())
