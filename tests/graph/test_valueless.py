"""Rehearsals without values: they run what runs on any values, and nothing of them stays."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph import trail
from metaprune.graph import valueless as where
from metaprune.graph.capture import capture
from metaprune.graph.trail import followed
from metaprune.graph.valueless import is_small, valueless


class Writing(nn.Module):
    """A layer that writes to its weights, a buffer, a tensor of its own, and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(4))
        self.table = torch.ones(4)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        with torch.no_grad():
            self.layer.weight.mul_(2)
            self.seen += 1
            self.table = self.table * 2
        return self.layer(x) + torch.arange(4, device=x.device)


def test_it_runs_without_values_and_nothing_of_it_stays() -> None:
    model, x = Writing(), torch.randn(2, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with valueless(model, mp.Call((x,))) as (actor, call):
        assert call.of(actor).is_meta
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(value.is_meta for value in model.state_dict().values())
    assert (model.calls, model.table.tolist()) == (0, [1.0] * 4)


class Reading(nn.Module):
    """A layer that goes another way for a value."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).relu() if x.sum() > 0 else self.layer(x).tanh()


@pytest.mark.parametrize("small", [0, 10**8])
@pytest.mark.parametrize(("x", "ends"), [(torch.ones(2, 4), "relu"), (-torch.ones(2, 4), "tanh")])
def test_what_reads_values_is_followed_with_them(
    x: Tensor, ends: str, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, "_SMALL", small)
    steps, drew = followed(Reading(), mp.Call((x,)))
    assert steps[-1].name == ends
    assert not drew


class Dropping(nn.Module):
    """Layers that drop, and an attribute of a tensor that is another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 4, 3), nn.Linear(4, 2)
        self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.norm(self.a(x)).relu())
        return self.b(h.mT.contiguous())


def test_with_values_and_without_the_same_is_said() -> None:
    model, x = Dropping(), torch.randn(2, 3, 5)
    for training in (False, True):
        call = mp.Call((x,), training=training)
        with_values, without = trail._with_values(model, call, 0), trail._without_values(model, call, 0)
        assert with_values == without
        assert followed(model, call) == without
        assert [step.name for step in without[0]][-2:] == ["contiguous", "linear"]


def test_what_is_dropped_is_not_told_from_what_is_not() -> None:
    """Though the values of what comes behind are others, also where it is an attribute of a tensor."""
    passes = mp.trace(Dropping(), (torch.randn(2, 3, 5),)).passes
    assert [one.like for one in passes] == [None, 0]


def test_only_a_small_network_is_run_with_values(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    for name in ("_with_values", "_without_values"):
        monkeypatch.setattr(trail, name, lambda *_, name=name: ran.append(name))
    for width in (4, 200_000):
        followed(nn.Linear(4, width), mp.Call((torch.randn(100, 4),)))
    followed(nn.Linear(4, 4, device="meta"), mp.Call((torch.randn(2, 4),)))
    assert ran == ["_with_values", "_without_values", "_without_values"]


def test_only_tensors_make_a_call_large() -> None:
    model, x = nn.Linear(4, 4), torch.randn(2, 4)
    assert is_small(model, mp.Call((x, 10**9), {"mode": "fast", "scale": 0.5, "mask": None}))
    assert not is_small(model, mp.Call((x.expand(10**7, 2, 4), 1)))


def test_the_second_try_of_an_export_is_in_the_mode_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a record of the calls cannot be made, the training forward is still that of training."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).eval()

    def broken(*_: Any) -> None:
        raise RuntimeError("no record")

    monkeypatch.setattr("metaprune.graph.capture.recording", broken)
    captured = capture(model, mp.Call((torch.randn(3, 4),), training=True))
    names = [str(node.target) for node in captured.program.graph.nodes]
    assert not captured.records
    assert any("dropout" in name for name in names)
    [flag] = [node.args[5] for node in captured.program.graph.nodes if "batch_norm" in str(node.target)]
    assert flag is True
    assert not model.training
