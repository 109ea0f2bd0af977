"""Unification: what must be equal becomes one; what stays free may be cut.

During inference a dimension is made of variables. A variable of n channels is free, or bound to a product or a
concatenation of smaller ones. `unify` is the whole of the theory; the rules of the operators only call it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = [
    "EMPTY",
    "UNIT",
    "Factors",
    "Irreconcilable",
    "Parts",
    "Shape",
    "Variable",
    "at",
    "cut",
    "factor",
    "fix",
    "measure",
    "resolve",
    "split_right",
    "unify",
    "variables",
]


class Irreconcilable(Exception):
    """Two dimensions that must be equal cannot be written with common axes."""


class Variable:
    """An unknown of `size` channels: free, fixed (with the reason), or bound to another shape."""

    __slots__ = ("bound", "fixed", "size")

    def __init__(self, size: int, fixed: str | None = None) -> None:
        self.size = size
        self.fixed = fixed
        self.bound: Shape | None = None

    def __repr__(self) -> str:
        return f"{'!' if self.fixed else '?'}{self.size}" if self.bound is None else repr(self.bound)


@dataclass(frozen=True)
class Factors:
    """A product, row-major."""

    of: tuple[Shape, ...]


@dataclass(frozen=True)
class Parts:
    """A concatenation."""

    of: tuple[Shape, ...]


Shape = Variable | Factors | Parts
UNIT = Factors(())
"""The dimension of size 1: it has no channels to cut, and broadcasts."""
EMPTY = Parts(())
"""The dimension of size 0, as an empty slice has: it has no channels, and adds nothing to a concatenation."""

at: ContextVar[Callable[[], str]] = ContextVar("at")
"""What tells the line of code whose operator is being read, for the reasons that are given here."""


def _said(reason: str) -> str:
    line = at.get(None)
    return reason if line is None else f"{line()}: {reason}"


_MOST_COPIES = 64  # a fixed leading factor is written out as a concatenation up to this many times


def measure(shape: Shape) -> int:
    """Number of entries of a dimension."""
    if isinstance(shape, Variable):
        return shape.size
    sizes = [measure(inner) for inner in shape.of]
    return math.prod(sizes) if isinstance(shape, Factors) else sum(sizes)


def resolve(shape: Shape, known: dict[int, tuple[Shape, Shape]] | None = None) -> Shape:
    """Follow bindings to a normal form.

    It is flat, without units in products and empty parts in concatenations; a leading concatenation is distributed.

    Args:
        shape: What to resolve.
        known: What was resolved since the last binding, by the identity of the shape, and kept alive; filled.
    """
    if known is not None and (found := known.get(id(shape))) is not None:
        return found[1]
    result: Shape = shape
    if isinstance(shape, Parts):
        result = _parts([resolve(part, known) for part in shape.of])
    elif isinstance(shape, Factors):
        result = _product([resolve(inner, known) for inner in shape.of])
    elif shape.size < 2:
        result = UNIT if shape.size else EMPTY
    elif shape.bound is not None:
        result = shape.bound = resolve(shape.bound, known)
    if known is not None:
        known[id(shape)] = shape, result
        known[id(result)] = result, result
    return result


def _parts(resolved: Sequence[Shape]) -> Shape:
    flat: list[Shape] = []
    for part in resolved:
        flat.extend(part.of if isinstance(part, Parts) else (part,))
    return flat[0] if len(flat) == 1 else Parts(tuple(flat))


def _product(resolved: Sequence[Shape]) -> Shape:
    flat: list[Shape] = []
    for inner in resolved:
        flat.extend(inner.of if isinstance(inner, Factors) else (inner,))
    if len(flat) == 1:
        return flat[0]
    if any(type(inner) is Parts and not inner.of for inner in flat):
        return EMPTY
    if flat and isinstance(flat[0], Parts):
        return _parts([_product([part, *flat[1:]]) for part in flat[0].of])
    return Factors(tuple(flat))


def variables(shape: Shape) -> Iterator[Variable]:
    """The unbound variables of a shape, left to right."""
    waiting = [resolve(shape)]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, Variable):
            yield inner
        else:
            waiting.extend(reversed(inner.of))


def fix(shape: Shape, reason: str) -> None:
    """Forbid to cut anything in `shape`; the first reason given stays."""
    for variable in variables(shape):
        variable.fixed = variable.fixed or reason


def unify(left: Shape, right: Shape) -> None:
    """Make two dimensions equal, channel by channel.

    Raises:
        Irreconcilable: They have no common refinement; the caller fixes what it touches.
    """
    left, right = resolve(left), resolve(right)
    if left == right:
        return
    if measure(left) != measure(right):
        raise Irreconcilable(f"sizes {measure(left)} and {measure(right)} differ")
    if isinstance(right, Variable) and (not isinstance(left, Variable) or left.fixed):
        left, right = right, left
    if isinstance(left, Variable):
        if left.fixed:
            fix(right, left.fixed)
        left.bound = right
    elif isinstance(left, Factors) and isinstance(right, Factors):
        _unify_factors(left, right)
    else:
        bounds = sorted({*_bounds(left), *_bounds(right)})
        for one, other in zip(cut(left, bounds), cut(right, bounds), strict=True):
            unify(one, other)


def _unify_factors(left: Factors, right: Factors) -> None:
    ours: Shape = left
    theirs: Shape = right
    while measure(ours) > 1:
        step = min(measure(_last(ours)), measure(_last(theirs)))
        ours, our_tail = split_right(ours, step)
        theirs, their_tail = split_right(theirs, step)
        unify(our_tail, their_tail)
        ours, theirs = resolve(ours), resolve(theirs)


def _last(shape: Shape) -> Shape:
    return shape.of[-1] if isinstance(shape, Factors) else shape


def _bounds(shape: Shape) -> list[int]:
    """Inner boundaries of a concatenation."""
    bounds, total = [], 0
    for part in shape.of if isinstance(shape, Parts) else (shape,):
        total += measure(part)
        bounds.append(total)
    return bounds[:-1]


def split_right(shape: Shape, size: int) -> tuple[Shape, Shape]:
    """Write `shape` as head x tail with a tail of `size` entries (the fast-running ones).

    Raises:
        Irreconcilable: The factors do not divide.
    """
    shape = resolve(shape)
    total = measure(shape)
    if size == 1:
        return shape, UNIT
    if size == total:
        return UNIT, shape
    if total % size:
        raise Irreconcilable(f"{total} channels are no multiple of {size}")
    if isinstance(shape, Variable):
        halves = Variable(total // size, shape.fixed), Variable(size, shape.fixed)
        shape.bound = Factors(halves)
        return halves
    if isinstance(shape, Factors):
        *rest, last = shape.of
        if size % measure(last) == 0:
            head, tail = split_right(Factors(tuple(rest)), size // measure(last))
            return head, resolve(Factors((tail, last)))
        if measure(last) % size == 0:
            head, tail = split_right(last, size)
            return resolve(Factors((*rest, head))), tail
        raise Irreconcilable(f"factors of {measure(last)} and {size} channels do not divide")
    return _split_parts(shape, size)


def _split_parts(shape: Parts, size: int) -> tuple[Shape, Shape]:
    groups: list[list[Shape]] = [[]]  # neighbours that hold so many entries together
    for part in shape.of:
        groups[-1].append(part)
        if measure(Parts(tuple(groups[-1]))) % size == 0:
            groups.append([])
    *groups, rest = groups
    if not rest and all(len(group) == 1 or measure(Parts(tuple(group))) == size for group in groups):
        heads, tails = zip(*(split_right(_parts(group), size) for group in groups), strict=True)
        for tail in tails[1:]:
            unify(tails[0], tail)
        if any(measure(head) > 1 for head in heads):
            return resolve(Parts(heads)), resolve(tails[0])
        return Variable(len(heads), _said("it counts the parts of a concatenation")), resolve(tails[0])
    pieces = cut(shape, list(range(size, measure(shape), size)))
    for piece in pieces[1:]:
        unify(pieces[0], piece)
    return Variable(len(pieces), _said("it counts the parts of a concatenation")), resolve(pieces[0])


def cut(shape: Shape, bounds: Sequence[int]) -> list[Shape]:
    """Write `shape` as a concatenation with boundaries at `bounds` (ascending); the pieces between them.

    Pieces of no entries are `EMPTY`, and say nothing.

    Raises:
        Irreconcilable: A boundary falls inside the channels of a factor.
    """
    shape = resolve(shape)
    total = measure(shape)
    inside = sorted({bound for bound in bounds if 0 < bound < total})
    if len(inside) < len(bounds):
        entries = iter(cut(shape, inside))
        ends = [*bounds, total]
        return [next(entries) if end > start else EMPTY for start, end in zip([0, *bounds], ends, strict=True)]
    if not bounds:
        return [shape]
    ends = [*bounds, total]
    sizes = [end - start for start, end in zip([0, *bounds], ends, strict=True)]
    if isinstance(shape, Variable):
        pieces = tuple(Variable(size, shape.fixed) for size in sizes)
        shape.bound = Parts(pieces)
        return [resolve(piece) for piece in pieces]
    if isinstance(shape, Parts):
        return _cut_parts(shape, ends)
    lead, *rest = shape.of
    block = measure(Factors(tuple(rest)))
    if all(bound % block == 0 for bound in bounds):
        heads = cut(lead, [bound // block for bound in bounds])
        return [resolve(Factors((head, *rest))) for head in heads]
    if measure(lead) > _MOST_COPIES:
        raise Irreconcilable(f"a boundary falls inside a block of {block} channels")
    fix(lead, _said(f"a slice falls inside its blocks of {block} channels"))
    return _cut_parts(Parts((resolve(Factors(tuple(rest))),) * measure(lead)), ends)


def _cut_parts(shape: Parts, ends: Sequence[int]) -> list[Shape]:
    pieces: list[list[Shape]] = [[] for _ in ends]
    start = 0
    for part in shape.of:
        stop = start + measure(part)
        inner = [end - start for end in ends if start < end < stop]
        position = start
        for piece in cut(part, inner):
            pieces[next(i for i, end in enumerate(ends) if position < end)].append(piece)
            position += measure(piece)
        start = stop
    return [resolve(Parts(tuple(piece))) for piece in pieces]


def factor(shapes: Sequence[Shape], sizes: Sequence[int]) -> list[Shape]:
    """Lay the dimensions `shapes` out anew in `sizes`, as `reshape` does; what has no entries says nothing.

    Raises:
        Irreconcilable: The old and the new sizes do not divide.
    """
    if 0 in sizes:
        return [resolve(Variable(size)) for size in sizes]
    pending: Shape = resolve(Factors(tuple(shapes)))
    result: list[Shape] = []
    for size in reversed(sizes):
        pending, tail = split_right(pending, size)
        result.append(tail)
    return [resolve(shape) for shape in reversed(result)]
