"""A result that is measured, and decided again, before it is fine-tuned."""

from typing import Any, cast

import pytest
import torch

import metaprune as mp
from metaprune.methods.method import Found, Problem
from metaprune.session import in_time
from metaprune.timing import Timed


@pytest.mark.parametrize(
    ("ratios", "epochs", "taken"),
    [
        ([0.99], 0, 0),
        ([0.90, 0.98], 0, 1),
        ([1.05, 0.98], 0, 1),
        ([0.93, 1.01, 1.02], 0, 1),
        ([0.96, 1.03, 1.04], 0, 0),  # to be over the limit is worse than to be as far under it
        ([1.2, 1.1, 1.05], 0, 2),
        ([0.90], 3, 0),  # a search has no more channels than it left
        ([1.05, 0.90, 0.99], 3, 2),  # but those that were given up since
    ],
)
def test_the_nearest_of_three_is_taken(
    ratios: list[float], epochs: int, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = torch.nn.Linear(2, 2)
    tries = [Found(mp.Plan({"a": range(turn + 1)}), net, {}, epochs=epochs) for turn in range(len(ratios))]
    time = Timed(mp.Budget(latency=1.0))
    problem = cast(Any, type("Problem", (), {"graph": None, "budget": time.budget}))
    said = iter(ratios)
    monkeypatch.setattr(in_time, "corrected", lambda *_: (time, next(said)))
    again, asked = iter(tries[1:]), []

    def find_again(budget: Any, first: Found, *_: Any) -> Found:
        asked.append(first)
        return next(again)

    monkeypatch.setattr(in_time, "_again", find_again)
    monkeypatch.setattr(in_time, "replace", lambda one, **_: one)
    found, _ = in_time.within(time, tries[0], cast(Problem, problem), cast(Any, None), mp.Clock(), net)
    assert found is tries[taken]
    assert asked == [tries[0]] * (len(ratios) - 1)  # each time from all that the method left
