"""Which dimensions of which parameters a gate acts on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

from torch import fx, nn

from metaprune.graph.call import named_arguments
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.infer import Inference
from metaprune.graph.term import Axis, Concat, Product, Term, axes_of, fold, size

__all__ = ["counted_axes", "gated_terms", "reading_terms"]

_READING = {
    "aten.linear": 1,
    "aten.conv1d": 1,
    "aten.conv2d": 1,
    "aten.conv3d": 1,
    "aten.conv_transpose1d": 0,
    "aten.conv_transpose2d": 0,
    "aten.conv_transpose3d": 0,
}
"""Operators that sum over one dimension of their weight, and which."""

_NORMS = {"aten.layer_norm", "aten.rms_norm", "aten.group_norm"}
"""Operators that read across channels and give them back: what is silent behind them does not matter."""


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


def reading_terms(graph: ChannelGraph, network: nn.Module) -> dict[str, tuple[Term, ...]]:
    """The same, less what does not read: a channel is gated once, in the weights that sum over it.

    Norms, biases and the weights that make a channel are left alone, and so a gate of m passes on m times the channel,
    whatever normalises it on the way. Axes that anything else sums over (attention, recurrent layers, a mean over
    channels), or nothing does, keep all their gates.

    Args:
        graph: The channel graph.
        network: The network, for which of its names are one tensor's.
    """
    first = {id(tensor): name for name, tensor in reversed([*network.named_parameters(remove_duplicate=False)])}
    named = {name: first[id(tensor)] for name, tensor in network.named_parameters(remove_duplicate=False)}
    read, elsewhere = _readers(graph, named)
    everywhere = graph.free.keys() - {axis for axes in read.values() for axis in axes} | elsewhere

    def only(term: Term, axes: Set[str]) -> Term:
        """The term with other axes as sizes that are nobody's channels."""

        def leaf(axis: Axis) -> Term:
            return axis if axis.name in axes else Axis("", axis.size)

        def concat(parts: Sequence[Term]) -> Term:
            return Concat(tuple(parts))

        return fold(term, leaf, lambda factors: Product(tuple(factors)), concat)

    return {
        name: tuple(only(term, everywhere | read.get((name, dim), set())) for dim, term in enumerate(terms))
        for name, terms in gated_terms(graph).items()
    }


def _readers(graph: ChannelGraph, named: Mapping[str, str]) -> tuple[dict[tuple[str, int], set[str]], set[str]]:
    """For each (parameter, dimension) the free axes that it sums over; and those that something else sums over."""
    read: dict[tuple[str, int], set[str]] = {}
    elsewhere: set[str] = set()
    for seen in graph.inferences:
        for node, arguments in seen.reads.items():
            name = str(getattr(node.target, "overloadpacket", node.target)).rstrip("_")
            if name in _NORMS:
                continue
            summed = _free(graph, _terms_read(seen, node, arguments))
            dim = _READING.get(name)
            weight = None if dim is None else named.get(seen.owner.get(node.args[1], ""))
            if weight is None or dim is None:
                elsewhere |= summed
            else:
                read.setdefault((weight, dim), set()).update(summed & _free(graph, [graph.tensors[weight][dim]]))
    return read, elsewhere


def _terms_read(seen: Inference, node: fx.Node, arguments: Mapping[str, tuple[int, ...]]) -> Iterator[Term]:
    """The dimensions that an operator reads across."""
    given = named_arguments(node.target, node.args, node.kwargs)
    for argument, dims in arguments.items():
        name, _, place = argument.partition(".")
        terms = seen.dims[given[name][int(place)] if place else given[name]]
        yield from (terms[dim] for dim in dims)


def _free(graph: ChannelGraph, terms: Iterable[Term]) -> set[str]:
    """The names of the free axes in some terms."""
    return {axis.name for term in terms for axis in axes_of(term)} & graph.free.keys()


def counted_axes(graph: ChannelGraph) -> frozenset[str]:
    """Free axes that an operator averages or normalises over: there, a channel of zeros would still be counted."""
    return frozenset(_free(graph, (term for operator in graph.every_operator for term in operator.statistics)))
