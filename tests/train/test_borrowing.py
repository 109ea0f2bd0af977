"""Compiled steps: the same numbers, and nothing compiled anew while a search goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.methods.following import Following
from metaprune.train import Recipe, Task
from metaprune.train.borrowing import Compiled


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The modes that graphs were compiled in: by a compiler that leaves them as they are, for the sake of time."""
    modes: list[Any] = []
    usual = torch.compile

    def compiling(call: Any, mode: str | None = None, dynamic: bool | None = None) -> Any:
        def keep(graph: Any, inputs: Any) -> Any:
            modes.append(mode)
            return graph.forward

        return usual(call, backend=keep, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", compiling)
    torch._dynamo.reset()
    yield modes
    torch._dynamo.reset()


def test_compiled_steps_come_to_the_same(compiled: list[Any], task: Task, recipe: Recipe) -> None:
    def trained(compile: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        mp.fit(model, task, Recipe(2, lr=0.05, precision="32-true", device="cpu", compile=compile), progress=False)
        assert not any("forward" in vars(module) for module in model.modules())
        return model.state_dict()

    plain, quick = trained(False), trained("graphs")
    assert compiled == ["reduce-overhead"]  # not for evaluation
    assert all(torch.allclose(plain[name], quick[name], atol=1e-6) for name in plain)


def test_a_search_is_compiled_once_whatever_dies(compiled: list[Any], task: Task) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3))
    graph = mp.trace(model, (torch.zeros(2, 1, 4, 4),))
    how = Recipe(3, lr=0.05, precision="32-true", device="cpu", compile=True)
    search = mp.DHP().start(model, graph, mp.Budget(macs=0.5, multiple_of=1), steps=3 * len(task.train))
    during = [Following(search, how, 3)]
    mp.fit(search.model, task, how, during=during, parameters=search.groups(how.lr), progress=False)
    assert search.share <= 0.5
    assert compiled == [None]


def test_a_forward_that_was_put_in_its_place_is_there_again(compiled: list[Any]) -> None:
    """As hooks and other libraries do it."""
    model = nn.Linear(2, 2)
    own = model.forward = lambda x: 2 * x  # type: ignore[method-assign, assignment]
    with Compiled(model, Recipe(compile=True)):
        assert model.forward is not own
        assert model(torch.ones(1, 2)).tolist() == [[2, 2]]
    assert vars(model)["forward"] is own
    assert compiled == [None]
