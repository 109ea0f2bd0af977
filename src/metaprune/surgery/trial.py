"""The trial cut: whether a graph needs one, and what is cut."""

from __future__ import annotations

from metaprune.graph.graph import ChannelGraph, Operator
from metaprune.graph.plan import Plan
from metaprune.graph.steps import steps_of_operators
from metaprune.graph.term import axes_of

__all__ = ["may_hold_a_size", "trial"]


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
