"""What operators do with the network's tensors along each axis: read, write, carry, or count.

A linear layer writes the axis of its rows and reads that of its columns; a norm's weights carry theirs. Where one
channel goes, another can take over what it contributed if all that mixes the channels of their axis is a product with a
weight of the network's own: its entries are added up. Where that is not so, the axis is unabsorbed, with the reason.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor, fx

from metaprune.graph.call import Call, is_layout
from metaprune.graph.term import Axis, Term, axes_of
from metaprune.graph.unify import Shape

__all__ = ["Role", "Use", "Uses", "conflicts"]

Role = Literal["reads", "writes", "carries", "counts"]


class Use(NamedTuple):
    """How an operator uses one of the network's tensors along one axis.

    Attributes:
        tensor: Its qualified name; of tied ones the first.
        dim: The dimension that holds the axis.
        axis: The name of the axis.
        role: "reads": it is multiplied with the channels and summed over them, as the columns of a weight are.
            "writes": it makes the channels, or adds to them: rows, biases, embeddings.
            "carries": each entry goes with its channel: norms, slopes, depthwise filters, gates.
            "counts": statistics of the tensor run over it, as where a weight is normalised.
    """

    tensor: str
    dim: int
    axis: str
    role: Role


_UNCHANGED = {
    *("aten.to", "aten._to_copy", "aten.type_as", "aten.clone", "aten.contiguous", "aten.detach", "aten.alias"),
    *("aten.neg", "aten.lift_fresh", "aten.lift_fresh_copy"),
}
"""Operators behind which a weight is the same linear map, but for its sign and its place in memory."""

_SCALED = {"aten.mul", "aten.div"}
"""The same, where the other operand is a number."""

_VIEWS = {
    *("aten.t", "aten.transpose", "aten.swapaxes", "aten.swapdims", "aten.permute", "aten.movedim", "aten.mT"),
    *("aten.numpy_T", "aten.squeeze", "aten.unsqueeze", "aten.select", "aten.slice", "aten.narrow", "aten.view"),
    *("aten.chunk", "aten.split", "aten.split_with_sizes", "aten.unbind", "aten.alias", "aten.detach"),
}
"""Operators whose result lies in the memory of what they are given, as its strides tell."""

_ADDED = {"aten.add", "aten.sub", "aten.rsub", "aten.embedding", "aten.embedding_bag", "aten.cat", "aten.stack"}
"""Operators that write what they are given, besides contractions."""

_EVEN = {
    *("aten.layer_norm", "aten.rms_norm", "aten.group_norm", "aten.batch_norm", "aten.instance_norm", "aten.mean"),
    *("aten.amax", "aten.amin", "aten.aminmax", "aten.max", "aten.min", "aten.all", "aten.any", "aten.nanmean"),
}
"""Statistics that are the same of every channel as of every channel twice."""

_SPREAD = {"aten.var", "aten.std", "aten.var_mean", "aten.std_mean"}


@dataclass
class Uses:
    """Reads the uses of a program's calls, in order.

    Attributes:
        owner: For each node that is a parameter or buffer, its name; of tied ones the first.
        shapes: The terms of every tensor.
        shared: Tensors that lie in the memory of others.
        term: From a shape to the term it became.
        given: For each input of a body that is run in another mode, the node outside that it stands for.
        inputs: The nodes that the network is given.
    """

    owner: Mapping[fx.Node, str]
    shapes: Mapping[str, tuple[Term, ...]]
    shared: frozenset[str]
    term: Callable[[Shape], Term]
    given: Mapping[fx.Node, fx.Node]
    inputs: Set[fx.Node]
    same: dict[fx.Node, tuple[str, ...]] = field(default_factory=dict)
    computed: dict[fx.Node, bool] = field(default_factory=dict)
    views: set[fx.Node] = field(default_factory=set)

    def of(self, call: Call) -> tuple[tuple[Use, ...], tuple[tuple[str, str], ...]]:
        """The uses of one call, and the axes that it leaves unabsorbed, each with the reason."""
        found: dict[Use, None] = {}
        stuck: dict[str, str] = {}
        operands = dict(_operands(call))
        held = {name: self.tensors(node) for name, node in operands.items()}
        moved = {name: tensors for name, tensors in held.items() if not _counts_places(operands[name])}
        if self.passes_on(call, moved):
            self.same[call.node] = tuple(dict.fromkeys(tensor for tensors in moved.values() for tensor in tensors))
            if self.in_its_memory(call, [operands[name] for name in moved]):
                self.views.add(call.node)
            return (), ()
        summed = {
            name: {dim: list(axes_of(self.term(shape))) for dim, shape in over.items()}
            for name, over in call.summed.items()
            if name in operands
        }
        reader = self.readers(call, operands, summed, stuck)
        beside = {
            axis
            for name in summed
            if not held[name] and not self.is_weight(operands[name])
            for dim, axes in self.axes(call, name)
            for axis in {one.name for one in axes} - {one.name for one in summed[name].get(dim, ())}
        }
        if not call.macs:
            stuck |= self.mixed(call)
        for name in operands:
            for dim, axes in self.axes(call, name) if held[name] else ():
                over = {one.name for one in summed.get(name, {}).get(dim, ())}
                for axis in dict.fromkeys(one.name for one in axes if one.name):
                    if axis in over:
                        role: Role = "reads" if (name, dim) in reader.get(axis, ()) else "writes"
                    elif call.macs:
                        role = "carries" if name in summed and axis in beside else "writes"
                    else:
                        role = _role(call, name, dim)
                    for tensor in held[name]:
                        places = self.dims(tensor, axis, operands[name], dim)
                        found |= dict.fromkeys(Use(tensor, place, axis, role) for place in places)
                        if tensor in self.shared:
                            stuck.setdefault(axis, f"{call.where}: {tensor} shares its memory with another tensor")
                        elif not places:
                            stuck.setdefault(axis, f"{call.where}: it may be any of two dimensions of {tensor}")
        return tuple(found), tuple((axis, why) for axis, why in stuck.items() if axis)

    def axes(self, call: Call, name: str) -> Iterator[tuple[int, list[Axis]]]:
        """For each dimension of an operand the axes in it."""
        for dim, shape in enumerate(call.argument(name)):
            yield dim, list(axes_of(self.term(shape)))

    def tensors(self, node: fx.Node) -> tuple[str, ...]:
        """The network's tensors whose entries a value holds, moved about at most; none where it is computed."""
        node = self.source(node)
        return (self.owner[node],) if node in self.owner else self.same.get(node, ())

    def outside(self, node: fx.Node) -> fx.Node:
        """What an input of a body stands for."""
        while node in self.given:
            node = self.given[node]
        return node

    def source(self, node: fx.Node) -> fx.Node:
        """What a value is, or is one of several results of."""
        node = self.outside(node)
        is_one_of_several = node.target is operator.getitem and isinstance(node.args[0], fx.Node)
        return self.outside(node.args[0]) if is_one_of_several else node  # type: ignore[arg-type]

    def is_weight(self, node: fx.Node) -> bool:
        """Whether a value is the same whatever the inputs are."""
        waiting = [self.outside(node)]
        while waiting:
            one = waiting[-1]
            before = [self.outside(source) for source in one.all_input_nodes]
            unknown = [source for source in before if source not in self.computed]
            if one in self.computed or not unknown:
                waiting.pop()
                self.computed[one] = one not in self.inputs and all(self.computed[source] for source in before)
            waiting += unknown if one not in self.computed else []
        return self.computed[self.outside(node)]

    def passes_on(self, call: Call, held: Mapping[str, tuple[str, ...]]) -> bool:
        """Whether the result is the network's tensors and nothing else, moved about at most."""
        if not held or not all(held.values()):
            return False
        alone = len(held) == 1
        scaled = call.name in _SCALED and isinstance(call.get("other"), int | float)
        return is_layout(call.name) or (alone and (call.name in _UNCHANGED or scaled))

    def in_its_memory(self, call: Call, sources: Sequence[fx.Node]) -> bool:
        """Whether the strides of the result are those of the tensor that it holds: it is a view, or laid out alike."""
        if len(sources) > 1 or self.source(sources[0]) not in self.owner.keys() | self.views:
            return False
        return call.name in _VIEWS or call.node.meta["val"].stride() == self.outside(sources[0]).meta["val"].stride()

    def readers(
        self,
        call: Call,
        operands: Mapping[str, fx.Node],
        summed: Mapping[str, Mapping[int, Sequence[Axis]]],
        stuck: dict[str, str],
    ) -> dict[str, list[tuple[str, int]]]:
        """For each axis that a product sums over the factor, and its dimension, whose entries can be added up.

        One of each product's: of two weights that are multiplied, the last.
        """
        found: dict[str, list[tuple[str, int]]] = {}
        factors: dict[str, list[tuple[str, int]]] = {}
        for name, over in summed.items():
            for dim, axes in over.items():
                for axis in dict.fromkeys(one.name for one in axes):
                    factors.setdefault(axis, []).append((name, dim))
        scaled = {one.name for one in axes_of(self.term(call.scale))} if call.scale is not None else set()
        for axis, places in factors.items():
            able = [
                (name, dim)
                for name, dim in places
                if all(self.dims(tensor, axis, operands[name], dim) for tensor in self.tensors(operands[name]))
                and self.tensors(operands[name])
            ]
            if axis in scaled:
                stuck[axis] = f"{call.where}: {call.name} makes a scale of its size"
            elif able:
                found[axis] = able if call.apart else able[-1:]
            elif any(self.is_weight(operands[name]) for name, _ in places):
                stuck[axis] = f"{call.where}: the weight that reads it is computed"
            else:
                stuck[axis] = f"{call.where}: {call.name} multiplies two activations over it"
        return found

    def mixed(self, call: Call) -> dict[str, str]:
        """The axes that a call runs over otherwise, and by how many channels there are would change its result."""
        if call.name in _EVEN or (call.name in _SPREAD and _plain_spread(call)):
            return {}
        return {
            axis.name: f"{call.where}: {call.name} runs over it"
            for name, over in call.reads.items()
            for dim in over
            for axis in axes_of(self.term(call.argument(name)[dim]))
        }

    def dims(self, tensor: str, axis: str, node: fx.Node, dim: int) -> list[int]:
        """Which dimensions of a tensor a dimension of a value is, as far as it holds the axis; none where unclear."""
        terms = self.shapes[tensor]
        held = [place for place, term in enumerate(terms) if any(one.name == axis for one in axes_of(term))]
        if len(held) < 2:
            return held
        if self.source(node) not in self.owner.keys() | self.views:
            return []
        node = self.outside(node)
        whole: Tensor = next(one for one, name in self.owner.items() if name == tensor).meta["val"]
        value: Tensor = node.meta["val"]
        same = [place for place in held if whole.stride(place) == value.stride(dim)]
        return same if len(same) == 1 and len({whole.stride(place) for place in held}) == len(held) else []


