"""Picking: entries chosen or written to by position, and windows; what is picked from is fixed, the others pass on."""

from __future__ import annotations

import torch
from torch import fx

from metaprune.graph.call import Call, Dims, constants, rule
from metaprune.graph.rules.elementwise import broadcast, pointwise
from metaprune.graph.rules.layout import entry
from metaprune.graph.unify import (
    UNIT,
    Factors,
    Irreconcilable,
    measure,
    resolve,
    split_right,
    unify,
)

__all__ = []

_SAME = ("aten.expand", "aten.to.", "aten.alias", "aten.contiguous", "aten.clone", "aten.detach")


@rule("aten.index_select")
def index_select(call: Call) -> Dims:
    """Entries picked by position: the dimension is fixed."""
    dims = call.tensor("self")
    dim = call.dim("dim", len(dims))
    call.fix(dims[dim], "single entries of it are picked by position")
    return (*dims[:dim], *constants([call.shape[dim]]), *dims[dim + 1 :])


@rule("aten.index")
def index(call: Call) -> object:
    """Entries picked by tensors of positions, or by a mask: the dimensions picked from are fixed."""
    masks = [place for place, node in enumerate(call["indices"]) if _is_mask(node)]
    if not masks:
        return _picked(call)
    if len(call["indices"]) > masks[0] + 1:
        return call.unknown(f"{call.name} with a mask among several indices is not understood")
    first, dims = masks[0], call.tensor("self")
    mask = call.of(call["indices"][first])
    for dim in (*dims[first : first + len(mask)], *mask):
        call.fix(dim, "its entries are picked by a mask")
    return (*dims[:first], *constants([call.shape[first]]), *dims[first + len(mask) :])


@rule("aten.where")
def where(call: Call) -> object:
    """As pointwise; of a condition alone, the positions where it is true: their order matters."""
    return pointwise(call) if "self" in call.arguments else call.unknown("positions in it are looked up")


@rule("aten.index_put")
def index_put(call: Call) -> Dims:
    """Entries written over by position: those dimensions are fixed. Where a mask says so: equal to the mask's."""
    broadcast([_picked(call), call.tensor("values")])
    return call.tensor("self")


def _is_mask(index: fx.Node | None) -> bool:
    return index is not None and index.meta["val"].dtype == torch.bool


def _picked(call: Call) -> Dims:
    """What the indices pick: in the place of the dimensions picked from, or in front where those lie apart."""
    dims = call.tensor("self")
    given = {place: node for place, node in enumerate(call["indices"]) if node is not None}
    places = sorted(given)
    if any(map(_is_mask, given.values())):
        if len(places) > 1:
            raise Irreconcilable("a mask among several indices")
        mask = call.of(given[places[0]])
        places = list(range(places[0], places[0] + len(mask)))
        broadcast([tuple(dims[place] for place in places), mask])
        picked: Dims = (UNIT,)
    elif len(places) == 1 and given[places[0]] in call.values:
        entry(call, dims[places[0]], int(call.values[given[places[0]]]), written=True)
        picked = call.of(given[places[0]])
    else:
        for place in places:
            call.fix(dims[place], "single entries of it are picked by position")
        picked = broadcast([call.of(node) for node in given.values()])
    before = dims[: places[0]] if places == list(range(places[0], places[-1] + 1)) else ()
    return (*before, *picked, *(dim for place, dim in enumerate(dims) if place >= len(before) and place not in places))


@rule("aten.gather")
def gather(call: Call) -> Dims:
    """In one dimension entries are picked by position: it is fixed; the others are equal."""
    dims, index = call.tensor("self"), call.tensor("index")
    if not dims or not index:
        return index
    picked = call.dim("dim", len(dims))
    call.fix(dims[picked], "single entries of it are picked by position")
    _side_by_side(call, picked, dims, index)
    return index


@rule("aten.take_along_dim")
def take_along_dim(call: Call) -> Dims:
    """As gather, but that the other dimensions broadcast."""
    dims, index = call.tensor("self"), call.tensor("indices")
    if call.get("dim") is None:
        for dim in dims:
            call.fix(dim, "single entries of it are picked by position")
        return index
    picked = call.dim("dim", len(dims))
    call.fix(dims[picked], "single entries of it are picked by position")
    others = broadcast([(*dims[:picked], UNIT, *dims[picked + 1 :]), (*index[:picked], UNIT, *index[picked + 1 :])])
    return (*others[:picked], index[picked], *others[picked + 1 :])


@rule("aten.bucketize", "aten.searchsorted", "aten.isin")
def placed(call: Call) -> Dims:
    """For each entry where it lies among others, or whether: those others have an order, or are compared one by one."""
    entries, others = ("elements", "test_elements") if call.name == "aten.isin" else ("self", "boundaries")
    others = "sorted_sequence" if "sorted_sequence" in call.arguments else others
    for dim in call.tensor(others):
        call.fix(dim, f"{call.name} looks entries up in it")
    return call.tensor(entries)


