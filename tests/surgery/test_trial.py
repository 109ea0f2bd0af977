"""When a network is cut on trial, and what is learnt of it."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph import valueless
from metaprune.graph.attributes import whole_numbers
from metaprune.graph.infer import infer
from metaprune.surgery import slice as slicing
from metaprune.surgery import trace as tracing
from metaprune.surgery.trial import takes_another_way, turning
from metaprune.surgery.values import Judge
from metaprune.surgery.verify import mismatch
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


def test_code_that_fails_when_it_is_called_with_values_is_not_cut_where_that_takes_no_time() -> None:
    graph = mp.trace(Fussy(), (torch.rand(2, 6),))
    assert "dozens, please" in str(graph.axes["first"].fixed)


@pytest.mark.parametrize("width", [12, 5])
def test_code_that_fails_while_a_cut_is_judged_is_a_cut_undone(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(valueless, "_SMALL", 0)  # nothing is called before, as larger networks are not
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


class Branchy(nn.Module):
    """A scale by a width that is lost behind an activation, and a head that only training runs."""

    def __init__(self, lost: bool) -> None:
        super().__init__()
        self.lost = lost
        self.a, self.b, self.c, self.extra = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        x = self.a(x)
        x = torch.tanh(x) if self.lost else x
        x = self.b((x * x.shape[1] ** -0.5).relu())
        return (self.c(x.relu()), self.extra(x)) if self.training else self.c(x.relu())


@pytest.mark.parametrize(("quick", "judged"), [(288, True), (287, False)])
def test_only_small_networks_are_run_in_the_trial(monkeypatch: pytest.MonkeyPatch, quick: int, judged: bool) -> None:
    """By the multiply-accumulates of both calls, here 136 and 152; what is free is the same."""
    seen = []
    monkeypatch.setattr(Judge, "objection", lambda self, small, kept: seen.append(kept))
    monkeypatch.setattr(tracing, "_QUICK", quick)
    graph = mp.trace(Branchy(lost=False), (torch.rand(1, 6),))
    assert bool(seen) == judged
    assert sorted(graph.free) == ["a", "b"]


def test_what_fails_in_the_first_call_is_not_exported_in_others(monkeypatch: pytest.MonkeyPatch) -> None:
    exports: list[str] = []
    capture = slicing.capture

    def counted(small: nn.Module, call: mp.Call, **kwargs: Any) -> Any:
        exports.append("training" if call.training else "evaluation")
        return capture(small, call, **kwargs)

    model = Branchy(lost=True)
    monkeypatch.setattr(tracing, "carve", lambda model, graph, plan, by_values: slicing.Cut(model, plan, {}))
    graph = mp.trace(model, (torch.rand(1, 6),))
    monkeypatch.setattr(slicing, "capture", counted)
    carving = slicing._Carving(model, graph)
    assert "tanh" in str(carving.attempt_where_some_fail({"a": (0, 1)}))
    assert exports == ["evaluation"]
    assert isinstance(carving.attempt_where_some_fail({"b": (0, 1)}), nn.Module)
    assert exports == ["evaluation", "evaluation", "training"]
    assert "tanh" in str(carving.attempt({"a": (0, 1)}))  # where nothing has failed yet, both are read together
    assert exports[3:] == ["evaluation", "training"]


def test_the_first_call_alone_need_not_tie_what_others_do() -> None:
    """An axis that only the training call fixes is free in a graph of the evaluation call."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Any:
            x = self.a(x)
            return self.b(x + torch.arange(8.0) if self.training else x)

    model, x = Tied(), torch.rand(1, 6)
    graph = mp.trace(model, (x,))
    assert graph.axes["a"].fixed
    alone = infer(model.eval(), (x,)).graph
    assert mismatch(graph, alone, {}, first=True) is None
    assert mismatch(graph, alone, {}) is not None


class Branching(nn.Module):
    """Code that goes by the length of a list of its own, which is nobody's size."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x.relu() if torch.tensor([1.0, 2.0, 3.0]).shape[0] > 2 else x)


def test_a_comparison_with_a_size_that_is_not_known_turns_on_no_axis() -> None:
    graph = mp.trace(Branching(), (torch.rand(2, 6),))
    assert list(graph.free) == ["first"]
    assert graph.passes[0].branches == ()
