"""Where an axis lies, what it costs, and what is done along it: from the graph alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from metaprune.cost.closed_form import axis_shares
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.term import Axis, Concat, Product, Term, axes_of, size

__all__ = ["COST", "KIND", "PLACE", "costs", "kinds", "places"]

COST, PLACE, KIND = 3, 4, 7

Rows = dict[str, list[float]]
"""Axis -> numbers."""

ROLES = ("reads", "writes", "carries", "counts")


def costs(graph: ChannelGraph, names: Sequence[str], prices: Mapping[str, float]) -> Rows:
    """Shares of MACs and parameters, as roots; and what one channel costs, as a logarithm relative to the mean."""
    macs = axis_shares(graph)
    whole, held = 0, dict.fromkeys(graph.axes, 0)
    for name in graph.parameters:
        terms = graph.tensors[name]
        count = math.prod(map(size, terms))
        whole += count
        for axis in {axis.name for term in terms for axis in axes_of(term)} & held.keys():
            held[axis] += count
    mean = sum(prices.values()) / max(len(prices), 1) or 1.0
    return {
        name: [
            macs[name] ** 0.5,
            (held[name] / max(whole, 1)) ** 0.5,
            math.log10(max(prices.get(name, 0.0) / mean, 1e-3)) / 2 if name in prices else 0.0,
        ]
        for name in names
    }


def places(graph: ChannelGraph, names: Sequence[str], depths: Mapping[str, tuple[float, float]]) -> Rows:
    """How many tensors lie between an axis and the first one, and the last one, as shares of the longest way.

    Then the middle of where it reaches among the operators, and how far.

    Args:
        graph: The channel graph.
        names: The axes.
        depths: For each, where it is used first and last, from 0 to 1.
    """
    beside: dict[str, set[str]] = {name: set() for name in names}
    for name in graph.parameters:
        met = {axis.name for term in graph.tensors[name] for axis in axes_of(term)} & beside.keys()
        for one in met:
            beside[one] |= met - {one}
    first = min(names, key=lambda name: depths[name], default="")
    last = max(names, key=lambda name: depths[name][::-1], default="")
    ways = [_steps(beside, end) for end in (first, last)]
    longest = max((step for way in ways for step in way.values()), default=0) or 1
    found = {}
    for name in names:
        low, high = depths[name]
        found[name] = [way.get(name, longest) / longest for way in ways] + [(low + high) / 2, high - low]
    return found


def kinds(graph: ChannelGraph, names: Sequence[str]) -> Rows:
    """How many dimensions read, write, carry and count an axis, as logarithms; and where in dimensions it stands.

    Whether there is a dimension in which another axis is inside it (as head sizes are in heads), one in which it is
    inside another, and one that is joined of parts.
    """
    counted = {name: dict.fromkeys(ROLES, 0) for name in names}
    for use in graph.uses:
        if use.axis in counted:
            counted[use.axis][use.role] += 1
    stands = {name: [0.0, 0.0, 0.0] for name in names}
    for terms in graph.tensors.values():
        for term in terms:
            _stand(term, stands)
    return {name: [math.log2(1 + counted[name][role]) / 4 for role in ROLES] + stands[name] for name in names}


def _stand(term: Term, stands: Mapping[str, list[float]]) -> None:
    if isinstance(term, Product):
        axes = [[axis.name for axis in axes_of(factor) if axis.name in stands] for factor in term.factors]
        held = [place for place, found in enumerate(axes) if found]
        for place in held:
            for name in axes[place]:
                stands[name][0] = max(stands[name][0], float(place < held[-1]))
                stands[name][1] = max(stands[name][1], float(place > held[0]))
        for factor in term.factors:
            _stand(factor, stands)
    elif isinstance(term, Concat):
        for axis in axes_of(term):
            if axis.name in stands:
                stands[axis.name][2] = 1.0
        for part in term.parts:
            _stand(part, stands)
    else:
        assert isinstance(term, Axis)


def _steps(beside: Mapping[str, set[str]], start: str) -> dict[str, int]:
    """How many steps each is from the start; what cannot be reached is left out."""
    found, edge = {start: 0}, [start]
    while edge:
        edge = [name for here in edge for name in beside.get(here, ()) if name not in found]
        found |= dict.fromkeys(edge, max(found.values()) + 1)
        edge = list(dict.fromkeys(edge))
    return found
