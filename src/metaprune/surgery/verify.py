"""Verification: the cut network's graph must be the old graph with the new widths."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from metaprune.graph.flow import Flow, Source
from metaprune.graph.graph import ChannelGraph, Operator, Pass
from metaprune.graph.term import Axis, Term, fold, size
from metaprune.graph.unify import EMPTY, Factors, Parts, Shape, Variable, resolve

__all__ = ["ScaleChange", "distinct", "mismatch", "scale_changes"]

Skeleton = object

_IDLE = {
    *("aten.view", "aten.reshape", "aten.flatten", "aten.unflatten", "aten.squeeze", "aten.unsqueeze", "aten.permute"),
    *("aten.transpose", "aten.t", "aten.expand", "aten.repeat", "aten.repeat_interleave"),
}
"""Operators that code may leave out for a size of 1, because they would do nothing."""

_MEMORY = {
    "aten.contiguous",
    "aten.clone",
    "aten.to",
    "aten.detach",
    "aten.alias",
    "aten._assert_tensor_metadata",
}
"""Operators that only move memory: PyTorch leaves them out where there is nothing to move."""

_SCALED = {
    "aten.mul": 0,
    "aten.div": 0,
    "aten.scaled_dot_product_attention": 0,
    "aten.baddbmm": 1,
    "aten.addmm": 1,
}
"""Operators that multiply one of their arguments by the first of their numbers (or divide by it) -> which."""


@dataclass(frozen=True)
class ScaleChange:
    """An operator whose own scale changed with a size.

    Attributes:
        index: Its place among the operators.
        argument: The position of the tensor argument that makes up for it.
        factor: What that argument must be multiplied by.
        where: File and line of the call.
    """

    index: int
    argument: int
    factor: float
    where: str


def mismatch(old: ChannelGraph, new: ChannelGraph, widths: Mapping[str, int], first: bool = False) -> str | None:
    """Where the two graphs differ beyond `widths`, in words; None where they are the same.

    Every axis of the new graph must stand for one thing of the old: an axis, or several where a number that code holds
    ties them. Two axes of the new may stand for one of the old, for the same reason. Where the new graph was read from
    the `first` call alone, what others tie and fix in the old need not be so in it.
    """
    before, after = _skeletons(widths), _skeletons({})
    image: dict[Variable, Skeleton] = {}

    loose = first or any(one.seed is not None for one in old.passes)  # some are not read again
    tied = bool(old.ties or loose)

    agreed: set[tuple[int, int]] = set()  # what stands for what only grows: two that agree go on agreeing

    def alike(a: Term, b: Term) -> bool:
        if (id(a), id(b)) not in agreed:
            if not _agree(before(a), after(b), image, tied):
                return False
            agreed.add((id(a), id(b)))
        return True

    def agree(one: tuple[Term, ...], other: tuple[Term, ...]) -> bool:
        return len(one) == len(other) and all(map(alike, one, other))

    for one_pass, other_pass in zip(distinct(old)[: 1 if first else None], distinct(new), strict=True):
        if (problem := _mismatch_of_passes(one_pass, other_pass, agree)) is not None:
            call = f" (in the call {one_pass.call})" if len(old.passes) > 1 and one_pass is not old.passes[0] else ""
            return problem + call
    anew = None if not loose else {source for one in distinct(new) for source in _read(one)}
    for name, dims in {**old.tensors, **old.tables}.items():
        if (anew is None or name in anew) and not agree(dims, new.tensors.get(name) or new.tables.get(name, ())):
            return f"tensor {name} is read differently after the cut"
    return None


def distinct(graph: ChannelGraph) -> list[Pass]:
    """The passes that run other operators than those before them, each time: what must be verified by an export."""
    return [one for one in graph.passes if one.like is None and one.seed is None]


def _read(one: Pass) -> set[int | str]:
    """What the operators of a pass read: each other's results, inputs, and tensors by name."""
    return {source for operator in one.operators for source, _ in operator.operands}


def _mismatch_of_passes(
    old: Pass, new: Pass, agree: Callable[[tuple[Term, ...], tuple[Term, ...]], bool]
) -> str | None:
    pairs = _pairs(old, new)
    if isinstance(pairs, str):
        return pairs
    if (parting := _other_flow(old, new, pairs)) is not None:
        return parting
    for one, other in pairs:
        if len(one.outputs) != len(other.outputs) or not all(map(agree, one.outputs, other.outputs)):
            return f"{one.where} ({one.name}) holds a size: the cut network is laid out differently there"
    if len(old.constants) != len(new.constants):
        return "the code makes other constants after the cut"
    for (place, held), (_, holds) in zip(old.constants, new.constants, strict=True):
        if held != holds:
            return f"{place}: a constant that the code makes depends on a size"
    return None


