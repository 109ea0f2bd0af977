"""Whether a network that was loaded is the cut one: by its tensors, its numbers, and what it computes in each call."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaprune.graph.calling import Call
from metaprune.graph.capture import capture
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.infer import Inference, read
from metaprune.graph.objects import open_to_trees
from metaprune.graph.plan import Plan
from metaprune.graph.rehearsal import rehearsal, undisturbed
from metaprune.graph.tensors import named_tensors, plain_tensors
from metaprune.pretrained.configuration import floats_of
from metaprune.pretrained.rotary import frequencies_of, is_spare, same_frequencies
from metaprune.surgery.slice import make_up
from metaprune.surgery.values import moved, with_states_cut
from metaprune.surgery.verify import mismatch
from metaprune.train.checks import said

__all__ = ["carried", "difference", "other_floats", "other_tensors"]

ROUNDINGS = 1000
"""By how many roundings of the largest entry outputs may differ: products are summed in another order."""


def difference(small: nn.Module, loaded: nn.Module, graph: ChannelGraph, plan: Plan, folded: bool) -> str | None:
    """In what a loaded network is other than the cut one, in words; None where it computes the same.

    Args:
        small: The cut network.
        loaded: The other.
        graph: Of the network before the cut.
        plan: What was cut.
        folded: Whether weights of the other have been multiplied to make up for numbers.
    """
    if not folded:
        if (problem := other_tensors(small, loaded, graph.tables)) is not None:
            return problem
        if wrong := other_floats(small, loaded):
            (path, name), (was, would) = next(iter(wrong.items()))
            return f"{path}.{name} would be {would:g} in place of {was:g}"
    for place, call in _calls(small, graph, plan):
        problem = _other_outputs(small, loaded, call)
        if problem is not None:
            return problem + (f" (in the call {graph.passes[place].call})" if place else "")
    return None


def other_floats(small: nn.Module, loaded: nn.Module) -> dict[tuple[str, str], tuple[float, float]]:
    """(module, attribute) -> what the cut network holds there and the other, where they are two."""
    ours, theirs = floats_of(small), floats_of(loaded)
    return {
        key: (ours[key], theirs[key]) for key in ours.keys() & theirs.keys() if not math.isclose(ours[key], theirs[key])
    }


@undisturbed
def carried(small: nn.Module, loaded: nn.Module, graph: ChannelGraph, plan: Plan) -> str | None:
    """Multiply weights of a loaded network, in place, so that its other numbers compute what the cut one's do.

    Code makes numbers of sizes, such as the scale of attention: a network built anew makes them of the new ones.

    Returns:
        Why it cannot be done, in words, or None where it was.
    """
    was, found = (_read(network, graph, plan) for network in (small, loaded))
    return mismatch(was[0].graph, found[0].graph, {}) or make_up(loaded, was[0].graph, found)


def _read(model: nn.Module, graph: ChannelGraph, plan: Plan) -> tuple[Inference, ...]:
    """What a network does in each of the calls that run operators of their own."""
    calls = [call for _, call in _calls(model, graph, plan, training=True)]
    return read(model, [capture(model, call, recorded=False) for call in calls], outputs=graph.outputs)


def _calls(model: nn.Module, graph: ChannelGraph, plan: Plan, training: bool = False) -> list[tuple[int, Call]]:
    """The calls that run operators of their own, as a cut network is called; those of training only if wanted."""
    return [
        (one.place, with_states_cut(moved(model, one.call), one, plan.kept))
        for one in graph.inferences
        if graph.passes[one.place].like is None and (training or not one.call.training)
    ]


def other_tensors(small: nn.Module, loaded: nn.Module, tables: Collection[str]) -> str | None:
    """Which tensor is another, in words; None where all are the same."""
    ours, theirs = (named_tensors(network) | plain_tensors(network, tables) for network in (small, loaded))
    made = frequencies_of(small)
    for name in [name for name in dict.fromkeys([*ours, *theirs]) if not is_spare(name)]:
        if name not in ours or name not in theirs:
            return f"{name} is not there" if name in ours else f"{name} was not there"
        one, other = ours[name].detach(), theirs[name].detach()
        if name in made and same_frequencies(one, other):
            continue
        if one.shape != other.shape or one.dtype != other.dtype:
            return (
                f"{name} would be {tuple(other.shape)} of {other.dtype} in place of {tuple(one.shape)} of {one.dtype}"
            )
        if not torch.equal(one.nan_to_num(), other.to(one.device).nan_to_num()):
            return f"{name} would hold other values"
    return None


@undisturbed
@torch.no_grad()
def _other_outputs(small: nn.Module, loaded: nn.Module, call: Call) -> str | None:
    """How the outputs differ, in words; None where they do not."""
    expected = _outputs(small, moved(small, call))  # a copy: a cache that is given is filled
    try:
        got = _outputs(loaded, moved(loaded, call))
    except Exception as error:  # whatever the code of a network raises
        return f"it cannot be called: {said(error)}"
    if len(expected) != len(got):
        return f"it has {len(got)} outputs in place of {len(expected)}"
    for one, other in zip(expected, got, strict=True):
        if one.shape != other.shape:
            return f"an output would be {tuple(other.shape)} in place of {tuple(one.shape)}"
        other = other.to(one.device)
        if not one.is_floating_point():
            if not torch.equal(one, other):
                return "an output of whole numbers would be another"
            continue
        finite = one.isfinite()
        if not torch.equal(finite, other.isfinite()):
            return "an output is not finite where the cut network's is"
        largest = float(one[finite].abs().max()) if finite.any() else 0.0
        distance = float((one - other)[finite].abs().max()) if finite.any() else 0.0
        if distance > ROUNDINGS * torch.finfo(one.dtype).eps * largest:
            return f"its outputs would differ by {distance / largest:.1e} of the largest"
    return None


def _outputs(model: nn.Module, call: Call) -> list[Tensor]:
    with open_to_trees(), rehearsal(model, False) as actor:
        answer: Any = call.of(actor)
    with open_to_trees(answer):
        return [leaf for leaf in pytree.tree_leaves(answer) if isinstance(leaf, Tensor)]
