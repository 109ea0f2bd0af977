"""Terms: what a dimension of a tensor is made of.

A dimension is one axis, a product of axes (row-major, the last factor runs fastest) or a concatenation of terms. Any
quantity that is known per axis (a width, the channels kept, a latent vector) extends to any dimension by `fold`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

__all__ = [
    "Axis",
    "Concat",
    "Product",
    "Term",
    "axes_of",
    "channels",
    "fold",
    "inside",
    "leaves",
    "places",
    "size",
    "width",
]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Axis:
    """Channels that live and die together across the whole network.

    Attributes:
        name: The path of the module that first produces it, with `[i]` where that dimension holds several axes; empty
            for sizes that are nobody's channels (pictures, kernels, batches).
        size: How many channels it has.
        fixed: Why it must keep its size; None where it may be cut.
        members: The tensor dimensions that hold it, as `"conv1.weight:0"`.
    """

    name: str
    size: int
    fixed: str | None = None
    members: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Product:
    """Channels of several terms at once, row-major, as `reshape` lays them out."""

    factors: tuple[Term, ...]


@dataclass(frozen=True)
class Concat:
    """Terms one after the other, as `torch.cat` lays them out."""

    parts: tuple[Term, ...]


Term = Axis | Product | Concat


def fold(
    term: Term,
    axis: Callable[[Axis], T],
    product: Callable[[Sequence[T]], T],
    concat: Callable[[Sequence[T]], T],
) -> T:
    """Evaluate `term` bottom-up, given what an axis, a product and a concatenation mean."""
    if isinstance(term, Axis):
        return axis(term)
    if isinstance(term, Product):
        return product([fold(factor, axis, product, concat) for factor in term.factors])
    return concat([fold(part, axis, product, concat) for part in term.parts])


def size(term: Term) -> int:
    """Number of entries of a dimension."""
    return width(term, {})


def width(term: Term, widths: Mapping[str, int]) -> int:
    """Number of entries that stay, given the widths of the axes that are cut."""

    def product(factors: Sequence[int]) -> int:
        return math.prod(factors)

    def concat(parts: Sequence[int]) -> int:
        return sum(parts)

    return fold(term, lambda axis: widths.get(axis.name, axis.size), product, concat)


def axes_of(term: Term) -> Iterator[Axis]:
    """Every axis in `term`, left to right, repeated where it occurs more than once."""
    if isinstance(term, Axis):
        yield term
    else:
        for inner in term.factors if isinstance(term, Product) else term.parts:
            yield from axes_of(inner)


def inside(term: Term) -> Iterator[Term]:
    """A term and everything inside it, runs of neighbouring factors included."""
    yield term
    if isinstance(term, Product):
        count = len(term.factors)
        for start, stop in itertools.combinations(range(count + 1), 2):
            if stop - start < count:
                run = term.factors[start:stop]
                yield from inside(run[0] if len(run) == 1 else Product(run))
    elif not isinstance(term, Axis):
        for part in term.parts:
            yield from inside(part)


def channels(term: Term, kept: Mapping[str, Sequence[int]]) -> Tensor:
    """Positions along a dimension that stay, ascending: an int64 tensor of shape (width,)."""

    def product(factors: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, int]:
        positions, total = torch.zeros(1, dtype=torch.int64, device="cpu"), 1
        for inner, count in factors:
            positions, total = (positions[:, None] * count + inner).flatten(), total * count
        return positions, total

    def concat(parts: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, int]:
        positions, total = [torch.zeros(0, dtype=torch.int64, device="cpu")], 0
        for inner, count in parts:
            positions.append(inner + total)
            total += count
        return torch.cat(positions), total

    def leaf(axis: Axis) -> tuple[Tensor, int]:
        stays = kept.get(axis.name)
        if stays is None:
            return torch.arange(axis.size, device="cpu"), axis.size
        return torch.as_tensor(stays, dtype=torch.int64, device="cpu"), axis.size

    return fold(term, leaf, product, concat)[0]


def places(term: Term, name: str) -> Tensor:
    """For each position along a dimension, the channel of axis `name` that it holds, or -1: int64 of shape (size,)."""

    def none(size: int) -> Tensor:
        return torch.full((size,), -1, device="cpu")

    def product(factors: Sequence[Tensor]) -> Tensor:
        held = none(1)
        for inner in factors:
            grid = torch.where(held[:, None] >= 0, held[:, None], inner)
            held = grid.flatten()
        return held

    def leaf(axis: Axis) -> Tensor:
        return torch.arange(axis.size, device="cpu") if axis.name == name else none(axis.size)

    return fold(term, leaf, product, lambda parts: torch.cat([none(0), *parts]))


def leaves(term: Term, name: str) -> list[Tensor]:
    """Where axis `name` occurs along a dimension, left to right: for each time an int64 tensor (size, repeats).

    Row c holds the positions that belong to channel c: of `a+a×b` the axis a has two, (a, 1) and (a, b).
    """

    def product(factors: Sequence[tuple[list[Tensor], int]]) -> tuple[list[Tensor], int]:
        found: list[Tensor] = []
        total = math.prod(count for _, count in factors)
        before = 1
        for inner, count in factors:
            after = total // (before * count) if total else 0
            outer = torch.arange(before, device="cpu").mul(count)[None, :, None, None]
            last = torch.arange(after, device="cpu")
            found += [((one[:, None, :, None] + outer) * after + last).reshape(len(one), -1) for one in inner]
            before *= count
        return found, total

    def concat(parts: Sequence[tuple[list[Tensor], int]]) -> tuple[list[Tensor], int]:
        found: list[Tensor] = []
        total = 0
        for inner, count in parts:
            found += [one + total for one in inner]
            total += count
        return found, total

    def leaf(axis: Axis) -> tuple[list[Tensor], int]:
        return ([torch.arange(axis.size, device="cpu")[:, None]] if axis.name == name else []), axis.size

    return fold(term, leaf, product, concat)[0]
