"""Tensors of a network that lie in one another's memory, though they are different objects.

`decoder.weight = nn.Parameter(encoder.weight.data.t())` ties two weights as surely as one name for both does. Weights
that share no entries, such as pieces of one flat buffer, are not tied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from metaprune.graph.copying import overlapping

__all__ = ["Over", "over"]


@dataclass(frozen=True)
class Over:
    """What a tensor lies over.

    Attributes:
        name: The tensor before it in whose memory it lies.
        dims: For each of its dimensions, which of that tensor's it is; None where they share some entries only.
    """

    name: str
    dims: tuple[int, ...] | None


def over(tensors: Mapping[str, Tensor]) -> dict[str, Over]:
    """For each tensor that shares entries with one before it, with which.

    Args:
        tensors: Name -> tensor; the same object under a second name is not looked at.
    """
    names: dict[int, str] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), name)
    found: dict[str, Over] = {}
    for group in overlapping([tensors[name] for name in names.values()]):
        for place, tensor in enumerate(group):
            for before in group[:place]:
                if tensor.numel() and before.numel() and _spans_meet(before, tensor):
                    found[names[id(tensor)]] = Over(names[id(before)], _same_entries(before, tensor))
                    break
    return found


def _spans_meet(one: Tensor, other: Tensor) -> bool:
    (start, stop), (first, last) = _span(one), _span(other)
    return start < last and first < stop


def _span(tensor: Tensor) -> tuple[int, int]:
    """Where in its memory a tensor begins and ends, in bytes."""
    begin = int(tensor.storage_offset())
    end = begin + sum(int((size - 1) * stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return begin * tensor.element_size(), end * tensor.element_size()


def _same_entries(one: Tensor, other: Tensor) -> tuple[int, ...] | None:
    """For each dimension of `other`, the one of `one` that it is, if both are the same entries in another order."""
    if one.dtype != other.dtype or one.storage_offset() != other.storage_offset() or one.ndim != other.ndim:
        return None
    left = list(range(one.ndim))
    result: list[int] = []
    for size, stride in zip(other.shape, other.stride(), strict=True):
        same = [d for d in left if one.shape[d] == size and (size == 1 or one.stride(d) == stride)]
        if not same:
            return None
        result.append(same[0])
        left.remove(same[0])
    return tuple(result)
