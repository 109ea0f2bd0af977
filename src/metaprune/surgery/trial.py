"""The trial cuts: whether a graph needs them, and what is cut."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from metaprune.graph.graph import Branch, ChannelGraph, Operator
from metaprune.graph.plan import Plan
from metaprune.graph.provenance import Attribute, Extent, compare, evaluate, leaves
from metaprune.graph.steps import steps_of_operators
from metaprune.graph.term import Axis, axes_of, width

__all__ = ["may_hold_a_size", "ragged", "takes_another_way", "trial", "turning"]


def may_hold_a_size(operator: Operator, graph: ChannelGraph) -> bool:
    """Whether an operator was given, or computes with, a size that a cut changes, and nobody knows where from."""
    unknown = any(
        given.number is None or isinstance(given.number, int)
        for given in operator.sizes
        if any(graph.is_free(axis) for axis in axes_of(given.term))
    )
    return unknown or operator.literal or operator.computed


def trial(graph: ChannelGraph) -> Plan:
    """All free axes cut, to widths that differ from axis to axis, and that the operators take."""
    kept = {}
    steps = steps_of_operators(graph)
    for place, (name, axis) in enumerate(graph.free.items()):
        step = steps[name]
        widths = range(step if step > 1 or axis.size == 2 else 2, axis.size, step)
        if widths:
            kept[name] = range(widths[(len(widths) // 2 + place) % len(widths)])
    return Plan(kept)


def ragged(graph: ChannelGraph) -> Plan:
    """All free axes cut to widths of all kinds, narrow ones too."""
    steps, draw = steps_of_operators(graph), random.Random(0)
    widths = {name: range(steps[name], axis.size, steps[name]) for name, axis in graph.free.items()}
    return Plan({name: range(draw.choice(some)) for name, some in widths.items() if some})


def turning(graph: ChannelGraph, held: Mapping[tuple[str, str], int]) -> Plan:
    """All axes, cut to their least width, at which a comparison in the network's code comes out otherwise."""
    steps = steps_of_operators(graph)
    branches = [branch for one in graph.passes if one.like is None for branch in one.branches]
    turned: dict[str, range] = {}
    for branch in dict.fromkeys(branches):
        for name in {axis.name for axis in _axes_of(branch, graph)} & graph.free.keys() - turned.keys():
            least = min(steps[name], graph.axes[name].size)
            if _outcome(branch, graph, held, {name: least}) != _outcome(branch, graph, held, {}):
                turned[name] = range(least)
    return Plan(turned)


def takes_another_way(graph: ChannelGraph, held: Mapping[tuple[str, str], int], widths: Mapping[str, int]) -> bool:
    """Whether a comparison in the network's code comes out otherwise at some widths."""
    branches = (branch for one in graph.passes if one.like is None for branch in one.branches)
    return any(_outcome(b, graph, held, widths) != _outcome(b, graph, held, {}) for b in dict.fromkeys(branches))


def _axes_of(branch: Branch, graph: ChannelGraph) -> Iterator[Axis]:
    for number in (branch.left, branch.right):
        for leaf in leaves(number):
            term = leaf.term if isinstance(leaf, Extent) else graph.numbers.get((leaf.path, leaf.name))
            yield from axes_of(term) if term is not None else ()


def _outcome(
    branch: Branch, graph: ChannelGraph, held: Mapping[tuple[str, str], int], widths: Mapping[str, int]
) -> bool | None:
    def value(leaf: Attribute | Extent) -> int:
        if isinstance(leaf, Extent):
            return leaf.size if leaf.term is None else width(leaf.term, widths)
        term = graph.numbers.get((leaf.path, leaf.name))
        return held[leaf.path, leaf.name] if term is None else width(term, widths)

    try:
        return compare(branch.sign, evaluate(branch.left, value), evaluate(branch.right, value))
    except ZeroDivisionError:
        return None
