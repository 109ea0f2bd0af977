"""Scales that depend on a size: made up for in the weights, or refused with a reason."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.infer import infer
from metaprune.surgery.rescale import rescale
from metaprune.surgery.slice import carve
from tests.laws import oracle
from tests.zoo import ZOO

EXAMPLE = (torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64),)


class Attention(nn.Module):
    """One head of 6 channels, scaled by the root of its own size."""

    def __init__(self, queries: nn.Module | None = None, after: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.q = queries or nn.Linear(8, 6)
        self.k, self.v, self.out = nn.Linear(8, 6), nn.Linear(8, 7), nn.Linear(7, 8)
        self.after = after or (lambda q: q)

    def forward(self, x: Tensor) -> Tensor:
        q = self.after(self.q(x))
        return self.out(F.scaled_dot_product_attention(q, self.k(x), self.v(x)))


class Divided(Attention):
    """The scale in the code."""

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.q(x), self.k(x)
        return self.out((q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1) @ self.v(x))


class Multiplied(Attention):
    """The scale on the queries."""

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.q(x), self.k(x)
        return self.out(((q * q.shape[-1] ** -0.5) @ k.transpose(1, 2)).softmax(-1) @ self.v(x))


def normed() -> nn.Module:
    """Queries from a norm that has a weight and a bias, both of which must make up for the scale."""
    norm = nn.LayerNorm(6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return Attention(nn.Sequential(nn.Linear(8, 6), norm))


def cut_heads(model: nn.Module) -> tuple[nn.Module, dict[str, str], float]:
    """Half of the head is cut: the network, what was undone, and how far it is from the mask."""
    model = model.double().eval()
    graph = mp.trace(model, EXAMPLE)
    [name] = [name for name, axis in graph.axes.items() if axis.size == 6 and "q" in "".join(axis.members)]
    if name not in graph.free:
        return model, {name: graph.axes[name].fixed or ""}, 0.0
    plan = mp.Plan({name: [0, 2, 3]})
    done = carve(model, graph, plan)
    effective = mp.Plan({axis: kept for axis, kept in plan.kept.items() if axis not in done.undone})
    masked = oracle.call(mp.mask(model, graph, effective), EXAMPLE, {})
    return done.model, dict(done.undone), oracle.distance(masked, oracle.call(done.model, EXAMPLE, {}))


CAN: dict[str, Callable[[], nn.Module]] = {
    "attention of PyTorch": Attention,
    "a division": Divided,
    "a product": Multiplied,
    "without bias": lambda: Attention(nn.Linear(8, 6, bias=False)),
    "a norm of the queries": normed,
    "two layers": lambda: Attention(nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 6))),
    "halved": lambda: Attention(after=lambda q: q * 0.5),
    "negative": lambda: Attention(after=lambda q: -q),
}


@pytest.mark.parametrize("kind", CAN)
def test_made_up_for(kind: str) -> None:
    small, undone, error = cut_heads(CAN[kind]())
    assert not undone
    assert small.get_submodule("k").weight.shape == (3, 8)  # type: ignore[union-attr]
    assert error < 1e-10


def test_weights_of_the_queries_alone_change() -> None:
    model = Attention()
    small, *_ = cut_heads(model)
    factor = (3 / 6) ** 0.5
    torch.testing.assert_close(small.q.weight, model.q.weight[[0, 2, 3]] * factor)  # type: ignore[union-attr,index]
    torch.testing.assert_close(small.q.bias, model.q.bias[[0, 2, 3]] * factor)  # type: ignore[union-attr,index]
    torch.testing.assert_close(small.k.weight, model.k.weight[[0, 2, 3]])


CANNOT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "an activation in between": (
        lambda: Attention(after=torch.sigmoid),
        "aten.sigmoid stands between a scale and the weights",
    ),
    "a constant is added": (lambda: Attention(after=lambda q: q + 1.0), "a constant is added at add before the scale"),
}


@pytest.mark.parametrize("kind", CANNOT)
def test_left_whole_with_a_reason(kind: str) -> None:
    """Nothing that computes something else is ever handed out: not even where the graph is told that it is free."""
    build, why = CANNOT[kind]
    model = build().double().eval()
    graph = mp.trace(model, EXAMPLE)
    [name] = [name for name, axis in graph.axes.items() if why in str(axis.fixed)]
    assert "test_rescale.py:" in str(graph.axes[name].fixed)
    freed = replace(graph, axes={**graph.axes, name: replace(graph.axes[name], fixed=None)})
    done = carve(model, freed, mp.Plan({name: [0, 2, 3]}))
    assert list(done.undone) == [name]
    assert why in done.undone[name]
    assert oracle.fingerprint(done.model) == oracle.fingerprint(model)


class Shared(nn.Module):
    """Queries and keys from one layer: to scale one is to scale the other."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.v, self.out = nn.Linear(8, 6), nn.Linear(8, 7), nn.Linear(7, 8)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x)
        return self.out(F.scaled_dot_product_attention(q, q, self.v(x)))


