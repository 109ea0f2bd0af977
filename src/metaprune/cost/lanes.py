"""Lanes: axes whose widths change together, and the widths that they may have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metaprune.graph.graph import ChannelGraph
from metaprune.graph.limits import LimitsError
from metaprune.graph.steps import align, steps_of_operators

__all__ = ["FLOOR", "Lane", "alignment", "lanes"]

FLOOR = 0.1
"""No axis is cut below this share of its channels, unless limits say otherwise."""


@dataclass(frozen=True)
class Lane:
    """Free axes of which the same share stays; mostly of one size, and then of one width.

    Attributes:
        axes: Their names; one, but for limits that tie axes.
        size: How many units each has: channels, where all are of one size.
        step: Between the widths that they may have, in units.
        least: The smallest of these.
        most: The largest.
        same: Whether those of one size keep the same channels, too.
        each: For each axis the channels of a unit.
    """

    axes: tuple[str, ...]
    size: int
    step: int
    least: int
    most: int
    same: bool = False
    each: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "each", self.each or (1,) * len(self.axes))

    def channels(self, width: int) -> dict[str, int]:
        """How many channels of each axis so many units are."""
        return {axis: width * unit for axis, unit in zip(self.axes, self.each, strict=True)}

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

    Raises:
        LimitsError: Limits of axes that are tied leave no width.
    """
    steps = alignment(graph, multiple_of)
    groups = {name: [name] for name in graph.free}
    for group in (*graph.limits.alike, *graph.limits.alike_channels, *graph.limits.together):
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
        sizes = {axis: graph.axes[axis].size for axis in axes}
        size = math.gcd(*sizes.values())
        each = {axis: sizes[axis] // size for axis in axes}
        step = math.lcm(*(steps[axis] // math.gcd(steps[axis], each[axis]) for axis in axes))
        limit = min(graph.limits.most.get(axis, sizes[axis]) // each[axis] for axis in axes)
        floors = {axis: graph.limits.least.get(axis, math.ceil(FLOOR * sizes[axis])) for axis in axes}
        floor = max(1, *(-(-floors[axis] // each[axis]) for axis in axes))
        if limit < floor:
            raise LimitsError(_apart(graph, axes, each, floors))
        most = limit if limit == size else limit // step * step
        most = most if most >= floor else limit  # limits come before alignment
        least = min(_up(floor, step), most)
        among = any(axis in same for axis in axes)
        found[axes[0]] = Lane(tuple(axes), size, step, least, most, among, tuple(each.values()))
    return {name: found[name] for name in order if name in found}


def alignment(graph: ChannelGraph, multiple_of: int) -> dict[str, int]:
    """For each free axis, the step of its width such that every tensor dimension stays a multiple of `multiple_of`.

    What operators ask for comes on top.
    """
    steps = steps_of_operators(graph)
    for dims in graph.tensors.values():
        align(steps, dims, multiple_of)
    return steps


def _apart(graph: ChannelGraph, axes: Sequence[str], each: Mapping[str, int], floors: Mapping[str, int]) -> str:
    """In words, which limits leave no width to axes that are tied."""
    most = min(axes, key=lambda axis: graph.limits.most.get(axis, graph.axes[axis].size) / graph.axes[axis].size)
    least = max(axes, key=lambda axis: floors[axis] / graph.axes[axis].size)
    why = {axis: graph.limits.said.get(axis, "the floor of a tenth") for axis in (most, least)}
    unit = min(axes, key=lambda axis: each[axis])
    steps = graph.axes[unit].size // each[unit]
    return (
        f"limits: {', '.join(axes[:4])} are tied, in steps of 1/{steps}, and no width is left: {most} has at most "
        f"{graph.limits.most.get(most, graph.axes[most].size)} channels ({why[most]}), {least} at least "
        f"{floors[least]} ({why[least]})"
    )


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
