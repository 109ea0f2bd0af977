"""What older versions of PyTorch do otherwise, made up here: 2.8 is the oldest that is supported."""

import operator
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import metaprune as mp
from metaprune.graph import literals
from metaprune.graph.capture import capture
from metaprune.graph.infer import _fits, _used
from metaprune.graph.unify import Variable


def test_a_default_device_that_cannot_be_told_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> torch.device:
        raise AttributeError("'NoneType' object has no attribute 'device'")

    monkeypatch.setattr(torch, "get_default_device", none)
    graph = mp.trace(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), (torch.rand(2, 3),))
    assert list(graph.free) == ["0"]


def states(used: tuple[int, ...]) -> tuple[fx.Node, list[Any]]:
    """A node of two tensors, the second of a wrong shape, of which some are used; and what a rule says of both."""
    graph = fx.Graph()
    node = graph.call_function(torch.frexp, (graph.placeholder("x"),))
    node.meta["val"] = (torch.empty(2, 6), torch.empty(1, 1, 2, 6))
    taken = [graph.call_function(operator.getitem, (node, place)) for place in (0, 1)]
    graph.output(tuple(taken[place] for place in used))
    return node, [(Variable(2, None), Variable(6, None)), (Variable(1, None), Variable(2, None), Variable(6, None))]


def test_states_that_nobody_uses_may_be_said_wrongly() -> None:
    node, dims = states((0,))
    assert _fits(*_used(node, dims))
    assert not _fits(dims, node.meta["val"])
    for used in ((1,), (0, 1)):
        node, dims = states(used)
        assert not _fits(*_used(node, dims))


class Holds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = nn.Linear(3, 4), [torch.rand(4)]

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.table[0]


def test_a_constant_without_values_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    program = capture(Holds(), mp.Call((torch.rand(2, 3),))).program
    [(_, digest)] = literals.digests(program, frozenset(), lambda node: "")
    assert len(digest) == 64
    [(node, name, value)] = literals._made(program)
    fake = FakeTensorMode().from_tensor(value)
    monkeypatch.setattr(literals, "_made", lambda program: [(node, name, fake)])
    assert literals.digests(program, frozenset(), lambda node: "here") == (("here", "no values"),)
