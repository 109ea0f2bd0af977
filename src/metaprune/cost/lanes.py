"""Lanes: axes whose widths change together, and the widths that they may have."""

from __future__ import annotations

import math
from dataclasses import dataclass

from metaprune.graph.graph import ChannelGraph
from metaprune.graph.steps import align, steps_of_operators

__all__ = ["FLOOR", "Lane", "alignment", "lanes"]

FLOOR = 0.1
"""No axis is cut below this share of its channels, unless limits say otherwise."""


@dataclass(frozen=True)
class Lane:
    """Free axes of one size that have one width.

    Attributes:
        axes: Their names; one, but for limits that make axes alike.
        size: How many channels each has.
        step: Between the widths that each may have.
        least: The smallest of these.
        most: The largest.
        same: Whether they keep the same channels, too.
    """

    axes: tuple[str, ...]
    size: int
    step: int
    least: int
    most: int
    same: bool = False

    @property
    def widths(self) -> list[int]:
        """The widths that they may have, the widest first."""
        return sorted({*range(self.least, self.most, self.step), self.most}, reverse=True)

    def nearest(self, share: float) -> int:
        """The width nearest to a share of the channels."""
        return min(self.widths, key=lambda width: (abs(width - share * self.size), width))


def lanes(graph: ChannelGraph, multiple_of: int) -> dict[str, Lane]:
    """The lanes of a graph within its limits, each by the name of its first axis.

    Args:
        graph: The channel graph.
        multiple_of: Every tensor dimension is a multiple of it, where limits allow.
    """
    steps = alignment(graph, multiple_of)
    groups = {name: [name] for name in graph.free}
    alike = (*graph.limits.alike, *graph.limits.alike_channels)
    for group in alike:
        axes = [axis for axis in group if axis in groups]
        for axis in axes[1:]:
            if groups[axis] is not groups[axes[0]]:
                groups[axes[0]] += groups[axis]
                for moved in groups[axis]:
                    groups[moved] = groups[axes[0]]
    same = {axis for group in graph.limits.alike_channels for axis in group}
    order = {name: place for place, name in enumerate(graph.free)}
    found: dict[str, Lane] = {}
    for members in {id(group): group for group in groups.values()}.values():
        axes = sorted(members, key=order.__getitem__)
        size = graph.axes[axes[0]].size
        step = math.lcm(*(steps[axis] for axis in axes))
        limit = min(graph.limits.most.get(axis, size) for axis in axes)
        floor = max(1, *(graph.limits.least.get(axis, math.ceil(FLOOR * size)) for axis in axes))
        most = limit if limit == size else limit // step * step
        most = most if most >= floor else limit  # limits come before alignment
        found[axes[0]] = Lane(tuple(axes), size, step, min(_up(floor, step), most), most, axes[0] in same)
    return {name: found[name] for name in order if name in found}


def alignment(graph: ChannelGraph, multiple_of: int) -> dict[str, int]:
    """For each free axis, the step of its width such that every tensor dimension stays a multiple of `multiple_of`.

    What operators ask for comes on top.
    """
    steps = steps_of_operators(graph)
    for dims in graph.tensors.values():
        align(steps, dims, multiple_of)
    return steps


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
