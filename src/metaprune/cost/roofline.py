"""A time with few constants, for machines whose operators cannot be measured one by one.

a + b MACs + c entries moved + d parameters: constants from 0, fitted to whole networks by least relative squares.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaprune.graph.graph import ChannelGraph, Operator
from metaprune.graph.term import Term

__all__ = ["Roofline", "place_of"]

KINDS = ("constant", "MACs", "moved", "parameters")


@dataclass(frozen=True)
class Roofline:
    """The sum of what operators multiply, move and read, each times a constant.

    Attributes:
        products: For each place and kind the products of dimensions that are counted.
        constants: Milliseconds for each of `KINDS`.
    """

    products: tuple[tuple[str, str, tuple[Term, ...]], ...]
    constants: tuple[float, ...] = (0.0, 1e-9, 1e-9, 1e-9)

    @classmethod
    def of(cls, graph: ChannelGraph) -> Roofline:
        """Of the first call of a graph, with constants that no machine has."""
        found: list[tuple[str, str, tuple[Term, ...]]] = [("the network", "constant", ())]
        for operator in graph.operators:
            where = place_of(operator)
            found += [(where, "MACs", product) for product in operator.macs]
            found += [(where, "moved", output) for output in operator.outputs]
        found += [(name, "parameters", graph.tensors[name]) for name in graph.parameters]
        return cls(tuple(found))

    @property
    def terms(self) -> tuple[Term, ...]:
        """The dimensions that anything counted is over."""
        return tuple(dict.fromkeys(term for _, _, product in self.products for term in product))

    def features(self, sizes: Tensor) -> Tensor:
        """How much of each of `KINDS`, shape (kinds, candidates), at sizes of shape (terms, candidates)."""
        place = {term: index for index, term in enumerate(self.terms)}
        padded = torch.cat([sizes, sizes.new_ones(1, sizes.shape[1])])
        rows = []
        for kind in KINDS:
            products = [product for _, of, product in self.products if of == kind]
            rank = max(map(len, products), default=0)
            factors = [[place[term] for term in product] + [len(place)] * (rank - len(product)) for product in products]
            index = torch.tensor(factors, dtype=torch.int64).reshape(len(products), rank)
            rows.append(padded[index].prod(1).sum(0) if products else sizes.new_zeros(sizes.shape[1]))
        return torch.stack(rows)

    def at(self, sizes: Tensor) -> Tensor:
        """In ms: float64 of shape (candidates,)."""
        return torch.tensor(self.constants, dtype=torch.float64) @ self.features(sizes)

    def parts(self) -> dict[str, Roofline]:
        """For each place in the network its part."""
        places: dict[str, list[tuple[str, str, tuple[Term, ...]]]] = {}
        for product in self.products:
            places.setdefault(product[0], []).append(product)
        return {where: replace(self, products=tuple(products)) for where, products in places.items()}

    def fitted(self, sizes: Tensor, ms: Sequence[float]) -> Roofline:
        """With the constants that fit networks best.

        Args:
            sizes: Of `terms` in each of the networks: shape (terms, networks).
            ms: How long each took.
        """
        times = torch.tensor(ms, dtype=torch.float64)
        rows = (self.features(sizes) / times).T
        best: tuple[float, tuple[float, ...]] = (float("inf"), self.constants)
        for count in range(1, min(len(KINDS), len(times)) + 1):
            for some in itertools.combinations(range(len(KINDS)), count):
                scales = rows[:, some].abs().amax(0).clamp(min=1e-300)
                wanted = torch.ones(len(times), 1, dtype=torch.float64)
                found = torch.linalg.lstsq(rows[:, some] / scales, wanted, driver="gelsd").solution[:, 0] / scales
                error = float((rows[:, some] @ found - 1).square().sum())
                if (found >= 0).all() and error < best[0] * (1 - 1e-6):
                    spread = dict(zip(some, found.tolist(), strict=True))
                    best = error, tuple(spread.get(kind, 0.0) for kind in range(len(KINDS)))
        return replace(self, constants=best[1])


def place_of(operator: Operator) -> str:
    """How an operator is called in messages: its layer, and what it does."""
    return f"{operator.layer or operator.path or operator.where} ({operator.name.removeprefix('aten.')})"
