"""Pooling and resizing: batch and channels pass on, the picture gets a new size."""

from __future__ import annotations

from metaprune.graph.call import Call, Dims, constants, rule
from metaprune.graph.rules.elementwise import broadcast
from metaprune.graph.unify import Factors, Variable, measure, resolve, split_right

__all__ = []

_POOLS = [f"aten.{kind}_pool{n}d" for n in (1, 2, 3) for kind in ("max", "avg", "adaptive_avg", "adaptive_max")]
_RESIZES = ["nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "bicubic2d", "trilinear3d"]
_EXACT = [f"aten._upsample_nearest_exact{n}d" for n in (1, 2, 3)]
_SMOOTHED = ["aten._upsample_bilinear2d_aa", "aten._upsample_bicubic2d_aa"]


@rule(
    *_POOLS,
    *(f"aten.max_pool{n}d_with_indices" for n in (1, 2, 3)),
    *(f"aten.upsample_{kind}" for kind in _RESIZES),
    *(f"aten.upsample_{kind}_vec" for kind in _RESIZES),
    *_EXACT,
    *_SMOOTHED,
)
def resize(call: Call) -> object:
    """The last dimensions are a picture of another size."""
    dims = call.operands()[0]
    values = call.node.meta["val"]
    first = values[0] if isinstance(values, list | tuple) else values
    space = int(next(digit for digit in call.name if digit.isdigit()))
    for dim in dims[-space:]:
        call.fix(dim, f"{call.name} runs over it")
    result = (*dims[:-space], *constants(first.shape[-space:]))
    return [result] * len(values) if isinstance(values, list | tuple) else result


@rule("aten.max_unpool2d", "aten.max_unpool3d")
def unpool(call: Call) -> Dims:
    """Maxima go back to the positions, in a picture, that pooling noted; channels pass on."""
    rank = int(call.name[-2])
    values, positions = call.tensor("self"), call.tensor("indices")
    for dim in (*values[-rank:], *positions[-rank:]):
        call.fix(dim, f"{call.name} runs over it")
    return (*broadcast([values, positions])[:-rank], *constants(call.shape[-rank:]))


@rule("aten.grid_sampler")
def sample(call: Call) -> Dims:
    """The picture (N, C, …) is read at the places that a grid (N, …, 2 or 3) names."""
    batch, channel, *space = call.tensor("input")
    grid_batch, *places, coordinate = call.tensor("grid")
    for dim in (*space, coordinate):
        call.fix(dim, f"{call.name} reads positions in it")
    return (*broadcast([(batch,), (grid_batch,)]), channel, *places)


@rule("aten.affine_grid_generator")
def affine_grid(call: Call) -> Dims:
    """Positions (N, …, 2 or 3) from affine maps (N, 2, 3) or (N, 3, 4)."""
    batch, *matrix = call.tensor("theta")
    for dim in matrix:
        call.fix(dim, "it is a size of an affine map of the picture")
    return (batch, *constants(call.shape[1:]))


@rule("aten.pixel_shuffle")
def pixel_shuffle(call: Call) -> Dims:
    """(c r r, H, W) -> (c, H r, W r)."""
    *batch, channel, height, width = call.tensor("self")
    for dim in (height, width):
        call.fix(dim, "pixel shuffle runs over it")
    left, inside = split_right(channel, int(call["upscale_factor"]) ** 2)
    call.fix(inside, "pixel shuffle spreads it over the picture")
    return (*batch, left, *constants(call.shape[-2:]))


@rule("aten.pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Dims:
    """(c, H r, W r) -> (c r r, H, W)."""
    *batch, channel, height, width = call.tensor("self")
    for dim in (height, width):
        call.fix(dim, "pixel unshuffle runs over it")
    factor = Variable(int(call["downscale_factor"]) ** 2, "pixel unshuffle gathers it from the picture")
    return (*batch, resolve(Factors((channel, factor))), *constants(call.shape[-2:]))


@rule("aten.channel_shuffle")
def channel_shuffle(call: Call) -> Dims:
    """Groups x rest, transposed to rest x groups (dimension 1)."""
    batch, channel, *space = call.tensor("self")
    groups, rest = split_right(channel, measure(channel) // int(call["groups"]))
    call.number(None, groups=groups)
    call.size(groups, "groups")
    return (batch, resolve(Factors((rest, groups))), *space)