def conflicts(uses: Sequence[Use]) -> dict[str, str]:
    """Axes along which one tensor is read and more than read, so that its entries cannot be added up."""
    roles: dict[tuple[str, int, str], set[str]] = {}
    for use in uses:
        roles.setdefault((use.tensor, use.dim, use.axis), set()).add(use.role)
    return {
        axis: f"{tensor} is read and written along it (it is tied, or used twice)"
        for (tensor, _, axis), known in roles.items()
        if "reads" in known and len(known) > 1
    }


def _operands(call: Call) -> Iterator[tuple[str, fx.Node]]:
    """Every tensor argument by its name, those in lists as `params.2`."""
    for name, value in call.arguments.items():
        for place, one in enumerate(value) if isinstance(value, list | tuple) else [(None, value)]:
            if isinstance(one, fx.Node) and isinstance(call.dims.get(one), tuple):
                yield (name if place is None else f"{name}.{place}"), one


def _role(call: Call, name: str, dim: int) -> Role:
    """What an operator that is no product does along a dimension of an operand."""
    if dim in call.reads.get(name, ()):
        return "counts"
    return "writes" if call.name in _ADDED else "carries"


def _counts_places(node: fx.Node) -> bool:
    """Whether a value is of whole numbers or of yes and no, as positions and masks are."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex())


def _plain_spread(call: Call) -> bool:
    """Whether a variance divides by the number of entries, not by one less."""
    return call.get("correction") == 0 or call.arguments.get("unbiased") is False
