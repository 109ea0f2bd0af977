"""When a network is cut on trial, and what is learnt of it."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.attributes import whole_numbers
from metaprune.surgery.trial import takes_another_way, turning
from tests.zoo import ZOO


def test_what_turns_the_code_is_found_and_fixed() -> None:
    model, args, _ = ZOO["radix"].example()
    graph = mp.trace(model, args)
    [splits] = [name for name, axis in graph.axes.items() if axis.size == 2]
    assert "habits.py:" in str(graph.axes[splits].fixed)
    assert not takes_another_way(graph, whole_numbers(model), dict.fromkeys(graph.free, 2))
    assert takes_another_way(graph, whole_numbers(model), {splits: 1})


class Shortcut(nn.Module):
    """Code that does nothing for one group: to take that way changes nothing, so that the groups are free."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = 4
        self.first, self.last = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.groups == 1:
            return self.last(x)
        y = x.view(len(x), self.groups, -1)
        return self.last(y.reshape(len(x), -1))


def test_a_way_that_does_the_same_is_free() -> None:
    model, x = Shortcut(), torch.rand(2, 6)
    graph = mp.trace(model, (x,))
    assert sorted(axis.size for axis in graph.free.values()) == [3, 4]
    assert [graph.axes[name].size for name in turning(graph, whole_numbers(model))] == [4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mp.slice(model, graph, mp.Plan({name: [0] for name, axis in graph.free.items() if axis.size == 4}))


class Fussy(nn.Module):
    """Runs with whole dozens of channels only, and says so when it is called with values, not when it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if not torch.compiler.is_compiling() and x.isfinite().all() and len(x[0]) % 12:
            raise RuntimeError("dozens, please")
        return self.last(x)


@pytest.mark.parametrize("width", [12, 5])
def test_code_that_fails_while_a_cut_is_judged_is_a_cut_undone(width: int) -> None:
    model, x = Fussy(), torch.rand(2, 6)
    graph = mp.trace(model, (x,))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small = mp.slice(model, graph, mp.Plan({"first": range(width)}))
    assert small.first.weight.shape[0] == (12 if width == 12 else 24)
    assert ["test_trial.py:" in str(w.message) and "dozens, please" in str(w.message) for w in caught] == [True] * (
        width != 12
    )


class Pairs(nn.Module):
    """Wants even widths, as the first trial's are, and says so in no way that a trace could see."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 14), nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if list(y.shape)[-1] in {1, 3, 5, 7, 9, 11, 13}:
            raise ValueError("pairs, please")
        return x + self.b(y.relu())


def test_a_width_that_the_first_trial_misses_is_tried_too() -> None:
    """What is free is cut to any width: what one of equal blocks cannot do, none is asked to."""
    model = nn.Sequential(*(Pairs() for _ in range(4))).eval()
    graph = mp.trace(model, (torch.ones(2, 5),))
    assert not graph.free
    assert all("pairs, please" in str(axis.fixed) for name, axis in graph.axes.items() if axis.size == 14)
