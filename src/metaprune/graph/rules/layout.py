"""Layout: operators that move, split and join dimensions without computing anything."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from metaprune.graph.call import Call, Dims, constants, rule
from metaprune.graph.provenance import Attribute, Combined, Extent
from metaprune.graph.rules.elementwise import broadcast
from metaprune.graph.unify import (
    EMPTY,
    UNIT,
    Factors,
    Irreconcilable,
    Parts,
    Shape,
    Variable,
    cut,
    factor,
    measure,
    resolve,
    split_right,
    unify,
    variables,
)

__all__ = ["entry", "equal_pieces"]

_LAST = 2**62  # slices that run to the end carry a huge stop


def equal_pieces(call: Call, dim: Shape, count: int) -> Shape:
    """One of `count` equal pieces of a dimension: the pieces keep the same channels, or could not stay equal."""
    pieces, piece = split_right(dim, measure(dim) // count)
    call.fix(pieces, "it counts the pieces of a split")
    return resolve(piece)


@rule("aten.view", "aten.reshape", "aten._unsafe_view", "aten.unflatten", "aten.flatten", "aten._reshape_copy")
@rule("aten.ravel", "aten.view_copy")
def reshape(call: Call) -> Dims:
    """Row-major: an axis that is split becomes a product, axes that are joined too."""
    result = _laid_out(call)
    argument = next((name for name in ("size", "shape", "sizes") if call.get(name) is not None), None)
    if argument is not None:
        first = call.dim("dim", len(call.tensor("self")), 0) if call.name == "aten.unflatten" else 0
        for place in range(len(call[argument])):
            call.size(result[first + place], argument, place)
    return tuple(result)


@rule("aten.reshape_as", "aten.view_as")
def reshape_as(call: Call) -> Dims:
    """Laid out like another tensor, whose sizes are taken."""
    return broadcast([tuple(_laid_out(call)), call.tensor("other")])


def _laid_out(call: Call) -> list[Shape]:
    """As `factor`; where that fails, runs of dimensions that hold the same entries are laid out one by one."""
    dims, sizes = call.tensor("self"), call.shape
    try:
        return factor(dims, sizes)
    except Irreconcilable as error:
        result: list[Shape] = []
        for given, wanted in _runs(dims, sizes):
            try:
                result += factor(given, wanted)
            except Irreconcilable:
                for dim in given:
                    call.fix(dim, f"its entries are laid out anew: {error}")
                result += constants(wanted)
        return result


def _runs(dims: Dims, sizes: Sequence[int]) -> Iterator[tuple[Dims, Sequence[int]]]:
    """The shortest runs of dimensions, and of the sizes they get, that hold equally many entries."""
    first = start = 0
    for stop in range(1, len(sizes) + 1):
        held = math.prod(sizes[start:stop])
        last = next((i for i in range(first, len(dims) + 1) if math.prod(map(measure, dims[first:i])) == held), None)
        if last is not None and (stop < len(sizes) or last == len(dims)):
            yield dims[first:last], sizes[start:stop]
            first, start = last, stop
    if first < len(dims) or start < len(sizes):
        yield dims[first:], sizes[start:]


@rule("aten.permute")
def permute(call: Call) -> Dims:
    """Dimensions in another order."""
    dims = call.tensor("self")
    return tuple(dims[dim] for dim in call["dims"])


@rule("aten.transpose", "aten.swapaxes", "aten.swapdims")
def transpose(call: Call) -> Dims:
    """Two dimensions change places."""
    dims = list(call.tensor("self"))
    first, second = (value for name, value in call.arguments.items() if name != "self")
    dims[first], dims[second] = dims[second], dims[first]
    return tuple(dims)


@rule("aten.numpy_T")
def reversed_(call: Call) -> Dims:
    """All dimensions in the other order: `x.T`, which PyTorch frowns on where there are more than two."""
    return tuple(reversed(call.tensor("self")))


@rule("aten.t", "aten.mT", "aten.adjoint", "aten.mH")
def matrix_transpose(call: Call) -> Dims:
    """The last two dimensions change places."""
    dims = call.tensor("self")
    return dims if len(dims) < 2 else (*dims[:-2], dims[-1], dims[-2])


@rule("aten.movedim", "aten.moveaxis")
def movedim(call: Call) -> Dims:
    """Dimensions are moved to new places."""
    dims = call.tensor("self")
    rank = len(dims)
    source, target = (
        [int(dim) % rank for dim in (given if isinstance(given, list | tuple) else [given])]
        for given in (call["source"], call["destination"])
    )
    order = [dim for dim in range(rank) if dim not in source]
    for place, dim in sorted(zip(target, source, strict=True)):
        order.insert(place, dim)
    return tuple(dims[dim] for dim in order)


@rule("aten.squeeze")
def squeeze(call: Call) -> Dims:
    """Dimensions of size 1 go."""
    dims = call.tensor("self")
    given = call.get("dim", list(range(len(dims))))
    gone = {int(dim) % len(dims) for dim in (given if isinstance(given, list | tuple) else [given])}
    return tuple(dim for i, dim in enumerate(dims) if i not in gone or measure(dim) > 1)


@rule("aten.unsqueeze")
def unsqueeze(call: Call) -> Dims:
    """A dimension of size 1 comes."""
    dims = call.tensor("self")
    place = call.dim("dim", len(dims) + 1)
    return (*dims[:place], UNIT, *dims[place:])


@rule("aten.expand")
def expand(call: Call) -> Dims:
    """Dimensions of size 1 are repeated: a new axis of equal channels."""
    shape, dims = call.shape, call.tensor("self")
    result: list[Shape] = list(constants(shape[: len(shape) - len(dims)]))
    for size, dim in zip(shape[len(shape) - len(dims) :], dims, strict=True):
        result.append(dim if measure(dim) == size else Variable(size))
    for place in range(len(call["size"])):
        call.size(result[place], "size", place)
    return tuple(result)


@rule("aten.repeat", "aten.tile")
def repeat(call: Call) -> Dims:
    """Whole dimensions one after the other."""
    shape, dims = call.shape, call.tensor("self")
    padded = [UNIT] * (len(shape) - len(dims)) + list(dims)
    times = [Variable(size // measure(dim)) for size, dim in zip(shape, padded, strict=True)]
    argument = "repeats" if "repeats" in call.arguments else "dims"
    for place in range(len(call[argument])):
        call.size(times[place - len(call[argument])], argument, place)
    return tuple(resolve(Factors((count, dim))) for count, dim in zip(times, padded, strict=True))


@rule("aten.repeat_interleave")
def repeat_interleave(call: Call) -> object:
    """Each entry several times in a row."""
    if not isinstance(call.get("repeats"), int):
        return call.unknown("repeat_interleave with a tensor of counts is not understood")
    dims = list(call.tensor("self"))
    if call.get("dim") is None:
        dims = [resolve(Factors(tuple(dims)))]
    dim = call.dim("dim", len(dims), 0)
    times = Variable(call["repeats"])
    call.size(times, "repeats")
    dims[dim] = resolve(Factors((dims[dim], times)))
    return tuple(dims)


@rule("aten.cat", "aten.concat", "aten.concatenate")
def concatenate(call: Call) -> Dims:
    """One dimension is a concatenation, the others are equal."""
    operands = [call.of(node) for node in call["tensors"]]
    operands = [dims for dims in operands if not (len(dims) == 1 and measure(dims[0]) == 0)]
    dim = call.dim("dim", len(operands[0]), 0)
    others = broadcast([(*dims[:dim], UNIT, *dims[dim + 1 :]) for dims in operands])
    joined = resolve(Parts(tuple(dims[dim] for dims in operands)))
    return (*others[:dim], joined, *others[dim + 1 :])


@rule("aten.vstack", "aten.row_stack", "aten.hstack", "aten.column_stack", "aten.dstack")
def concatenate_at_least(call: Call) -> Dims:
    """Concatenations along a dimension that is theirs, of tensors of at least as many dimensions as that takes."""
    rank, place = {"vstack": (2, 0), "row_stack": (2, 0), "hstack": (1, 1), "column_stack": (2, 1), "dstack": (3, 2)}[
        call.name.removeprefix("aten.")
    ]
    operands = [call.of(node) for node in call["tensors"]]
    if call.name == "aten.column_stack":
        operands = [dims if len(dims) > 1 else (*dims, UNIT)[:2] for dims in operands]
    if call.name == "aten.dstack":
        operands = [(*dims, UNIT) if len(dims) in (1, 2) else dims for dims in operands]
    operands = [(*[UNIT] * (rank - len(dims)), *dims) for dims in operands]
    place = min(place, len(operands[0]) - 1)
    others = broadcast([(*dims[:place], UNIT, *dims[place + 1 :]) for dims in operands])
    return (*others[:place], resolve(Parts(tuple(dims[place] for dims in operands))), *others[place + 1 :])


@rule("aten.block_diag")
def block_diagonal(call: Call) -> Dims:
    """Matrices side by side along both dimensions, with zeros elsewhere."""
    operands = [(*[UNIT] * (2 - len(dims)), *dims) for dims in (call.of(node) for node in call["tensors"])]
    rows, columns = (resolve(Parts(tuple(dims[place] for dims in operands))) for place in (0, 1))
    return (rows, columns)


@rule("aten.diag_embed", "aten.diag")
def diagonal_matrix(call: Call) -> object:
    """A vector on the diagonal of a square: its rows and columns are its entries."""
    *lead, entries = call.tensor("self")
    square = (call.get("offset", 0), call.get("diagonal", 0), call.get("dim1", -2), call.get("dim2", -1))
    if square != (0, 0, -2, -1) or (call.name == "aten.diag" and lead):
        return call.unknown(f"{call.name} of another diagonal is not understood")
    return (*lead, entries, entries)


@rule("aten.diagflat")
def diagonal_of_all(call: Call) -> object:
    """All entries, in order, on the diagonal of a square."""
    if call.get("offset", 0):
        return call.unknown(f"{call.name} of another diagonal is not understood")
    entries = resolve(Factors(call.tensor("self")))
    return (entries, entries)


@rule("aten.atleast_1d", "aten.atleast_2d", "aten.atleast_3d")
def at_least(call: Call) -> object:
    """Dimensions of size 1 are put before (of three, for a vector one is put behind, for a matrix too)."""
    rank = int(call.name[-2])

    def raised(dims: Dims) -> Dims:
        if rank == 3 and len(dims) in {1, 2}:
            dims = (*dims, UNIT)
        return (*[UNIT] * (rank - len(dims)), *dims)

    if "tensors" in call.arguments:
        return [raised(call.of(node)) for node in call["tensors"]]
    return raised(call.tensor("self"))


@rule("aten.slice_scatter")
def slice_scatter(call: Call) -> Dims:
    """A piece of a dimension is written over: the others, and the piece, are equal."""
    dims, source = call.tensor("self"), call.tensor("src")
    dim = call.dim("dim", len(dims), 0)
    piece = slice_(call)
    for ours, theirs in zip(piece, source, strict=True):
        unify(ours, theirs)
    return tuple(resolve(given) if place == dim else given for place, given in enumerate(dims))


@rule("aten.select_scatter")
def select_scatter(call: Call) -> Dims:
    """One entry of a dimension is written over."""
    dims = list(call.tensor("self"))
    dim = call.dim("dim", len(dims))
    whole = _entry(call, dims[dim])
    for ours, theirs in zip((*dims[:dim], *dims[dim + 1 :]), call.tensor("src"), strict=True):
        unify(ours, theirs)
    dims[dim] = resolve(whole)
    return tuple(dims)


@rule("aten.view_as_complex")
def view_as_complex(call: Call) -> Dims:
    """The last dimension holds real and imaginary parts."""
    *dims, parts = call.tensor("self")
    call.fix(parts, "it holds real and imaginary parts")
    return tuple(dims)


@rule("aten.view_as_real")
def view_as_real(call: Call) -> Dims:
    """A dimension of real and imaginary parts comes last."""
    return (*call.tensor("self"), *constants([2], f"{call.where}: it holds real and imaginary parts"))


@rule("aten.stack")
def stack(call: Call) -> Dims:
    """A new dimension counts the tensors."""
    dims = broadcast([call.of(node) for node in call["tensors"]])
    place = call.dim("dim", len(dims) + 1, 0)
    count = constants([len(call["tensors"])], f"{call.where}: it counts stacked tensors")
    return (*dims[:place], *count, *dims[place:])


@rule("aten.pad", "aten.constant_pad_nd")
def pad(call: Call) -> object:
    """Zeros before and after: a concatenation with channels that nobody fills."""
    dims = list(call.tensor("self"))
    amounts: Sequence[int] = call["pad"]
    for place in range(len(amounts) // 2):
        dim = len(dims) - 1 - place
        before, after = amounts[2 * place], amounts[2 * place + 1]
        if not before and not after:
            continue
        if before < 0 or after < 0 or call.get("mode", "constant") != "constant" or call.get("value", 0):
            call.fix(dims[dim], "padding that is not with zeros mixes it")
        held = list(variables(dims[dim]))
        if held and all(variable.fixed for variable in held):
            dims[dim] = constants([call.shape[dim]])[0]
        else:
            sides = [Variable(before), dims[dim], Variable(after)]
            call.size(sides[0], "pad", 2 * place)
            call.size(sides[2], "pad", 2 * place + 1)
            dims[dim] = resolve(Parts(tuple(side for side in sides if measure(side))))
    return tuple(dims)


@rule(
    "aten.split",
    "aten.split_with_sizes",
    "aten.chunk",
    "aten.unsafe_chunk",
    "aten.unsafe_split",
    "aten.tensor_split",
    "aten.hsplit",
    "aten.vsplit",
    "aten.dsplit",
)
def split(call: Call) -> list[Dims]:
    """Pieces of one size stay equal; pieces whose sizes were listed are a concatenation.

    Pieces of one size but for the last, which is what is left, would not be that many at other sizes.
    """
    dims = call.tensor("self")
    own = {"aten.vsplit": 0, "aten.hsplit": min(1, len(dims) - 1), "aten.dsplit": 2}
    dim = call.dim("dim", len(dims), own.get(call.name, 0))
    sizes = [int(value.shape[dim]) for value in call.node.meta["val"]]
    listed = next((name for name in ("split_sizes", "split_size", "sections", "indices") if name in call.arguments), "")
    if len(set(sizes)) == 1 and call.name != "aten.split_with_sizes" and not isinstance(call.get(listed), list):
        pieces: list[Shape] = [equal_pieces(call, dims[dim], len(sizes))] * len(sizes)
        if "split_size" in call.arguments:
            call.size(pieces[0], listed)
    elif isinstance(call.get(listed), list):
        pieces = cut(dims[dim], [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)])
        if listed.startswith("split"):
            for place, piece in enumerate(pieces):
                call.size(piece, listed, place)
        else:
            call.literal = True
    else:
        listed = ", ".join(map(str, sizes))
        call.fix(dims[dim], f"it is split into uneven pieces ({listed})")
        pieces = list(constants(sizes, f"{call.where}: it is one of uneven pieces ({listed})"))
    return [(*dims[:dim], piece, *dims[dim + 1 :]) for piece in pieces]


@rule("aten.slice", "aten.narrow", "aten.narrow_copy")
def slice_(call: Call) -> Dims:
    """A dimension is cut at two positions; a stride picks single entries and fixes it."""
    dims = call.tensor("self")
    dim = call.dim("dim", len(dims), 0)
    total = measure(dims[dim])
    start = call.get("start", 0)
    start = max(start + total, 0) if start < 0 else min(start, total)
    stop = start + call["length"] if "length" in call.arguments else call.get("end", _LAST)
    stop = stop + total if stop < 0 else min(stop, total)
    if (step := call.get("step", 1)) != 1:
        piece: Shape = _every(call, step, dims[dim]) if start < step and stop == total else EMPTY
        if piece == EMPTY:
            call.fix(dims[dim], "a strided slice picks single entries of it")
            piece = constants([call.shape[dim]])[0]
    elif start >= stop:
        piece = EMPTY
        if start == total:
            call.size(dims[dim], "start")
    elif (start, stop) == (0, total):
        piece = dims[dim]
        call.size(piece, "length" if "length" in call.arguments else "end")
    else:
        pieces = cut(dims[dim], [bound for bound in (start, stop) if 0 < bound < total])
        piece = pieces[1 if start else 0]
        before, after = Parts(tuple(pieces[: 1 if start else 0])), Parts(tuple(pieces[2 if start else 1 :]))
        if start:
            call.size(before if call["start"] > 0 else Parts((piece, *after.of)), "start")
        if "length" in call.arguments:
            call.size(piece, "length")
        elif stop < total:
            call.size(Parts((*before.of, piece)) if call["end"] > 0 else after, "end")
        elif isinstance(call.number_at("end", None, total), Attribute | Combined | Extent):
            call.size(Parts((*before.of, piece)), "end")  # written down, it would be the end whatever is cut
    return (*dims[:dim], resolve(piece), *dims[dim + 1 :])


def _every(call: Call, step: int, dim: Shape) -> Shape:
    """What each stride over a dimension has one entry of, where strides divide it; else `EMPTY`."""
    try:
        strides, inside = split_right(dim, step)
    except Irreconcilable:
        return EMPTY
    call.fix(inside, "a strided slice picks single entries of it")
    return resolve(strides)


@rule("aten.select")
def select(call: Call) -> Dims:
    """One entry of a dimension stays; the others are fixed but where it is counted from an end that has it."""
    dims = call.tensor("self")
    dim = call.dim("dim", len(dims))
    _entry(call, dims[dim])
    return (*dims[:dim], *dims[dim + 1 :])


def _entry(call: Call, dim: Shape) -> Shape:
    place = int(call["index"])
    return entry(call, dim, place, isinstance(call.number_at("index", None, place), int | None))


def entry(call: Call, dim: Shape, place: int, written: bool) -> Shape:
    """A dimension of which one entry is picked; of a concatenation it is taken out, if what lies between it and the
    end that it is counted from stays whole. The rest of it, and what is no concatenation, is fixed.

    Args:
        call: The call that picks it.
        dim: The dimension.
        place: Its position, from the end if negative.
        written: Whether the code holds that position as a plain number.
    """
    total = measure(dim)
    if written and isinstance(resolve(dim), Parts):
        bounds = [place, place + 1] if place >= 0 else [total + place, total + place + 1]
        between = (0, place) if place >= 0 else (total + place + 1, total)
        if all(variable.fixed or variable.size < 2 for variable in _within(resolve(dim), *between)):
            cut(dim, [bound for bound in bounds if 0 < bound < total])
            return dim
    call.fix(dim, "single entries of it are picked by position")
    return dim


def _within(dim: Shape, start: int, stop: int) -> Iterator[Variable]:
    """Variables of which entries lie between two positions; those that would be cut there in pieces of that size."""
    position = 0
    for part in dim.of if isinstance(dim, Parts) else (dim,):
        first, last = max(start, position), min(stop, position + measure(part))
        if first < last:
            whole = first == position and last == position + measure(part)
            if isinstance(part, Variable) and not whole and not part.fixed:
                yield Variable(last - first)
            else:
                yield from variables(part)
        position += measure(part)


@rule("aten.unbind")
def unbind(call: Call) -> list[Dims]:
    """Every entry of a dimension, which is fixed."""
    dims = call.tensor("self")
    dim = call.dim("dim", len(dims), 0)
    call.fix(dims[dim], "its entries are taken apart by position")
    return [(*dims[:dim], *dims[dim + 1 :])] * len(call.node.meta["val"])


@rule("aten.broadcast_to")
def broadcast_to(call: Call) -> Dims:
    """As expand."""
    return expand(call)


@rule("aten.meshgrid", "aten.sym_size", "aten.item")
def made(call: Call) -> object:
    """Sizes and positions: nobody's channels."""
    return call.unknown(f"{call.name} makes numbers of it")


@rule("aten.copy")
def copy(call: Call) -> Dims:
    """Written over, in place: source and destination are equal."""
    destination, source = call.tensor("self"), call.tensor("src")
    for ours, theirs in zip(reversed(destination), reversed(source), strict=False):
        if measure(theirs) > 1:
            unify(ours, theirs)
    return destination


@rule("aten.glu")
def glu(call: Call) -> Dims:
    """The first half of a dimension is gated by the second."""
    dims = list(call.tensor("self"))
    dim = call.dim("dim", len(dims), -1)
    dims[dim] = equal_pieces(call, dims[dim], 2)
    return tuple(dims)
