"""A network whose parameters are generated from one number per channel.

Notation: z, the latent vector of an axis; v, the latent of a tensor dimension (a term over axes: outer products and
concatenations of z); W, a generated parameter; A, the free weight behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.memory import over
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import call_with, clone, named_tensors
from metaprune.graph.term import Term, axes_of
from metaprune.methods.gates.latents import along
from metaprune.methods.gates.terms import counted_axes, gated_terms
from metaprune.surgery.mask import Programs
from metaprune.surgery.own_code import has_hooks, hiding_in

__all__ = ["Gates", "Generated"]

Terms = tuple[Term, ...]


class Gates(Protocol):
    """What gates are read from: a module."""

    @property
    def names(self) -> Sequence[str]:
        """The axes that have gates."""

    def named(self) -> Mapping[str, Tensor]:
        """Axis name -> one number per channel, as they are now; asked once for each pass."""


class Generated(nn.Module):
    """A network whose parameters are generated from gates; it is called like the network itself.

    Each parameter is A times the gates of its dimensions, unless it has a generator of its own. Once gates are zero it
    computes what the cut network will: zero is silence for whatever multiplies, and where an operator averages or
    normalises over an axis it is run over the living channels (`metaprune.surgery.mask.Programs`).

    Args:
        network: The network, taken over: its parameters become the free weights A.
        graph: Its channel graph.
        latents: A module that gives one number per channel (`Gates`).
        who: The method, for errors.
        terms: Name of a parameter -> its dimensions as far as they are gated; by default all are (`gated_terms`).
        divide: Whether A is the network's parameter over the gates as they are now, so that at the start the network
            computes what it did; else it is the parameter itself.
        generator: For a parameter and its dimensions, a module that makes it from the latents of the first two, or None
            where it is gated.
        silencing: Whether zeros silence: else only what generators make is gated, and the rest speaks for the dead.
    """

    reads_weights = True  # of the modules inside, before they are called

    def __init__(
        self,
        network: nn.Module,
        graph: ChannelGraph,
        latents: Any,
        *,
        who: str = "gates",
        terms: Mapping[str, Terms] | None = None,
        divide: bool = True,
        generator: Callable[[Tensor, Terms], nn.Module | None] = lambda tensor, terms: None,
        silencing: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.latents = latents
        self.hooked = has_hooks(network)
        self.graph = graph
        self.programs = Programs(network, graph, recorded=self.hooked)
        self.kept: dict[str, tuple[int, ...]] = {}
        self.counted = counted_axes(graph) if silencing else frozenset()
        self.gating = frozenset(latents.names)
        parameters = dict(network.named_parameters())
        for name, below in over(parameters).items():
            raise MetapruneError(
                f"{who}: {name} and {below.name} lie in one memory, so a gate would act on it twice; make them one "
                "parameter (`b.weight = a.weight`), or two (`.clone()`), before the search"
            )
        gated = gated_terms(graph) if terms is None else terms
        self.terms = {name: gated[name] for name in parameters if any(map(self.touches, gated[name]))}
        self.hypernetworks = nn.ModuleDict()
        self.trained = {name: parameter.requires_grad for name, parameter in parameters.items()}
        with torch.no_grad():
            for name, dims in self.terms.items():
                tensor = parameters[name]
                made = generator(tensor, dims)
                if made is not None:
                    self.hypernetworks[_key(name)] = made.requires_grad_(tensor.requires_grad)
                    tensor.requires_grad_(False)
                elif divide:
                    tensor.div_(self.gate(dims))
            if not silencing:
                self.terms = {name: dims for name, dims in self.terms.items() if _key(name) in self.hypernetworks}

    def touches(self, term: Term) -> bool:
        """Whether any axis of the term has gates."""
        return any(axis.name in self.gating for axis in axes_of(term))

    def gate(self, terms: Sequence[Term], vectors: Mapping[str, Tensor] | None = None) -> Tensor | float:
        """The product of the gates of all dimensions, broadcast to the tensor's shape.

        Args:
            terms: The dimensions.
            vectors: The gates, where they are known.
        """
        vectors = self.latents.named() if vectors is None else vectors
        result: Tensor | float = 1.0
        for dim, term in enumerate(terms):
            if self.touches(term):
                result = result * along(term, vectors).reshape(-1, *[1] * (len(terms) - dim - 1))
        return result

    def parameters_generated(self) -> dict[str, Tensor]:
        """Every generated parameter by name: W = A * prod_a v_a, or its generator's."""
        vectors = self.latents.named()
        parameters = dict(self.network.named_parameters())
        result = {}
        for name, terms in self.terms.items():
            key = _key(name)
            if key in self.hypernetworks:
                generated = self.hypernetworks[key](along(terms[0], vectors), along(terms[1], vectors))
            else:
                generated = parameters[name] * self.gate(terms, vectors)
            result[name] = generated.to(parameters[name].dtype)
        return result

    @property
    def compiles(self) -> nn.Module:
        """What is compiled where steps are: weights are made outside of it."""
        return self.network

    def hide(self, plan: Plan) -> None:
        """From now on leave the channels that `plan` removes, whose gates are zero, out of every average."""
        self.kept = dict(plan.kept) if self.counted & plan.kept.keys() else {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Generate the weights and run the network."""
        generated = self.parameters_generated()
        if not self.kept:
            return call_with(self.network, generated, args, kwargs)
        if not self.hooked and has_hooks(self.network):  # registered since
            self.hooked, self.programs = True, Programs(self.network, self.graph, recorded=True)
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
