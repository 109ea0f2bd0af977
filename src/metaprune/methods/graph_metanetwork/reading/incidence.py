"""Incidence: which channels the positions of tensor dimensions are made of, and what travels between the two.

A dimension that is one axis has one channel at each position. Where it is a product (heads and head size) a position
is made of one channel of each factor; where it is a concatenation, of a channel of one part. Whatever is sent from
channels to positions is a mean over a position's channels, and whatever comes back is a sum, maximum or minimum over a
channel's positions. So renumbering the channels of any axis renumbers positions and results alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaprune.graph.term import Axis, Term, fold, size

__all__ = ["PLACES", "Incidence", "Leaf", "incidence", "leaves"]

PLACES = 8
"""How many factors or parts of a term are told apart by their place; the others count as the last of them."""


class Leaf(NamedTuple):
    """One occurrence of an axis in a term: the positions that it covers, and the channel at each."""

    axis: Axis
    position: Int[Tensor, " covered"]
    channel: Int[Tensor, " covered"]


def leaves(term: Term) -> list[Leaf]:
    """Every occurrence of a named axis in a term, left to right."""

    def axis(leaf: Axis) -> tuple[int, list[Leaf]]:
        whole = torch.arange(leaf.size)
        return leaf.size, [Leaf(leaf, whole, whole)] if leaf.name else []

    def product(factors: Sequence[tuple[int, list[Leaf]]]) -> tuple[int, list[Leaf]]:
        outer, found = 1, list[Leaf]()
        for inner, more in factors:
            found = [
                Leaf(
                    leaf.axis,
                    (leaf.position[:, None] * inner + torch.arange(inner)).flatten(),
                    leaf.channel.repeat_interleave(inner),
                )
                for leaf in found
            ]
            found += [
                Leaf(
                    leaf.axis,
                    (torch.arange(outer)[:, None] * inner + leaf.position).flatten(),
                    leaf.channel.repeat(outer),
                )
                for leaf in more
            ]
            outer *= inner
        return outer, found

    def concat(parts: Sequence[tuple[int, list[Leaf]]]) -> tuple[int, list[Leaf]]:
        start, found = 0, list[Leaf]()
        for length, more in parts:
            found += [leaf._replace(position=leaf.position + start) for leaf in more]
            start += length
        return start, found

    return fold(term, axis, product, concat)[1]


@dataclass(frozen=True)
class Incidence:
    """Pairs of a position and a channel that it is made of, for many dimensions one after the other.

    Attributes:
        positions: Number of positions, of all dimensions together.
        nodes: Number of channels, of all axes together.
        position: For each pair the position.
        node: For each pair the channel.
        place: For each pair, which factor or part of its term the channel belongs to, below `PLACES`.
        among: For each pair, the number of channels of its position.
    """

    positions: int
    nodes: int
    position: Int[Tensor, " pairs"]
    node: Int[Tensor, " pairs"]
    place: Int[Tensor, " pairs"]
    among: Int[Tensor, " pairs"]

    @cached_property
    def direct(self) -> bool:
        """Whether each position is one channel, so that pairs are positions."""
        return torch.equal(self.position, torch.arange(self.positions, device=self.position.device))

    def gains(self, places: Float[Tensor, " places h"]) -> Float[Tensor, " pairs h"]:
        """What each pair counts in a mean over channels: the gain of its place."""
        return places.index_select(0, self.place) / self.among[:, None]

    def gather(self, values: Float[Tensor, " nodes h"], gains: Float[Tensor, " pairs h"]) -> Tensor:
        """For each position, the mean of its channels' values, each times its gain; zero where it has no channel.

        Returns:
            Shape (positions, h).
        """
        sent = values.index_select(0, self.node) * gains
        return (
            sent if self.direct else values.new_zeros(self.positions, values.shape[1]).index_add(0, self.position, sent)
        )

    def spread(self, values: Float[Tensor, " positions h"]) -> Float[Tensor, " pairs h"]:
        """For each pair, what is known of its position."""
        return values if self.direct else values.index_select(0, self.position)

    def total(self, values: Float[Tensor, " positions h"]) -> Float[Tensor, " nodes h"]:
        """For each channel, the sum over its positions."""
        return values.new_zeros(self.nodes, values.shape[1]).index_add(0, self.node, self.spread(values))

    def mean(self, values: Float[Tensor, " positions h"]) -> Float[Tensor, " nodes h"]:
        """For each channel, the mean over its positions; zero where it has none."""
        counts = torch.bincount(self.node, minlength=self.nodes).clamp(min=1)
        return self.total(values) / counts[:, None]

    def largest(self, values: Float[Tensor, " positions h"]) -> Float[Tensor, " nodes h"]:
        """For each channel, the maximum over its positions; zero where it has none."""
        found = values.new_zeros(self.nodes, values.shape[1])
        index = self.node[:, None].expand(-1, values.shape[1])
        return found.scatter_reduce(0, index, self.spread(values), "amax", include_self=False)

    def product(self, values: Float[Tensor, " nodes"]) -> Float[Tensor, " positions"]:
        """For each position, the product over its channels; one where it has none."""
        return values.new_ones(self.positions).scatter_reduce(0, self.position, values[self.node], "prod")

    def to(self, device: torch.device) -> Incidence:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("position", "node", "place", "among")}
        return replace(self, **moved)


def incidence(terms: Sequence[Term], offsets: Mapping[str, int], nodes: int) -> Incidence:
    """The incidence of dimensions whose positions follow one another.

    Args:
        terms: One per dimension.
        offsets: Name of an axis -> the number of its first channel.
        nodes: The number of channels of all axes.
    """
    position, node, place = ([torch.zeros(0, dtype=torch.int64)] for _ in range(3))
    start = 0
    for term in terms:
        for index, leaf in enumerate(leaves(term)):
            position.append(leaf.position + start)
            node.append(leaf.channel + offsets[leaf.axis.name])
            place.append(torch.full_like(leaf.channel, min(index, PLACES - 1)))
        start += size(term)
    joined = torch.cat(position)
    among = torch.bincount(joined, minlength=start)[joined]
    return Incidence(start, nodes, joined, torch.cat(node), torch.cat(place), among)
