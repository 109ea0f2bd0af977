"""The sum of operators' tables as a function of sizes, batched: operators over the same dimensions are one table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from metaprune.cost.table import CLASSES, Entry, class_of, straight
from metaprune.graph.term import Term

__all__ = ["TableSum"]

Item = tuple[str, str, tuple[Term, ...], Entry]
"""An operator: where it stands, its signature's key, the dimensions that its table is over, and the table."""


class TableSum:
    """The sum of the operators' times, in ms, of which a latency form is made.

    Attributes:
        items: The operators.
        terms: The dimensions that any table is over.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self.items = tuple(items)
        self.terms = tuple(dict.fromkeys(term for _, _, terms, _ in self.items for term in terms))
        place = {term: index for index, term in enumerate(self.terms)}
        self._knots = _Knots.of(self.items, self.terms)
        together: dict[int, dict[tuple[int, ...], list[Entry]]] = {}
        for _, _, terms, entry in self.items:
            over = tuple(place[term] for term in terms)
            together.setdefault(len(over), {}).setdefault(over, []).append(entry)
        self._stacks = [_Stack.of(tables, self._knots) for tables in together.values()]

    @property
    def tree(self) -> dict[str, Any]:
        """The tables by their signatures' keys, as JSON holds them."""
        return {key: asdict(entry) for _, key, _, entry in self.items}

    def parts(self) -> dict[str, TableSum]:
        """For each place in the network its part of the sum."""
        places: dict[str, list[Item]] = {}
        for item in self.items:
            places.setdefault(item[0], []).append(item)
        return {where: TableSum(items) for where, items in places.items()}

    def at(self, sizes: Tensor) -> Tensor:
        """The sum for several candidates at once.

        Args:
            sizes: Of the dimensions in `terms`: float64 of shape (terms, candidates).

        Returns:
            In ms, float64 of shape (candidates,), differentiable in the sizes.
        """
        below, share, classes = self._knots.beside(sizes)
        total = sizes.new_zeros(sizes.shape[1])
        for stack in self._stacks:
            total = total + stack.read(below, share, classes)
        return total


@dataclass(frozen=True)
class _Knots:
    """The sizes of each dimension at which any table over it has an entry.

    Attributes:
        sizes: For each dimension, ascending.
        padded: The same as one table, float64 of shape (dimensions, most); what is behind the last is infinite.
        classes: For each dimension (row) and size the place of its class; of sizes at knots, that of no class.
    """

    sizes: tuple[tuple[int, ...], ...]
    padded: Tensor
    classes: Tensor

    @classmethod
    def of(cls, items: Iterable[Item], terms: Sequence[Term]) -> _Knots:
        found: dict[Term, set[int]] = {term: set() for term in terms}
        for _, _, over, entry in items:
            for term, knots in zip(over, entry.knots, strict=True):
                found[term] |= set(knots)
        sizes = tuple(tuple(sorted(found[term])) for term in terms)
        padded = torch.full((len(terms), max(map(len, sizes), default=1) + 1), math.inf, dtype=torch.float64)
        most = max((row[-1] for row in sizes), default=0)
        every = torch.tensor([class_of(width) for width in range(most + 1)])
        classes = every.repeat(len(terms), 1)
        for row, knots in enumerate(sizes):
            padded[row, : len(knots)] = torch.tensor(knots, dtype=torch.float64)
            classes[row, list(knots)] = len(CLASSES)
            classes[row, : knots[0]] = len(CLASSES)
        return cls(sizes, padded, classes)

    def beside(self, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each dimension and size: the place of the knot below, how far it is to the next, and its class."""
        here = sizes.detach().contiguous()
        counts = torch.tensor([[len(knots)] for knots in self.sizes]).reshape(-1, 1)
        below = torch.searchsorted(self.padded, here, right=True) - 1
        below = below.clamp(min=0).minimum((counts - 2).clamp(min=0))
        low, high = self.padded.gather(1, below), self.padded.gather(1, below + 1)
        share = torch.where(high.isinf(), torch.zeros_like(sizes), (sizes - low) / (high - low))
        whole = here.round().to(torch.int64).clamp(0, self.classes.shape[1] - 1)
        return below, share, self.classes.gather(1, whole)


@dataclass(frozen=True)
class _Stack:
    """Tables over as many dimensions each; those over the same dimensions are one.

    Attributes:
        over: The dimensions of each, as places: int64 of shape (tables, dimensions).
        strides: How far apart neighbours along each lie in `times`, of the same shape.
        starts: Where each begins in `times`, of shape (tables, 1).
        times: All entries, in ms.
        classes: What a size of each class takes more: (tables, dimensions, classes + 1).
    """

    over: Tensor
    strides: Tensor
    starts: Tensor
    times: Tensor
    classes: Tensor

    @classmethod
    def of(cls, tables: Mapping[tuple[int, ...], Sequence[Entry]], knots: _Knots) -> _Stack:
        strides: list[list[int]] = []
        starts: list[int] = []
        flat: list[Tensor] = []
        classes: list[Tensor] = []
        for over, entries in tables.items():
            times, slower = _summed(entries, [knots.sizes[place] for place in over])
            starts.append(sum(part.numel() for part in flat))
            strides.append([math.prod(times.shape[dim + 1 :]) for dim in range(len(over))])
            flat.append(times.reshape(-1))
            classes.append(slower)
        shape = (len(tables), len(next(iter(tables))))
        return cls(
            torch.tensor(list(tables), dtype=torch.int64).reshape(shape),
            torch.tensor(strides, dtype=torch.int64).reshape(shape),
            torch.tensor(starts)[:, None],
            torch.cat(flat),
            torch.stack(classes),
        )

    def read(self, below: Tensor, share: Tensor, classes: Tensor) -> Tensor:
        """The sum of the tables, straight lines between their entries: shape (candidates,)."""
        rank = self.over.shape[1]
        if rank == 0:
            return self.times.sum().expand(below.shape[1])
        total: Tensor | float = 0.0
        for corner in itertools.product((0, 1), repeat=rank):
            index: Tensor = self.starts
            weight: Tensor | float = 1.0
            for dim, bit in enumerate(corner):
                over = self.over[:, dim]
                index = index + (below[over] + bit) * self.strides[:, dim, None]
                weight = weight * (share[over] if bit else 1 - share[over])
            total = total + weight * self.times[index.clamp(max=len(self.times) - 1)]
        for dim in range(rank):
            total = total * self.classes[:, dim].gather(1, classes[self.over[:, dim]])
        assert isinstance(total, Tensor)
        return total.sum(0)


def _summed(entries: Sequence[Entry], knots: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """The sum of tables over the same dimensions at common knots; and what classes of sizes take more, on average."""
    times = torch.zeros([len(sizes) for sizes in knots], dtype=torch.float64)
    classes = torch.zeros(len(knots), len(CLASSES) + 1, dtype=torch.float64)
    for entry, count in ((one, sum(other is one for other in entries)) for one in {id(e): e for e in entries}.values()):
        ours = entry.at_knots()
        for dim, sizes in enumerate(knots):
            onto = straight(entry.knots[dim], torch.tensor(sizes, dtype=torch.float64))
            ours = torch.tensordot(ours, onto, dims=([dim], [1])).movedim(-1, dim)
        ours = count * ours.clamp(min=1e-9)
        times += ours
        whole = float(ours.reshape(-1)[-1])
        for dim, slower in enumerate(entry.classes):
            classes[dim] += whole * torch.tensor([*slower, 1.0], dtype=torch.float64)
    return times, classes / times.reshape(-1)[-1]
