"""What two graphs may differ in and what not, said in words: networks beside a twin with one thing changed."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.infer import infer
from metaprune.surgery.verify import mismatch, scale_changes

X = torch.rand(2, 6)


class Net(nn.Module):
    """Two layers of 8 channels, and what is done to them."""

    def __init__(self, does: Callable[["Net", Tensor], Any], width: int = 8) -> None:
        super().__init__()
        self.does = does
        self.a, self.b, self.c = nn.Linear(6, width), nn.Linear(6, width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Any:
        return self.does(self, x)


def graph_of(does: Callable[[Net, Tensor], Any], width: int = 8) -> mp.ChannelGraph:
    return infer(Net(does, width).eval(), (X,)).graph


def plain(net: Net, x: Tensor) -> Tensor:
    return net.c(net.a(x).relu() - net.b(x))


DIFFER: dict[str, tuple[Callable[[Net, Tensor], Any], Callable[[Net, Tensor], Any], str]] = {
    "an operator": (plain, lambda net, x: net.c(net.a(x).tanh() - net.b(x)), r"calls aten.tanh instead of aten.relu"),
    "one more": (plain, lambda net, x: net.c(net.a(x).relu() - net.b(x)).exp(), r"has 6 operators instead of 5"),
    "one less": (lambda net, x: plain(net, x).exp(), plain, r"has 5 operators instead of 6"),
    "who is read": (plain, lambda net, x: net.c(net.b(x).relu() - net.a(x)), r"\(aten.linear\) reads something else"),
    "in which order": (
        lambda net, x: net.c((p := net.a(x)) - (q := net.b(x))) + 0 * (p + q).sum(),
        lambda net, x: net.c(-((p := net.a(x)) - (q := net.b(x)))) + 0 * (p + q).sum(),
        r"calls aten.neg instead of aten.linear",
    ),
    "what is returned": (
        lambda net, x: (net.c(net.a(x)), net.c(net.b(x))),
        lambda net, x: (net.c(net.a(x)), net.c(net.b(x)))[::-1],
        "returns something else",
    ),
    "what a constant holds": (
        lambda net, x: plain(net, x) + torch.tensor([1.0, 2.0, 3.0]),
        lambda net, x: plain(net, x) + torch.tensor([1.0, 2.0, 4.0]),
        r"test_verify.py:\d+: a constant that the code makes depends on a size",
    ),
    "how a tensor is read": (
        lambda net, x: net.a(x)[:, :3],
        lambda net, x: net.a(x)[:, 3:6],
        r"\(aten.linear\) holds a size: the cut network is laid out differently",
    ),
}


@pytest.mark.parametrize("what", DIFFER)
def test_one_thing_changed_is_told(what: str) -> None:
    does, otherwise, words = DIFFER[what]
    old, new = graph_of(does), graph_of(otherwise)
    assert mismatch(old, graph_of(does), {}) is None
    problem = mismatch(old, new, {})
    assert problem is not None
    assert re.search(words, problem), problem


def test_the_call_is_named_where_it_is_not_the_first() -> None:
    """Of a network that is called in two ways, one of which runs another operator after the cut."""

    class Two(Net):
        def other(self, x: Tensor) -> Tensor:
            return getattr(plain(self, x), second)()

    def traced(does: Callable[[Net, Tensor], Any]) -> mp.ChannelGraph:
        return mp.trace(Two(does).eval(), (X,), calls=[mp.Call((X,), method="other")])

    second = "exp"
    old, otherwise = traced(plain), traced(lambda net, x: net.c(net.a(x).tanh() - net.b(x)))
    second = "tanh"
    told = mismatch(old, traced(plain), {})
    assert told is not None
    assert told.endswith("calls aten.tanh instead of aten.exp after the cut (in the call other(2×6))")
    told = mismatch(old, otherwise, {})
    assert told is not None
    assert "calls aten.tanh instead of aten.relu" in told
    assert "in the call" not in told


def test_the_number_of_constants_counts() -> None:
    """Though the operators are the same: each reads a tensor of the network's, or one that its code makes."""
    old = graph_of(lambda net, x: plain(net, x) + torch.tensor([1.0, 2.0, 3.0]))
    passes = old.passes[0]
    assert len(passes.constants) == 1
    fewer = replace(old, passes=(replace(passes, constants=()),))
    assert mismatch(old, fewer, {}) == mismatch(fewer, old, {}) == "the code makes other constants after the cut"


def test_widths_are_those_that_were_asked_for() -> None:
    old = graph_of(plain)
    [axis] = old.free
    assert mismatch(old, graph_of(plain, width=5), {axis: 5}) is None
    for width in (4, 6, 8):
        assert mismatch(old, graph_of(plain, width=5), {axis: width}) is not None
    assert "(aten.linear) holds a size" in str(mismatch(old, graph_of(plain, width=5), {}))


def test_an_operator_that_does_nothing_to_one_channel_may_be_left_out() -> None:
    def laid_out(net: Net, x: Tensor) -> Tensor:
        return net.c(net.a(x).view(2, -1))

    assert mismatch(graph_of(laid_out), graph_of(lambda net, x: net.c(net.a(x))), {}) is None
    assert mismatch(graph_of(lambda net, x: net.c(net.a(x))), graph_of(laid_out), {}) is None
    assert mismatch(graph_of(lambda net, x: net.c(net.a(x).contiguous())), graph_of(laid_out), {}) is None


def test_numbers_made_of_sizes_are_scales_or_lost() -> None:
    def scaled(net: Net, x: Tensor) -> Tensor:
        return net.c(net.a(x) * net.a.out_features**-0.5)

    def shifted(net: Net, x: Tensor) -> Tensor:
        return net.c(net.a(x) + net.a.out_features**-0.5)

    changes, lost = scale_changes(graph_of(scaled).passes[0], graph_of(scaled, width=2).passes[0])
    assert not lost
    [change] = changes
    assert change.factor == pytest.approx((2 / 8) ** 0.5)  # what was divided by the root of 8 is divided by that of 2
    assert "test_verify.py:" in change.where
    changes, [lost_here] = scale_changes(graph_of(shifted).passes[0], graph_of(shifted, width=2).passes[0])
    assert not changes
    assert lost_here.endswith("(aten.add) computes a number from a size")
