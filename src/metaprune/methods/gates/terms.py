"""Which dimensions of which parameters a gate acts on."""

from __future__ import annotations

from collections.abc import Sequence, Set

from metaprune.graph.graph import ChannelGraph
from metaprune.graph.term import Axis, Concat, Product, Term, axes_of, fold, size

__all__ = ["counted_axes", "gated_terms", "reading_terms"]


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


def reading_terms(graph: ChannelGraph) -> dict[str, tuple[Term, ...]]:
    """The same, less what does not read: a channel is gated once, in the weights that sum over it.

    Norms, biases and the weights that make a channel are left alone, and so a gate of m passes on m times the channel,
    whatever normalises it on the way. Axes that anything else sums over (attention, recurrent layers, a sum over
    channels), or nothing does, keep all their gates.
    """
    read: dict[tuple[str, int], set[str]] = {}
    for use in graph.uses:
        if use.role == "reads":
            read.setdefault((use.tensor, use.dim), set()).add(use.axis)
    once = {axis for axes in read.values() for axis in axes} - graph.unabsorbed.keys()

    def only(term: Term, axes: Set[str]) -> Term:
        """The term with other axes as sizes that are nobody's channels."""

        def leaf(axis: Axis) -> Term:
            return axis if axis.name in axes or axis.name not in once else Axis("", axis.size)

        def concat(parts: Sequence[Term]) -> Term:
            return Concat(tuple(parts))

        return fold(term, leaf, lambda factors: Product(tuple(factors)), concat)

    return {
        name: tuple(only(term, read.get((name, dim), set())) for dim, term in enumerate(terms))
        for name, terms in gated_terms(graph).items()
    }


def counted_axes(graph: ChannelGraph) -> frozenset[str]:
    """Free axes that an operator averages or normalises over: there, a channel of zeros would still be counted."""
    over = {axis.name for operator in graph.every_operator for term in operator.statistics for axis in axes_of(term)}
    return frozenset(over & graph.free.keys())
