"""Sizes that code turns into numbers: the cut is made up for exactly, or refused; never silently wrong."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import metaprune as mp


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.attend(self.q(x), self.k(x), self.v(x)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError


class Divided(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax(q @ k.mT / k.size(-1) ** 0.5, -1) @ v


class Filled(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax(q @ k.mT / torch.full([], k.size(-1) ** 0.5, dtype=q.dtype), -1) @ v


class Constant(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax(q @ k.mT / torch.tensor(float(k.size(-1)), dtype=q.dtype), -1) @ v


class Squared(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q * q, k, v)


class ReadTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o, self.p = nn.Linear(6, 24), nn.Linear(8, 6), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.qkv(x)
        q, k, v = h.chunk(3, -1)
        return self.o(F.scaled_dot_product_attention(q, k, v)) + self.p(h.chunk(3, -1)[0])


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Divided, None),
        (Filled, None),
        (Constant, None),
        (Squared, "what must make up for a scale enters the product more than once"),
        (ReadTwice, "the weights that must make up for a scale are read elsewhere too"),
    ],
)
def test_never_silently_wrong(kind: type[nn.Module], why: str | None) -> None:
    model = kind().double().eval()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    graph = mp.trace(model, (x,))
    [head] = [axis for axis in graph.axes.values() if axis.size == 8]
    assert head.fixed is None if why is None else why in str(head.fixed)
    plan = mp.Plan({name: range(0, axis.size, 2) for name, axis in graph.free.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = mp.slice(model, graph, plan)
    assert (small(x) - mp.mask(model, graph, plan)(x)).abs().max() < 1e-10
