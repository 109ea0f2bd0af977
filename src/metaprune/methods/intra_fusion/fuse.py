"""Fuse two networks of one architecture: channels of the second take the places of the first's, and both are averaged.

Source: Theus et al., ICLR 2024, for pruning and fusing networks that were trained on parts of the data; the matching is
that of Singh and Jaggi, Model Fusion via Optimal Transport, NeurIPS 2020, by weights. Departures: the transport of n
channels to n is an assignment, and axes are matched again until nothing changes, each by all the tensors that hold it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from metaprune.graph.arguments import is_number, wanted
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.tensors import in_double, named_tensors, plain_tensors, with_tensors
from metaprune.graph.term import Term, axes_of, channels, leaves
from metaprune.surgery.attention import written_out
from metaprune.surgery.trace import trace

__all__ = ["fuse", "matched"]

Orders = Mapping[str, list[int]]

_MOST_ROUNDS = 20


def fuse(
    one: nn.Module,
    other: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    share: float = 0.5,
    graph: ChannelGraph | None = None,
) -> nn.Module:
    """The average of two networks of one architecture, whose channels were matched first. No data are asked.

    What `other` computes does not change when its channels change places; so they take those of the channels of `one`
    that are most like them. Where a network has running statistics, `mp.recalibrate` the average. Networks that were
    pruned can be fused, too, where their widths are equal (`mp.IntraFusion(mp.Uniform())` makes them so).

    Args:
        one: A network; left untouched.
        other: Another of the same class and widths, with other weights; left untouched.
        args: Example inputs.
        kwargs: Example keyword inputs.
        share: How much of the average is `one`'s.
        graph: From `mp.trace(one, …)`, where it is at hand.

    Returns:
        A copy of `one` with the averages; whole numbers are `one`'s.

    Raises:
        MetapruneError: The networks differ in more than their values, or the share is not inside [0, 1].
    """
    for network in (one, other):
        wanted("fuse", "networks", network, nn.Module, "an nn.Module", MetapruneError)
    if not is_number(share) or not 0 <= share <= 1:
        raise MetapruneError(f"fuse: expected share as a number inside [0, 1], got {share!r}")
    graph = trace(one, args, kwargs) if graph is None else graph
    one, other = written_out(one, graph.written_out), written_out(other, graph.written_out)
    graph.check(one)
    graph.check(other)
    terms = {**graph.tables, **graph.tensors}
    ours = plain_tensors(one, graph.tables) | named_tensors(one)
    theirs = plain_tensors(other, graph.tables) | named_tensors(other)
    orders = matched(one, other, graph)
    averages: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        if tensor.is_floating_point():
            placed = _placed(in_double(theirs[name]), terms[name], orders)
            mean = share * in_double(tensor) + (1 - share) * placed.to(in_double(tensor).device)
            averages[name] = mean.to(tensor)
    return with_tensors(one, averages)


def matched(one: nn.Module, other: nn.Module, graph: ChannelGraph) -> dict[str, list[int]]:
    """For each free axis the order in which the channels of `other` are most like those of `one`.

    In order of execution each axis is assigned so that the inner products of its channels' slices, summed over all
    parameters, each relative to its size, are largest. The first time round, dimensions whose axes are not matched yet
    are sorted, so that their order does not count; then all is done again until nothing changes.
    """
    ours, theirs = (
        {name: in_double(tensors[name]).cpu() for name in graph.parameters if tensors[name].is_floating_point()}
        for tensors in (named_tensors(one), named_tensors(other))
    )
    holders = {
        axis: [
            name for name in ours if any(axis == held.name for term in graph.tensors[name] for held in axes_of(term))
        ]
        for axis in graph.free
    }
    orders: dict[str, list[int]] = {}
    for _ in range(_MOST_ROUNDS):
        before = dict(orders)
        for axis, names in holders.items():
            unknown = graph.free.keys() - orders.keys()
            likeness = torch.zeros(graph.axes[axis].size, graph.axes[axis].size, dtype=torch.float64)
            for name in names:
                likeness += _likeness(ours[name], theirs[name], graph.tensors[name], axis, orders, unknown)
            orders[axis] = linear_sum_assignment(likeness.numpy(), maximize=True)[1].tolist()
        if orders == before:
            break
    return orders


def _likeness(
    ours: Tensor, theirs: Tensor, terms: tuple[Term, ...], axis: str, orders: Orders, unknown: Set[str]
) -> Float[Tensor, " size size"]:
    """⟨slice i of ours, slice j of theirs⟩ along an axis, relative to the size of both tensors."""
    theirs = _placed(theirs, terms, {name: order for name, order in orders.items() if name != axis})
    mine = _slices(ours, terms, axis, unknown, {})
    other = _slices(theirs, terms, axis, unknown, {axis: orders[axis]} if axis in orders else {})
    size = float(torch.linalg.vector_norm(ours) * torch.linalg.vector_norm(theirs))
    return mine @ other.T / max(size, 1e-300)


def _slices(
    tensor: Tensor, terms: tuple[Term, ...], axis: str, unknown: Set[str], order: Orders
) -> Float[Tensor, " size entries"]:
    """What a tensor holds of each channel; along dimensions of unknown order its entries are sorted.

    Where the axis is in other dimensions too, they are put in its order so far, or sorted where there is none.
    """
    found: list[Tensor] = []
    for dim, term in enumerate(terms):
        for positions in leaves(term, axis):
            size, repeats = positions.shape
            rest = [other for place, other in enumerate(terms) if place != dim]
            entries = tensor.movedim(dim, 0)[positions.flatten()]
            entries = entries.reshape(size, repeats, *entries.shape[1:])
            if any(one.name in unknown and one.name != axis for one in axes_of(term)):
                entries = entries.sort(1).values
            for place, other in enumerate(rest, 2):
                inside = {one.name for one in axes_of(other)}
                if inside & unknown:
                    entries = entries.sort(place).values
                elif order and axis in inside:
                    entries = entries.index_select(place, channels(other, order))
            found.append(entries.reshape(size, -1))
    return torch.cat(found, 1)


def _placed(tensor: Tensor, terms: tuple[Term, ...], orders: Orders) -> Tensor:
    """A tensor whose channels are put in other orders."""
    for dim, term in enumerate(terms):
        if any(axis.name in orders for axis in axes_of(term)):
            tensor = tensor.index_select(dim, channels(term, orders).to(tensor.device))
    return tensor
