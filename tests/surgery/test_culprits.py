"""Culprits: the axes at fault are found in few attempts, whatever the number of blocks."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.infer import infer
from metaprune.graph.tensors import clone
from metaprune.surgery.blame import Failure
from metaprune.surgery.culprits import MOST_ATTEMPTS, Culprits, _is_power
from metaprune.surgery.slice import _Carving
from metaprune.surgery.trial import trial


class Block(nn.Module):
    """Two hidden layers, of which the first is laid out by numbers that are written down."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 6), nn.Linear(6, 10), nn.Linear(10, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).reshape(x.shape[0], 3, 2).flatten(1)
        return x + self.c(self.b(y).relu())


def network(blocks: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), *(Block() for _ in range(blocks)), nn.Linear(8, 4)).eval()


def read(model: nn.Module) -> mp.ChannelGraph:
    return infer(model, (torch.zeros(2, 4),)).graph


def sorted_by(graph: mp.ChannelGraph, bad: set[str], reason: str) -> Culprits:
    """Culprits of a trial cut that fails as long as one of the axes `bad` is cut, and how."""

    def attempt(kept: object) -> nn.Module | str:
        return reason if bad & set(kept) else nn.Identity()  # type: ignore[call-overload]

    culprits = Culprits(graph, trial(graph).kept, attempt)
    culprits.sort(reason)
    return culprits


@pytest.mark.parametrize("blocks", [9, pytest.param(18, marks=pytest.mark.slow)])
def test_a_bad_line_of_equal_blocks_takes_as_many_attempts_as_of_one(blocks: int) -> None:
    graph = read(network(blocks))
    line = f"{__file__}:{Block.forward.__code__.co_firstlineno + 1}"
    bad = {name for name in graph.free if name.endswith((".a", ".a[0]", ".a[1]"))}
    assert len(bad) >= blocks
    culprits = sorted_by(graph, bad, f"{line}: shape '[2, 3, 2]' is invalid")
    assert culprits.attempts <= 8
    assert culprits.undone.keys() == bad
    assert culprits.accepted.keys() == set(culprits.wanted) - bad


def test_without_a_line_it_takes_more_and_finds_the_same() -> None:
    culprits = sorted_by(read(network(12)), {"3.b"}, "its outputs differ")
    assert set(culprits.undone) == {"3.b"}
    assert culprits.attempts <= 24


def test_attempts_are_bounded_where_nothing_is_alike() -> None:
    model = nn.Sequential(nn.Linear(4, 10), *(nn.Linear(width, width + 1) for width in range(10, 70)), nn.Linear(70, 4))
    graph = read(model)
    culprits = sorted_by(graph, {name for place, name in enumerate(graph.free) if place % 2}, "its outputs differ")
    assert culprits.attempts == MOST_ATTEMPTS
    assert culprits.model is not None
    assert not culprits.undone.keys() & culprits.accepted.keys()
    assert culprits.undone.keys() | culprits.accepted.keys() == set(graph.free)


def test_one_bad_block_of_many_is_found_beside_the_good_ones() -> None:
    line = f"{__file__}:{Block.forward.__code__.co_firstlineno + 2}"
    culprits = sorted_by(read(network(11)), {"7.b"}, f"{line}: no")
    assert set(culprits.undone) == {"7.b"}
    assert culprits.attempts <= 14


def test_of_eight_alike_each_is_tried_where_the_first_cannot_be_cut() -> None:
    """Of more, the others are cut together or not at all."""
    line = f"{__file__}:{Block.forward.__code__.co_firstlineno + 2}"
    for blocks, undone in ((8, {"1.b", "3.b"}), (9, {f"{block + 1}.b" for block in range(9)})):
        assert set(sorted_by(read(network(blocks)), {"1.b", "3.b"}, f"{line}: no").undone) == undone


def test_a_network_that_does_not_verify_uncut_is_given_up_at_once() -> None:
    model = network(4)
    graph = read(model)
    culprits = Culprits(graph, trial(graph).kept, lambda kept: "is its code random?")
    culprits.sort("is its code random?")
    assert culprits.model is None
    assert culprits.attempts <= 6