def _pairs(old: Pass, new: Pass) -> list[tuple[Operator, Operator]] | str:
    """The operators of both, side by side, or in words where they part.

    Those that only move memory are left out, and so are those that do nothing to a size of 1, where one network has
    them and the other does not.
    """
    ours, theirs = ([o for o in one.operators if o.name not in _MEMORY] for one in (old, new))
    pairs: list[tuple[Operator, Operator]] = []
    i = j = 0
    while i < len(ours) or j < len(theirs):
        one, other = ours[i] if i < len(ours) else None, theirs[j] if j < len(theirs) else None
        if one is not None and other is not None and one.name == other.name:
            pairs.append((one, other))
            i, j = i + 1, j + 1
        elif one is not None and one.name in _IDLE:
            i += 1
        elif other is not None and other.name in _IDLE:
            j += 1
        elif one is None or other is None:
            return f"the cut network has {len(theirs)} operators instead of {len(ours)}"
        else:
            return f"{one.where} calls {other.name} instead of {one.name} after the cut"
    return pairs


def _other_flow(old: Pass, new: Pass, pairs: Sequence[tuple[Operator, Operator]]) -> str | None:
    """Where an operator of the new graph reads something else than its twin of the old, in words."""
    before = {id(one): place for place, one in enumerate(old.operators)}
    after = {id(one): place for place, one in enumerate(new.operators)}
    twin = {after[id(other)]: before[id(one)] for one, other in pairs}
    paired = set(twin.values())

    def source(whole: Pass, at: Source, known: Container[int]) -> Source:
        """Through operators without a twin, which do nothing."""
        place, output = at
        while isinstance(place, int) and place not in known and whole.operators[place].operands:
            place, output = whole.operators[place].operands[0]
        return place, output

    def same(ours: Flow, theirs: Flow) -> bool:
        expected = [source(old, at, paired) for at in ours]
        got = [source(new, at, twin) for at in theirs]
        return expected == [
            (twin[place], output) if isinstance(place, int) else (place, output) for place, output in got
        ]

    for one, other in pairs:
        if not same(one.operands, other.operands):
            return f"{one.where} ({one.name}) reads something else after the cut"
    return None if same(old.returned, new.returned) else "the network returns something else after the cut"


def scale_changes(old: Pass, new: Pass) -> tuple[list[ScaleChange], list[str]]:
    """Numbers computed from a size that was cut; and in words those which cannot be made up for."""
    changes: list[ScaleChange] = []
    lost: list[str] = []
    place = {id(other): index for index, other in enumerate(new.operators)}
    pairs = _pairs(old, new)
    if isinstance(pairs, str):
        return [], [pairs]
    for one, other in pairs:
        factor, argument = 1.0, 0
        if one.scale is not None and other.scale is not None:
            factor = _ratio(one.scale, other.scale) ** 0.5
        elif one.scalars != other.scalars:
            argument = _SCALED.get(one.name, -1)
            only_the_first = one.scalars[1:] == other.scalars[1:] or argument == 0
            if argument < 0 or 0 in other.scalars[:1] or not only_the_first:
                lost.append(f"{one.where} ({one.name}) computes a number from a size")
                continue
            factor = one.scalars[0] / other.scalars[0]
            factor = 1 / factor if one.name == "aten.div" else factor
        if factor != 1.0:
            changes.append(ScaleChange(place[id(other)], argument, factor, one.where))
    return changes, lost


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
        if shape == EMPTY:
            return 0
        inner = [skeleton(part) for part in shape.of]
        if isinstance(shape, Parts) and all(part == inner[0] for part in inner):
            inner = [
                len(inner),
                *(inner[0][1:] if isinstance(inner[0], tuple) and inner[0][0] == "product" else inner[:1]),
            ]
        elif isinstance(shape, Parts):
            summed = _merged(inner, operator.add)
            return ("concat", *summed) if len(summed) > 1 else summed[0]
        merged = _merged(inner, operator.mul)
        return ("product", *merged) if len(merged) > 1 else (merged or [1])[0]

    return lambda term: skeleton(resolve(fold(term, leaf, lambda of: Factors(tuple(of)), lambda of: Parts(tuple(of)))))


