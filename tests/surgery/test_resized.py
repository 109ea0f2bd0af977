"""A network called at other widths: gradients, buffers, numbers, errors and threads."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.errors import PlanError
from metaprune.graph.term import channels
from metaprune.surgery.resized import Resized
from tests.laws import oracle


class Heads(nn.Module):
    """Reshapes by numbers that it keeps, counts its calls, and has a norm with statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.size, self.calls = 4, 3, 0
        self.inner = nn.Conv2d(2, 12, 1)
        self.norm = nn.BatchNorm2d(12)
        self.back = nn.Linear(12, 5)
        self.fails = False

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.norm(self.inner(x)).mean((2, 3)).view(-1, self.heads, self.size).relu()
        if self.fails:
            raise RuntimeError("as it was told")
        return self.back(x.reshape(-1, self.heads * self.size))


@pytest.fixture(scope="module")
def traced() -> tuple[Heads, mp.ChannelGraph, Tensor]:
    torch.manual_seed(0)
    model, x = Heads().double(), torch.randn(3, 2, 4, 4, dtype=torch.float64)
    return model, mp.trace(model, (x,)), x


def narrow(graph: mp.ChannelGraph) -> mp.Plan:
    return mp.Plan({name: range(axis.size // 2 - 1, axis.size) for name, axis in graph.free.items()})


def test_gradients_reach_the_tensors_of_the_given_network(traced: tuple[Heads, mp.ChannelGraph, Tensor]) -> None:
    """Where channels stay they are those of the copy, elsewhere zero; buffers and attributes stay as they were."""
    model, graph, x = copy.deepcopy(traced[0]).train(), traced[1], traced[2]
    resized = Resized(model, graph)
    before = oracle.fingerprint(model)
    small = resized.copy(narrow(graph))
    small(x).square().sum().backward()
    resized.call(narrow(graph), (x,)).square().sum().backward()
    for (name, wide), thin in zip(model.named_parameters(), small.parameters(), strict=True):
        assert wide.grad is not None
        assert thin.grad is not None
        assert thin.numel() < wide.numel() or name == "back.bias"
        there = torch.zeros_like(wide)
        for place, term in enumerate(graph.tensors[name]):
            there.movedim(place, 0)[channels(term, narrow(graph).kept)] += 1 / wide.dim()
        there = there.isclose(torch.ones(()).double())  # along every dimension
        torch.testing.assert_close(wide.grad[there], thin.grad.flatten(), rtol=1e-9, atol=1e-12)
        assert not wide.grad[~there].any()
        wide.grad = None
    assert oracle.fingerprint(model) == before


def test_other_tensors_take_the_place_of_parameters(traced: tuple[Heads, mp.ChannelGraph, Tensor]) -> None:
    model, graph, x = traced
    resized = Resized(model, graph)
    twice = {"inner.weight": (2 * model.inner.weight.detach()).requires_grad_()}
    answer = resized.call(narrow(graph), (), {"x": x}, twice)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.inner.weight.mul_(2)
    assert torch.equal(answer, Resized(other, graph).call(narrow(graph), (x,)))
    assert torch.equal(answer, resized.copy(narrow(graph), twice)(x))
    answer.sum().backward()
    assert twice["inner.weight"].grad is not None
    assert model.inner.weight.grad is None


def test_after_an_error_it_is_whole_again(traced: tuple[Heads, mp.ChannelGraph, Tensor]) -> None:
    model, graph, x = traced
    resized = Resized(model, graph)
    before = oracle.fingerprint(resized.network)
    resized.network.fails = True  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="as it was told"):
        resized.call(narrow(graph), (x,))
    with pytest.raises(PlanError, match="no axis"):
        resized.call(mp.Plan({"elsewhere": [0]}), (x,))
    with resized.at(narrow(graph)) as network:
        assert network.heads * network.size < 12  # type: ignore[operator]
        with pytest.raises(PlanError, match="leave that context first"):
            resized.call(narrow(graph), (x,))
    resized.network.fails, resized.network.calls = False, 0  # type: ignore[assignment]
    assert oracle.fingerprint(resized.network) == before
    assert torch.equal(resized.call(mp.Plan({}), (x,)), model(x))


def test_threads_wait_for_one_another(traced: tuple[Heads, mp.ChannelGraph, Tensor]) -> None:
    model, graph, x = traced
    resized = Resized(model, graph)
    plans = [mp.Plan({name: range(width) for name in graph.free}) for width in (1, 2, 3)] * 8
    expected = [resized.call(plan, (x,)) for plan in plans]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda plan: resized.call(plan, (x,)), plans))
    assert all(map(torch.equal, found, expected))


def test_the_graph_of_another_network_is_refused(traced: tuple[Heads, mp.ChannelGraph, Tensor]) -> None:
    with pytest.raises(PlanError, match="not of this"):
        Resized(nn.Linear(2, 3), traced[1])