def test_trace_learns_what_a_line_holds_in_all_blocks() -> None:
    model = network(4)
    graph = mp.trace(model, (torch.zeros(2, 4),))
    assert {name for name in graph.free if ".b" in name} == {f"{block}.b" for block in range(1, 5)}
    laid_out = {name: str(axis.fixed) for name, axis in graph.axes.items() if ".a" in name}
    assert laid_out.keys() == {f"{block}.a[{place}]" for block in range(1, 5) for place in range(2)}
    line = f"test_culprits.py:{Block.forward.__code__.co_firstlineno + 1}"
    assert all(line in why for why in laid_out.values())


def test_what_fails_together_is_suspected_together() -> None:
    model = network(6)
    graph = read(model)
    names = [name for name in graph.free if name.endswith((".b", ".a"))]
    lines = [f"tensor {name}.weight is read differently" for name in names]
    attempts = 0

    def attempt(kept: object) -> nn.Module | str:
        nonlocal attempts
        attempts += 1
        bad = [line for name, line in zip(names, lines, strict=True) if name in kept]  # type: ignore[operator]
        return Failure(bad[0], others=bad[1:]) if bad else clone(model)

    culprits = Culprits(graph, trial(graph).kept, attempt)
    suspects = culprits.without_suspects(Failure(lines[0], others=lines[1:]))
    assert {name for kind in suspects for name in kind} >= set(names)
    assert attempts == 1


def test_what_could_not_be_tried_any_more_is_whole_with_the_reason_it_was_suspected_for() -> None:
    """Nothing of a plan is lost between what was cut and what was undone."""
    model = network(3)
    graph = read(model)
    culprits = Culprits(graph, trial(graph).kept, lambda kept: "nobody knows why", most=2)
    culprits.sort("nobody knows why")
    assert culprits.undone.keys() == culprits.wanted.keys()
    assert set(culprits.undone.values()) == {"nobody knows why"}


def test_a_scale_that_cannot_be_made_up_for_is_told() -> None:
    class Normed(nn.Module):
        """Weights of a norm of their own, times the root of their size (as where magnitudes are kept)."""

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(8, channels) + 1)

        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight / self.weight.norm(dim=1, keepdim=True).add(0.1)
            return x @ (weight * weight.shape[1] ** 0.5).t()

    model = nn.Sequential(
        nn.Linear(4, 6), Normed(6), nn.ReLU(), Normed(8), nn.ReLU(), Normed(8), nn.Linear(8, 2)
    ).double()
    graph = infer(model, (torch.zeros(2, 4).double(),)).graph
    outcome = _Carving(model, graph).attempt(trial(graph).kept)
    assert isinstance(outcome, Failure)
    assert "make up for a scale" in outcome
    assert mp.trace(model, (torch.zeros(2, 4).double(),)).free.keys() == {"5"}  # whose rows nobody's norm runs over


@pytest.mark.parametrize("factor", [0.25, 4.0, 0.5, 2.0, 0.0625, 16.0])
def test_a_number_follows_a_width_its_root_or_its_square(factor: float) -> None:
    """Upwards or downwards, of a width of a quarter; what is between says nothing."""
    assert _is_power(factor, 0.25)
    assert not _is_power(factor * 1.01, 0.25)


class Scaled(nn.Module):
    """Heads whose size makes a number that is lost behind an activation, beside hidden layers that may be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(24, 24) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            nn.functional.silu(layer(x)).unflatten(-1, (3, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        q = q * q.shape[-1] ** -0.5
        return x + self.o((q @ k.mT @ v).transpose(1, 2).flatten(2))


def test_whose_width_changed_as_the_number_did_is_convicted_alone() -> None:
    """Of three axes on the line of one number, in two blocks, the sizes of heads stay; two attempts tell."""
    torch.manual_seed(0)
    model = nn.Sequential(Scaled(), Scaled()).eval()
    graph = infer(model, (torch.randn(2, 5, 24),)).graph
    kept = {
        name: range(axis.size // 2 + place % 2)
        for place, (name, axis) in enumerate(graph.free.items())
        if axis.size > 3
    }
    carving, attempts = _Carving(model, graph), 0

    def attempt(cut: Any) -> nn.Module | str:
        nonlocal attempts
        attempts += 1
        return carving.attempt(cut)

    reason = carving.attempt(kept)
    assert isinstance(reason, Failure)
    assert "stands between a scale and the weights" in reason
    culprits = Culprits(graph, kept, attempt)
    culprits.sort(reason)
    assert culprits.undone.keys() == {"0.q[1]", "1.q[1]"}
    assert culprits.accepted.keys() == {"0.v", "1.v"}
    assert attempts == 1  # after the one that failed