def _agree(old: Skeleton, new: Skeleton, image: dict[Variable, Skeleton], tied: bool) -> bool:
    """Whether two dimensions have one structure, with each new axis standing for one thing of the old throughout.

    What is fixed in the old graph must be so in the new, but where it may be because a number in the code ties it.
    """
    if isinstance(new, Variable):
        whole = isinstance(old, int) and not tied
        return new.size == _entries(old) and not whole and image.setdefault(new, old) == old
    if isinstance(old, tuple) and isinstance(new, tuple) and old[0] == new[0] == "product":
        runs = _runs(old[1:], new[1:])
        return runs is not None and all(_agree_runs(*run, image, tied) for run in runs)
    if isinstance(old, tuple) and isinstance(new, tuple) and old[0] == "product" and new[0] == "concat":
        part = old[2] if len(old) == 3 else ("product", *old[2:])  # so many times the same, one by one
        return old[1] == len(new) - 1 and all(_agree(part, one, image, tied) for one in new[1:])
    if isinstance(new, tuple) and new[0] == "concat" and (isinstance(old, int) or _is_concat(old)):
        runs = _runs(old[1:] if isinstance(old, tuple) else [old], new[1:], sum)
        return runs is not None and all(_agree_pieces(*run, image, tied) for run in runs)
    if isinstance(old, tuple) and isinstance(new, tuple):
        return len(old) == len(new) and all(_agree(a, b, image, tied) for a, b in zip(old, new, strict=True))
    if isinstance(old, int) and isinstance(new, tuple) and new[0] == "product":
        return _agree_runs([old], list(new[1:]), image, tied)
    return old == new


def _is_concat(skeleton: Skeleton) -> bool:
    return isinstance(skeleton, tuple) and skeleton[0] == "concat"


def _runs(
    old: Sequence[Skeleton], new: Sequence[Skeleton], total: Callable[[Iterable[int]], int] = math.prod
) -> list[tuple[list[Skeleton], list[Skeleton]]] | None:
    """The shortest runs of factors, or pieces, of both that have equally many entries; None where they never meet."""
    ours, theirs = list(old), list(new)
    runs = []
    while ours and theirs:
        run: tuple[list[Skeleton], list[Skeleton]] = ([ours.pop(0)], [theirs.pop(0)])
        while (left := total(map(_entries, run[0]))) != (right := total(map(_entries, run[1]))):
            shorter, rest = (run[0], ours) if left < right else (run[1], theirs)
            if not rest:
                return None
            shorter.append(rest.pop(0))
        runs.append(run)
    return None if ours or theirs else runs


def _agree_runs(old: list[Skeleton], new: list[Skeleton], image: dict[Variable, Skeleton], tied: bool) -> bool:
    if len(new) == 1:
        return _agree(old[0] if len(old) == 1 else ("product", *old), new[0], image, tied)
    if len(old) > 1 or not isinstance(old[0], int) or not tied:
        return False
    free = [one for one in new if isinstance(one, Variable)]  # fixed in the old by a number that ties it
    return all(image.setdefault(one, one.size) == one.size for one in free)


def _agree_pieces(old: list[Skeleton], new: list[Skeleton], image: dict[Variable, Skeleton], tied: bool) -> bool:
    if len(old) == len(new) == 1:
        return _agree(old[0], new[0], image, tied)
    if len(old) > 1 or not isinstance(old[0], int) or not tied:
        return False
    return all(_agree(_entries(one), one, image, tied) for one in new)  # fixed in the old by a number that ties it


def _entries(skeleton: Skeleton) -> int:
    if isinstance(skeleton, Variable):
        return skeleton.size
    if isinstance(skeleton, tuple):
        kind, *inner = skeleton
        return (math.prod if kind == "product" else sum)(map(_entries, inner))
    return skeleton if isinstance(skeleton, int) else 0


def _merged(inner: Sequence[Skeleton], together: Callable[[int, int], int]) -> list[Skeleton]:
    """Neighbouring plain sizes put together."""
    merged: list[Skeleton] = []
    for one in inner:
        if merged and isinstance(one, int) and isinstance(merged[-1], int):
            merged[-1] = together(merged[-1], one)
        else:
            merged.append(one)
    return merged
