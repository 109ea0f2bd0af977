"""Fake quantisation: entry by entry, with one scale, or with one per channel of an axis."""

from __future__ import annotations

from metaprune.graph.call import Call, Dims, rule

__all__ = []


@rule(
    *("aten.fake_quantize_per_tensor_affine", "aten._fake_quantize_learnable_per_tensor_affine"),
    *("aten.fake_quantize_per_channel_affine", "aten._fake_quantize_learnable_per_channel_affine"),
)
def fake_quantise(call: Call) -> Dims:
    """Rounded to a grid; per channel, scales and zero points have one entry for each of a dimension."""
    dims = call.tensor("self")
    if "axis" in call.arguments:
        call.affine(dims[call.dim("axis", len(dims))], "scale", "zero_point")
    return dims


@rule("aten.fused_moving_avg_obs_fake_quant")
def observed(call: Call) -> Dims:
    """The same, with the range observed: over everything, or over all but the channel."""
    dims = call.tensor("self")
    channel = call.dim("ch_axis", len(dims)) if call.get("per_row_fake_quant", False) else None
    if channel is not None:
        call.affine(dims[channel], "running_min", "running_max", "scale", "zero_point")
    call.reads["self"] = tuple(place for place in range(len(dims)) if place != channel)
    return dims
