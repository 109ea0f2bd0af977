"""A network at other widths without a cut: searches try many widths, and a verified cut of each would take too long."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from metaprune.graph.arguments import wanted_cut
from metaprune.graph.attributes import write_numbers
from metaprune.graph.copying import clone, in_one_memory
from metaprune.graph.errors import PlanError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.memory import over
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import named_tensors, plain_tensors, with_tensors
from metaprune.graph.term import size, width
from metaprune.surgery.attention import written_out
from metaprune.surgery.index import index
from metaprune.surgery.numbers import set_numbers

__all__ = ["Resized", "cropped"]


class Resized:
    """A network that can be called at the widths of any plan, and trained there.

    What is computed is what `mp.slice` computes, but for attention whose head size is cut: the root of the head size
    that it divides by changes, and here nothing makes up for it. Nothing is verified: check what is found with `slice`.

    Attributes:
        network: The network with modules of its own around the tensors of the one given, which stays as it is; its
            modes are those that calls run in.
        graph: The channel graph.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        """Take a network and its graph.

        Args:
            model: Its tensors are shared: calls see them as they are then, and gradients reach them. What its code
                writes to buffers or to itself, such as running statistics, does not reach it.
            graph: From `mp.trace(model, …)`.

        Raises:
            PlanError: The graph is of another network.
        """
        wanted_cut("resized", model, graph, Plan({}))
        plain = written_out(model, graph.written_out)
        graph.check(plain)
        self.network = clone(plain, {id(tensor): tensor for tensor in named_tensors(plain).values()})
        self.graph = graph
        self._lock = threading.RLock()
        self._inside = False

    def call(
        self,
        plan: Plan,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Tensor] | None = None,
    ) -> Any:
        """What the network answers at the widths of a plan; see `at`.

        Args:
            plan: The channels that stay.
            args: Inputs.
            kwargs: Inputs by name.
            tensors: Parameters to use in place of the network's own, at full width.
        """
        with self.at(plan, tensors) as network:
            return network(*args, **dict(kwargs or {}))

    @contextmanager
    def at(self, plan: Plan, tensors: Mapping[str, Tensor] | None = None) -> Iterator[nn.Module]:
        """The network at the widths of a plan, for as long as the context lasts; also after an error it is whole again.

        Tensors hold the channels that stay, numbers that modules keep are those of the plan, and gradients flow to the
        full tensors. Buffers are copies, which nobody keeps. Other threads wait. A network that computes again in the
        backward pass (activation checkpointing) needs it inside the context.

        Args:
            plan: The channels that stay.
            tensors: Qualified name -> what takes the place of a parameter, at full width, such as a generated weight.

        Raises:
            PlanError: The plan does not fit the graph, or one context is inside another.
        """
        plan.check(self.graph)
        with self._lock:
            if self._inside:
                raise PlanError("resized: the network is at the widths of another plan; leave that context first")
            self._inside = True
            try:
                with _swapped(self.network, self._tensors(plan, tensors or {})), self._numbers(plan):
                    yield self.network
            finally:
                self._inside = False

    def copy(self, plan: Plan, tensors: Mapping[str, Tensor] | None = None) -> nn.Module:
        """A module of its own at the widths of a plan, not verified: to be recalibrated, evaluated and thrown away.

        Args:
            plan: The channels that stay.
            tensors: Qualified name -> what takes the place of a parameter, at full width.

        Raises:
            PlanError: The plan does not fit the graph.
        """
        plan.check(self.graph)
        with self._lock, torch.no_grad():
            small = cropped(self.network, self.graph, plan.kept)
            held = named_tensors(small)
            for name, tensor in (tensors or {}).items():
                held[name].copy_(index(tensor, self.graph.tensors[name], plan.kept))
        return small

    def _tensors(self, plan: Plan, given: Mapping[str, Tensor]) -> dict[int, Tensor]:
        """For each tensor that the network holds, by its identity, what stands there at the widths of a plan."""
        terms = {**self.graph.tables, **self.graph.tensors}
        held = plain_tensors(self.network, self.graph.tables) | named_tensors(self.network)
        given_for = {id(held[name]): tensor for name, tensor in given.items()}
        result: dict[int, Tensor] = {}
        for name, tensor in held.items():
            if id(tensor) not in result:
                small = index(given_for.get(id(tensor), tensor), terms[name], plan.kept)
                mine = small is tensor and not isinstance(tensor, nn.Parameter)
                result[id(tensor)] = small.clone() if mine else small
        return result

    @contextmanager
    def _numbers(self, plan: Plan) -> Iterator[None]:
        """The numbers that modules hold, those of the plan."""
        widths = plan.widths
        changed = {key: term for key, term in self.graph.numbers.items() if width(term, widths) != size(term)}
        try:
            set_numbers(self.network, changed, widths)
            yield
        finally:
            write_numbers(self.network, {key: size(term) for key, term in changed.items()})


@contextmanager
def _swapped(network: nn.Module, tensors: Mapping[int, Tensor]) -> Iterator[None]:
    """Other tensors in the places of those of a network, by identity; each gets its own back."""
    before: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for module in network.modules():
            own = vars(module)
            for places in (own["_parameters"], own["_buffers"], own):
                for name, held in list(places.items()):
                    if isinstance(held, Tensor) and id(held) in tensors:
                        before.append((places, name, held))
                        places[name] = tensors[id(held)]
        yield
    finally:
        for places, name, held in before:
            places[name] = held


def cropped(model: nn.Module, graph: ChannelGraph, kept: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """A copy whose tensors hold only the channels that stay, and whose numbers say so; tied tensors stay tied.

    Nothing is verified, and no scale that hangs on a size is made up for.

    Args:
        model: With its attention written out, as in the graph.
        graph: Its channel graph.
        kept: Axis -> the channels that stay.
    """
    terms = {**graph.tables, **graph.tensors}
    held = plain_tensors(model, graph.tables) | named_tensors(model)
    once = {id(tensor): (name, tensor) for name, tensor in held.items()}
    small: dict[str, Tensor] = {}
    for name, tensor in once.values():
        indexed = index(tensor.detach(), terms[name], kept)
        small[name] = indexed.clone() if indexed.data_ptr() == tensor.data_ptr() or tensor.is_meta else indexed
    lies = over(dict(once.values()))
    parts: dict[str, list[str]] = {}
    for name, one in lies.items():
        if one.dims is None:
            parts.setdefault(one.name, [one.name]).append(name)
        else:
            small[name] = small[one.name].permute(one.dims)
    for names in parts.values():  # which are whole
        together = in_one_memory([held[name] for name in names])
        small |= {name: together[id(held[name])].detach() for name in names}
    result = with_tensors(model, small)
    set_numbers(result, graph.numbers, {name: len(stays) for name, stays in kept.items()})
    return result
