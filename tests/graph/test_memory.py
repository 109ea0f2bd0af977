"""Weights that lie in one memory: tied where they are the same entries, whole where they share some, else free."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.memory import Over, over
from metaprune.graph.tensors import clone, named_tensors


class Autoencoder(nn.Module):
    """The decoder is the encoder turned round, in the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(6, 8), nn.Linear(8, 6)
        self.decode.weight = nn.Parameter(self.encode.weight.data.t())

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x).relu())


class SameData(nn.Module):
    """Two layers whose weights are one by `.data`."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.a, self.b, self.leave = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.b.weight.data = self.a.weight.data

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.b(self.a(self.enter(x)).relu()))


class Part(nn.Module):
    """A weight that is the first rows of another."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(4, 8), nn.Linear(4, 6), nn.Linear(8, 10), nn.Linear(16, 3)
        self.b.weight = nn.Parameter(self.a.weight.data[:6])
        self.e = nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(torch.cat([self.e(self.c(self.a(x))), self.b(x)], 1))


class Flat(nn.Module):
    """All weights are pieces of one buffer, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        flat, start = torch.randn(8 * 4 + 3 * 8), 0
        for layer in (self.a, self.b):
            size = layer.weight.numel()
            layer.weight = nn.Parameter(flat[start : start + size].view_as(layer.weight))
            start += size

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


CASES = {
    "autoencoder": (Autoencoder, 6, {8}, [("encode.weight", "decode.weight")]),
    "same data": (SameData, 4, {8}, [("a.weight", "b.weight")]),
    "part": (Part, 4, {10}, [("a.weight", "b.weight")]),
    "flat": (Flat, 4, {8}, []),
}


def in_double(build: type[nn.Module]) -> nn.Module:
    """Built in double precision: to change it later would take the weights apart."""
    torch.set_default_dtype(torch.float64)
    try:
        return build().eval()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", CASES)
def test_what_is_one_memory_stays_one(name: str) -> None:
    build, width, free, shared = CASES[name]
    model, x = in_double(build), torch.randn(2, width).double()
    before = copy.deepcopy(model.state_dict())
    places = [tensor.data_ptr() for tensor in model.state_dict().values()]
    graph = mp.trace(model, (x,))
    assert {axis.size for axis in graph.free.values()} == free
    plan = mp.Plan({name: range(1, axis.size, 2) for name, axis in graph.free.items()})
    small = mp.slice(model, graph, plan)
    torch.testing.assert_close(small(x), mp.mask(model, graph, plan)(x), rtol=1e-10, atol=1e-10)
    tensors = named_tensors(small)
    for one, other in shared:
        assert tensors[one].data_ptr() == tensors[other].data_ptr(), "still one"
    assert bool(over(tensors)) == bool(shared)
    assert not {tensor.data_ptr() for tensor in tensors.values()} & set(places)
    assert [tensor.data_ptr() for tensor in model.state_dict().values()] == places
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_which_dimension_is_which() -> None:
    """Also of square ones, by their strides; beside one another is not over one another, in bytes."""
    flat = torch.arange(36.0)
    square, half = flat.view(6, 6), flat[18:]
    tensors = {
        "square": square,
        "turned": square.t(),
        "again": square,  # the same object under a second name
        "rows": square[2:4],
        "last": half,
        "bytes": flat.view(torch.uint8)[:4],
        "none": flat[:0],
        "apart": torch.ones(6, 6),
    }
    assert over(tensors) == {
        "turned": Over("square", (1, 0)),
        "rows": Over("square", None),
        "last": Over("square", None),
        "bytes": Over("square", None),
    }
    assert over({"first": flat[:18], "last": half, "early": flat.view(torch.uint8)[18:36]}) == {
        "early": Over("first", None)
    }


@pytest.mark.parametrize("name", CASES)
def test_a_copy_keeps_it(name: str) -> None:
    model = in_double(CASES[name][0])
    assert over(named_tensors(clone(model))) == over(named_tensors(model))
