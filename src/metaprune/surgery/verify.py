"""Verification: the cut network's graph must be the old graph with the new widths."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from metaprune.graph.graph import ChannelGraph, Operator
from metaprune.graph.term import Axis, Term, fold, size
from metaprune.graph.unify import Factors, Parts, Shape, Variable, resolve

__all__ = ["ScaleChange", "mismatch", "scale_changes"]

Skeleton = object

_MEMORY = {
    "aten.contiguous",
    "aten.clone",
    "aten.to",
    "aten.detach",
    "aten.alias",
    "aten._assert_tensor_metadata",
}
"""Operators that only move memory: PyTorch leaves them out where there is nothing to move."""


@dataclass(frozen=True)
class ScaleChange:
    """An operator whose own scale changed with a size.

    Attributes:
        index: Its place among the operators.
        argument: The position of the tensor argument that makes up for it.
        factor: What that argument must be multiplied by.
    """

    index: int
    argument: int
    factor: float


def mismatch(old: ChannelGraph, new: ChannelGraph, widths: Mapping[str, int]) -> str | None:
    """Where the two graphs differ beyond `widths`, in words; None where they are the same.

    Every axis of the new graph must stand for one thing of the old: an axis, or several where a number that code holds
    ties them. Two axes of the new may stand for one of the old, for the same reason.
    """
    before, after = _skeletons(widths), _skeletons({})
    image: dict[Variable, Skeleton] = {}

    def agree(one: tuple[Term, ...], other: tuple[Term, ...]) -> bool:
        return len(one) == len(other) and all(
            _agree(before(a), after(b), image) for a, b in zip(one, other, strict=True)
        )

    pairs = _pairs(old, new)
    if isinstance(pairs, str):
        return pairs
    for one, other in pairs:
        if len(one.outputs) != len(other.outputs) or not all(map(agree, one.outputs, other.outputs)):
            return f"{one.where} ({one.name}) holds a size: the cut network is laid out differently there"
    if old.constants != new.constants:
        return "a constant that the code makes depends on a size"
    for name, dims in old.tensors.items():
        if not agree(dims, new.tensors[name]):
            return f"tensor {name} is read differently after the cut"
    return None


def _pairs(old: ChannelGraph, new: ChannelGraph) -> list[tuple[Operator, Operator]] | str:
    """The operators of both, side by side, without those that only move memory; or in words where they part."""
    ours, theirs = ([o for o in graph.operators if o.name not in _MEMORY] for graph in (old, new))
    for one, other in zip(ours, theirs, strict=False):
        if one.name != other.name:
            return f"{other.where} calls {other.name} instead of {one.name} after the cut"
    if len(ours) != len(theirs):
        return f"the cut network has {len(theirs)} operators instead of {len(ours)}"
    return list(zip(ours, theirs, strict=True))


def scale_changes(old: ChannelGraph, new: ChannelGraph, widths: Mapping[str, int]) -> list[ScaleChange] | str:
    """Numbers computed from a size that was cut, or in words which of them cannot be made up for."""
    changes = []
    place = {id(operator): index for index, operator in enumerate(new.operators)}
    pairs = _pairs(old, new)
    if isinstance(pairs, str):
        return pairs
    for one, other in pairs:
        factor = 1.0
        if one.scale is not None and other.scale is not None:
            factor = _ratio(one.scale, other.scale) ** 0.5
        elif one.scalars != other.scalars:
            if one.name not in {"aten.mul", "aten.div", "aten.scaled_dot_product_attention"} or 0 in other.scalars:
                return f"{one.where} ({one.name}) computes a number from a size"
            factor = one.scalars[0] / other.scalars[0]
            factor = 1 / factor if one.name == "aten.div" else factor
        if factor != 1.0:
            changes.append(ScaleChange(place[id(other)], 0, factor))
    return changes


def _ratio(old: Term, new: Term) -> float:
    """New size over old size; the default scale 1/sqrt(size) grew by the root of its inverse."""
    return size(new) / size(old)


def _skeletons(widths: Mapping[str, int]) -> Callable[[Term], Skeleton]:
    """A function that writes terms in a normal form at the given widths: free axes are variables, the rest sizes."""
    known: dict[Axis, Variable] = {}

    def leaf(axis: Axis) -> Shape:
        return known.setdefault(axis, Variable(widths.get(axis.name, axis.size), axis.fixed))

    def skeleton(shape: Shape) -> Skeleton:
        if isinstance(shape, Variable):
            return shape.size if shape.fixed else shape
        inner = [skeleton(part) for part in shape.of]
        if isinstance(shape, Parts):
            return ("concat", *inner)
        merged = _merged(inner)
        return ("product", *merged) if len(merged) > 1 else (merged or [1])[0]

    return lambda term: skeleton(resolve(fold(term, leaf, lambda of: Factors(tuple(of)), lambda of: Parts(tuple(of)))))


def _agree(old: Skeleton, new: Skeleton, image: dict[Variable, Skeleton]) -> bool:
    """Whether two dimensions have one structure, with each new axis standing for one thing of the old throughout."""
    if isinstance(new, Variable):
        return new.size == _entries(old) and not isinstance(old, int) and image.setdefault(new, old) == old
    if isinstance(old, tuple) and isinstance(new, tuple):
        return len(old) == len(new) and all(_agree(a, b, image) for a, b in zip(old, new, strict=True))
    return old == new


def _entries(skeleton: Skeleton) -> int:
    if isinstance(skeleton, Variable):
        return skeleton.size
    if isinstance(skeleton, tuple):
        kind, *inner = skeleton
        return (math.prod if kind == "product" else sum)(map(_entries, inner))
    return skeleton if isinstance(skeleton, int) else 0


def _merged(factors: list[Skeleton]) -> list[Skeleton]:
    """Neighbouring plain sizes multiplied together."""
    merged: list[Skeleton] = []
    for factor in factors:
        if merged and isinstance(factor, int) and isinstance(merged[-1], int):
            merged[-1] *= factor
        else:
            merged.append(factor)
    return merged
