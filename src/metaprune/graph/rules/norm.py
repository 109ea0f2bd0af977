"""Normalisation: each affine or statistic dimension equals the channel dimension."""

from __future__ import annotations

from metaprune.graph.call import Call, Dims, rule
from metaprune.graph.unify import Factors, measure, resolve, split_right, unify

__all__ = []


@rule("aten.batch_norm", "aten.instance_norm", "aten._native_batch_norm_legit_no_training")
def batch_norm(call: Call) -> Dims:
    """Statistics per channel (dimension 1): channels do not see one another.

    Statistics of the input run over all else (batch and picture; the columns of a weight that is standardised so).
    """
    dims = call.tensor("input")
    if call.get("training", False):
        call.reads["input"] = (0, *range(2, len(dims)))
    elif call.get("use_input_stats", False):
        call.reads["input"] = tuple(range(2, len(dims)))
    call.affine(dims[1], "weight", "bias", "running_mean", "running_var")
    named = next((name for name in ("weight", "running_mean") if call.get(name) is not None), None)
    call.number(named, num_features=dims[1])
    return dims


@rule("aten.layer_norm", "aten.rms_norm")
def layer_norm(call: Call) -> Dims:
    """Statistics over the last dimensions, an affine map per entry."""
    dims = call.tensor("input")
    last = len(dims) - len(call["normalized_shape"])
    for argument in ("weight", "bias"):
        if (affine := call.optional(argument)) is not None:
            for ours, theirs in zip(affine, dims[last:], strict=True):
                unify(ours, theirs)
    call.reads["input"] = tuple(range(last, len(dims)))
    named = "weight" if call.get("weight") is not None else None
    call.number(named, **{f"normalized_shape.{i}": dim for i, dim in enumerate(dims[last:])})
    for place, dim in enumerate(dims[last:]):
        call.size(dim, "normalized_shape", place)
    return dims


@rule("aten.group_norm")
def group_norm(call: Call) -> Dims:
    """Channels are groups x rest; statistics over the rest and the picture."""
    batch, channel, *space = call.tensor("input")
    call.affine(channel, "weight", "bias")
    groups, rest = split_right(channel, measure(channel) // call["num_groups"])
    call.reads["input"] = (1, *range(2, 2 + len(space)))
    named = "weight" if call.get("weight") is not None else None
    call.number(named, num_groups=groups, num_channels=channel)
    call.size(groups, "num_groups")
    return (batch, resolve(Factors((groups, rest))), *space)
