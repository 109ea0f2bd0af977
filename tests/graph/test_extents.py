"""Sizes that depend on the data are nobody's channels: what lies beside them is cut, and the example's count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp


class Experts(nn.Module):
    """Sparse experts by hand: each gets the tokens that are routed to it."""

    def __init__(self, width: int = 12, hidden: int = 16, experts: int = 3) -> None:
        super().__init__()
        self.enter, self.gate, self.leave = nn.Linear(6, width), nn.Linear(6, experts), nn.Linear(width, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        weights, chosen = torch.topk(self.gate(x).softmax(-1), 2, -1)
        y = torch.zeros_like(h)
        for place, expert in enumerate(self.experts):
            rows, choice = torch.where(chosen == place)
            y = y.index_add(0, rows, weights[rows, choice, None] * expert(h[rows]))
        return self.leave(h + y)


class Survivors(nn.Module):
    """Rows that pass a mask go on, scaled by how many they are."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)[x[:, 0] > 0]
        return self.c(self.b(h).relu()).sum(0) / h.shape[0]


class Neighbours(nn.Module):
    """A graph network: messages along edges without loops."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        edges = edges[:, edges[0] != edges[1]]
        h = self.a(x)
        gathered = torch.zeros_like(h).index_add(0, edges[1], self.b(h[edges[0]]))
        return self.c((h + gathered).relu())


class Flattened(nn.Module):
    """Rows that pass a mask, flattened with their channels: those cannot be picked by position."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        y = h[x[:, 0] > 0].flatten().cumsum(0).sum()
        return self.c(self.b(h).relu()) + y


EDGES = torch.tensor([[0, 1, 2, 3, 3, 4], [1, 1, 0, 3, 2, 0]])
CASES: dict[str, tuple[nn.Module, tuple[Any, ...], set[int]]] = {
    "experts": (Experts(), (torch.randn(5, 6),), {12, 16}),
    "survivors": (Survivors(), (torch.tensor([[1.0, 2, 3, 4], [-1, 2, 3, 4], [0.5, 1, 1, 1]]),), {8, 10}),
    "neighbours": (Neighbours(), (torch.randn(5, 4), EDGES), {8}),
    "flattened": (Flattened(), (torch.tensor([[1.0, 2, 3, 4], [-1, 2, 3, 4]]),), {6}),
}


def doubled(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.double() if x.is_floating_point() else x for x in args)


@pytest.mark.parametrize("name", CASES)
def test_channels_beside_them_are_cut(name: str) -> None:
    model, args, free = CASES[name]
    model, args = model.double().eval(), doubled(args)
    graph = mp.trace(model, args)
    assert {axis.size for axis in graph.free.values()} == free
    plan = mp.Plan({name: range(1, axis.size, 2) for name, axis in graph.free.items()})
    small = mp.slice(model, graph, plan)
    torch.testing.assert_close(small(*args), mp.mask(model, graph, plan)(*args), rtol=1e-10, atol=1e-10)
    assert mp.macs(graph, plan) == mp.macs(mp.trace(small, args))


def test_the_mask_follows_other_data() -> None:
    """The program holds for any number of rows, none included."""
    model, args, _ = CASES["survivors"]
    model, args = model.double().eval(), doubled(args)
    graph = mp.trace(model, args)
    plan = mp.Plan({name: range(axis.size // 2) for name, axis in graph.free.items()})
    small, masked = mp.slice(model, graph, plan), mp.mask(model, graph, plan)
    for x in (torch.rand(3, 4).double(), -torch.rand(3, 4).double()):
        torch.testing.assert_close(small(x), masked(x), rtol=1e-10, atol=1e-10, equal_nan=True)


def test_the_cost_is_that_of_the_example() -> None:
    model, args, _ = CASES["survivors"]
    model, args = model.double(), doubled(args)
    assert mp.macs(mp.trace(model, args)) == (3 * 4 * 8 + 2 * (8 * 10 + 10 * 3)) // 3, "two of three rows pass"


def test_so_is_that_of_channels_side_by_side() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 3), nn.Linear(4, 5), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.cat([self.a(x), self.b(x)], 1)
            return self.c(h[x[:, 0] > 0]).sum(0)

    x = torch.tensor([[1.0], [1.0], [-1.0]]).expand(3, 4)
    assert mp.macs(mp.trace(Joined(), (x,))) == (3 * 4 * (3 + 5) + 2 * 8 * 2) // 3


def test_without_values_the_cost_is_that_of_one_row() -> None:
    graph = mp.trace(Survivors().to("meta"), (torch.empty(3, 4, device="meta"),))
    assert mp.macs(graph) == (3 * 4 * 8 + 1 * (8 * 10 + 10 * 3)) // 3
