"""A plan over the axes of one graph, over those of another of the same network.

How a network is called decides how finely its dimensions are divided, and what the pieces are named after. What is the
same is the tensors: a plan says which of their entries stay.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from metaprune.graph.errors import PlanError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.infer import Inference
from metaprune.graph.term import Term, axes_of, channels, places, size

__all__ = ["translated"]

Kept = Mapping[str, tuple[int, ...]]


def translated(graph: ChannelGraph, inference: Inference, kept: Kept) -> Kept:
    """For each axis that is cut in another graph of the same network, the channels that stay.

    Args:
        graph: What `kept` is over.
        inference: Read from the same network in another call.
        kept: Axis -> the channels that stay.

    Raises:
        PlanError: Some of what `kept` cuts cannot be cut where the network is called like that.
    """
    other = inference.graph
    if other is graph or not kept or other.tensors is graph.tensors:
        return kept
    cut = {name for name, stays in kept.items() if len(stays) < graph.axes[name].size}
    pairs = list(
        dict.fromkeys(
            (ours, theirs)
            for name, terms in graph.tensors.items()
            for ours, theirs in zip(terms, other.tensors[name], strict=True)
            if any(axis.name in cut for axis in axes_of(ours))
        )
    )
    result: dict[str, tuple[int, ...]] = {}
    for ours, theirs in pairs:
        stays = torch.zeros(size(ours), dtype=torch.bool)
        stays[channels(ours, kept)] = True
        for axis in axes_of(theirs):
            if axis.name and axis.name not in result:
                held = places(theirs, axis.name)
                result[axis.name] = tuple(sorted(set(held[stays & (held >= 0)].tolist())))
    result = {name: stays for name, stays in result.items() if len(stays) < other.axes[name].size}
    for name in result:
        if (reason := other.axes[name].fixed) is not None:
            raise PlanError(_words(name, inference, reason))
    for ours, theirs in _all_pairs(graph, other, cut, result):
        if not torch.equal(channels(ours, kept), channels(theirs, result)):
            name = next((axis.name for axis in axes_of(ours) if axis.name in cut), "an axis")
            raise PlanError(_words(name, inference, "there it is one with others, or divided otherwise"))
    return result


def _all_pairs(graph: ChannelGraph, other: ChannelGraph, cut: set[str], result: Kept) -> list[tuple[Term, Term]]:
    return [
        (ours, theirs)
        for name, terms in graph.tensors.items()
        for ours, theirs in zip(terms, other.tensors[name], strict=True)
        if any(axis.name in cut for axis in axes_of(ours)) or any(axis.name in result for axis in axes_of(theirs))
    ]


def _words(name: str, inference: Inference, reason: str) -> str:
    return (
        f"mask: the plan cuts {name!r}, which cannot be cut where the network is called as {inference.call}: {reason}; "
        "trace it with this call too: mp.trace(model, args, calls=(mp.Call(...),))"
    )