def test_shared_weights_are_not_scaled() -> None:
    model = Shared()
    small, undone, error = cut_heads(model)
    assert "enters the product more than once" in undone["q"]
    assert error < 1e-10
    assert oracle.fingerprint(small) == oracle.fingerprint(model)


def test_it_needs_no_gradients_of_the_caller() -> None:
    """A head size is cut, and so the scale made up for, where the caller has gradients switched off."""
    with torch.no_grad():
        model, args, _ = ZOO["vit"].example()
        graph = mp.trace(model, args)
        plan = oracle.random_plan(graph, torch.Generator().manual_seed(0), lambda size: size - size // 2)
        small = mp.slice(model, graph, plan)
        masked = mp.mask(model, graph, plan)
    assert oracle.distance(oracle.call(small, args, {}), oracle.call(masked, args, {})) < 1e-10
    assert all(parameter.requires_grad for parameter in small.parameters())


class Summed(nn.Module):
    """Heads by einsum, with the scale before it, behind it, or on the keys; queries, keys and values of one layer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.heads = kind, 2
        self.qkv, self.out = nn.Linear(8, 36, bias=False), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        scale = q.shape[-1] ** -0.5
        if self.kind == "before":
            scores = torch.einsum("bhid,bhjd->bhij", q * scale, k)
        elif self.kind == "keys":
            scores = torch.einsum("b h i d, b h j d -> b h i j", q, k * scale)
        else:
            scores = torch.einsum("bhid,bhjd->bhij", q, k) * scale
        return self.out(torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kind", ["before", "keys", "behind"])
def test_a_scale_beside_an_einsum_is_made_up_for(kind: str) -> None:
    torch.manual_seed(0)
    model = Summed(kind).double().eval()
    graph = mp.trace(model, EXAMPLE)
    assert sorted(axis.size for axis in graph.free.values()) == [2, 6]
    plan = mp.Plan({name: range(1, axis.size) for name, axis in graph.free.items()})
    small, masked = mp.slice(model, graph, plan), mp.mask(model, graph, plan)
    assert oracle.distance(masked(*EXAMPLE), small(*EXAMPLE)) < 1e-10


def test_weights_that_another_call_reads_otherwise_stay_as_they_are() -> None:
    """All calls that read a tensor must want the same of it; one that does not read it has no say."""
    model = Attention()
    inference = infer(model.double().eval(), EXAMPLE)
    before = oracle.fingerprint(model)
    half, third = ({"q.weight": torch.full((6, 1), share, dtype=torch.float64)} for share in (1 / 2, 1 / 3))
    for otherwise in ({}, third):
        why = rescale(model, [inference, inference], [half, otherwise])
        assert why == "q.weight, which must make up for a scale, is read otherwise in another call"
        assert oracle.fingerprint(model) == before
    weight = model.q.weight.detach().clone()  # type: ignore[operator]
    assert rescale(model, [inference, inference], [half, half]) is None
    assert torch.equal(model.q.weight, weight / 2)  # type: ignore[arg-type]