@rule("aten.scatter", "aten.scatter_add", "aten.scatter_reduce")
def scatter(call: Call) -> Dims:
    """In one dimension entries are written to by position: it is fixed; the others are equal."""
    dims, index = call.tensor("self"), call.tensor("index")
    if not dims or not index:
        return dims
    written = call.dim("dim", len(dims))
    call.fix(dims[written], "single entries of it are written to by position")
    _side_by_side(call, written, dims, index)
    if isinstance(call.get("src"), fx.Node):
        _side_by_side(call, len(dims), call.tensor("src"), index)
    return dims


def _side_by_side(call: Call, spared: int, dims: Dims, index: Dims) -> None:
    """Dimensions, but for one, of which an index of the same rank covers all, or the first entries."""
    for place, (ours, theirs) in enumerate(zip(dims, index, strict=True)):
        if place == spared:
            continue
        if measure(ours) == measure(theirs):
            unify(ours, theirs)
        else:
            for dim in (ours, theirs):
                call.fix(dim, "only its first entries are used")


@rule("aten.index_add", "aten.index_copy", "aten.index_reduce", "aten.index_fill")
def index_add(call: Call) -> object:
    """Whole slices are written to by position: that dimension is fixed, the others are equal."""
    dims = call.tensor("self")
    if not dims or call.get("alpha", 1) != 1:
        return call.unknown(f"{call.name} of a scalar, or with a factor, is not understood")
    dim = call.dim("dim", len(dims))
    call.fix(dims[dim], "single entries of it are written to by position")
    if (source := call.optional("source")) is not None:
        given = (*dims[:dim], resolve(Factors(call.tensor("index"))), *dims[dim + 1 :])
        for ours, theirs in zip(given, source, strict=True):
            unify(ours, theirs)
    return dims


@rule("aten.masked_scatter")
def masked_scatter(call: Call) -> object:
    """Entries of source go, in order, where a mask says: equal where the mask only repeats, fixed elsewhere."""
    dims, source = call.tensor("self"), call.tensor("source")
    repeated = min(_repeated_at_the_end(call, call["mask"], len(dims)), len(source))
    if [*map(measure, dims[len(dims) - repeated :])] != [*map(measure, source[len(source) - repeated :])]:
        repeated = 0
    for ours, theirs in zip(dims[len(dims) - repeated :], source[len(source) - repeated :], strict=True):
        unify(ours, theirs)
    broadcast([dims, call.tensor("mask")])
    for dim in (*dims[: len(dims) - repeated], *source[: len(source) - repeated]):
        call.fix(dim, "its entries are written in order where a mask says so")
    return dims


def _repeated_at_the_end(call: Call, node: fx.Node, rank: int) -> int:
    """Of how many of its last dimensions, when it is broadcast to `rank`, a tensor repeats one entry."""
    while str(node.target).startswith(_SAME) and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    dims = (*[UNIT] * rank, *call.of(node))[-rank:]
    return next((count for count, dim in enumerate(reversed(dims)) if measure(dim) > 1), rank)


@rule("aten.unfold")
def unfold(call: Call) -> Dims:
    """Windows along a dimension, which is fixed: how many, in its place, and their extent at the end."""
    dims = call.tensor("self")
    dim = call.dim("dimension", len(dims))
    call.fix(dims[dim], "a window slides over it")
    shape = call.shape
    return (*dims[:dim], *constants([shape[dim]]), *dims[dim + 1 :], *constants(shape[-1:]))


@rule("aten.im2col")
def im2col(call: Call) -> Dims:
    """(N, c, H, W) -> (N, c x window, places)."""
    *batch, channel, height, width = call.tensor("self")
    for dim in (height, width):
        call.fix(dim, "a window slides over it")
    [window] = constants([call["kernel_size"][0] * call["kernel_size"][1]])
    return (*batch, resolve(Factors((channel, window))), *constants(call.shape[-1:]))


@rule("aten.col2im")
def col2im(call: Call) -> Dims:
    """(N, c x window, places) -> (N, c, H, W)."""
    *batch, channel, places = call.tensor("self")
    call.fix(places, "a window slides over it")
    left, window = split_right(channel, call["kernel_size"][0] * call["kernel_size"][1])
    call.fix(window, "it is the extent of a window")
    return (*batch, resolve(left), *constants(call.shape[-2:]))


@rule("aten.diagonal", "aten.linalg_diagonal")
def diagonal(call: Call) -> Dims:
    """Entries of two dimensions with one position in both; the others pass on."""
    argument = "A" if "A" in call.arguments else "self"
    dims = call.tensor(argument)
    default = (-2, -1) if argument == "A" else (0, 1)
    over = {call.dim(name, len(dims), usual) for name, usual in zip(("dim1", "dim2"), default, strict=True)}
    for dim in over:
        call.fix(dims[dim], "entries of it are picked by position")
    reason = f"{call.where}: entries are picked by position"
    return (*(dim for place, dim in enumerate(dims) if place not in over), *constants(call.shape[-1:], reason))


@rule("aten.trace")
def trace(call: Call) -> Dims:
    """The sum of a diagonal: both dimensions are fixed."""
    for dim in call.tensor("self"):
        call.fix(dim, "entries of it are picked by position")
    return ()
