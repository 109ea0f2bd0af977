"""A result that is measured, and decided again, before it is fine-tuned."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch

import metaprune as mp
from metaprune.cost.latency import Latency
from metaprune.graph.errors import BudgetError
from metaprune.methods.method import Found, Problem
from metaprune.session import in_time
from metaprune.timing import Timed


@pytest.mark.parametrize(
    ("budget", "ms"),
    [
        (mp.Budget(speedup=2.0), 5.0),
        (mp.Budget(speedup=2.0, latency=3.0), 3.0),
        (mp.Budget(speedup=4.0, latency=3.0), 2.5),
    ],
)
def test_a_speed_is_against_the_first_network(budget: mp.Budget, ms: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes ten milliseconds here; where it is the one to cut, the clock of the method sees to it."""
    first, further = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    graph = mp.trace(first, (torch.zeros(2, 2),))

    class Ten:
        def latencies(self, networks: dict[str, torch.nn.Module], *_: Any) -> dict[str, Any]:
            assert networks == {"dense": first}
            return {"dense": Latency(10.0, 0.0, 1, 2, "cpu", "32-true", 1)}

    monkeypatch.setattr(in_time, "timed", lambda model, graph, budget, clock: (model, budget))
    clock = cast(mp.Clock, Ten())
    given = replace(budget, latency=ms, speedup=None)
    assert in_time.on_clock(further, graph, budget, clock, None, first) == (further, given)
    assert in_time.on_clock(first, graph, budget, clock, None, first) == (first, budget)
    assert in_time.on_clock(first, graph, mp.Budget(macs=0.5), clock, None, first) is None


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
    tries = [Found(mp.Plan({"a": range(turn + 1)}), NET, {}, epochs=epochs) for turn in range(len(ratios))]
    found, asked = decided(tries, ratios, monkeypatch)
    assert found is tries[taken]
    assert asked == [tries[0]] * (len(ratios) - 1)  # each time from all that the method left


NET = torch.nn.Linear(2, 2)


def decided(tries: list[Any], ratios: list[float], monkeypatch: pytest.MonkeyPatch) -> tuple[Found, list[Found]]:
    """What is taken where a method makes these one after another, which take such shares of the time; who was asked."""
    time = Timed(mp.Budget(latency=1.0))
    problem = cast(Any, type("Problem", (), {"graph": None, "budget": time.budget}))
    said, again, asked = iter(ratios), iter(tries[1:]), list[Found]()
    monkeypatch.setattr(in_time, "corrected", lambda *_: (time, next(said)))

    def find_again(budget: Any, first: Found, *_: Any) -> Found:
        asked.append(first)
        found = next(again)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(in_time, "_again", find_again)
    monkeypatch.setattr(in_time, "replace", lambda one, **_: one)
    return in_time.within(time, tries[0], cast(Problem, problem), cast(Any, None), mp.Clock(), NET)[0], asked


def test_nobody_is_asked_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing was cut; or for more than can be cut; or again where the answer was the same."""
    whole, cut = Found(mp.Plan({}), NET, {}), Found(mp.Plan({"a": range(3)}), NET, {})
    assert decided([whole], [0.5], monkeypatch) == (whole, [])
    assert decided([cut, BudgetError("no")], [1.3], monkeypatch) == (cut, [cut])
    assert decided([cut, cut], [1.3], monkeypatch) == (cut, [cut])


def test_a_search_gives_up_the_worst_of_what_it_left() -> None:
    """And not what it gave up before, whatever its score; a method that was not trained is asked anew."""
    net = torch.nn.Sequential(torch.nn.Linear(5, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
    graph = mp.trace(net, (torch.zeros(2, 5),))
    (axis,) = graph.free
    scores = torch.arange(12.0)
    found = Found(mp.Plan({axis: range(8)}), net, {axis: scores}, epochs=1, exact=True)
    task = mp.Task([], [], None, loss=lambda *_: scores, metric=lambda *_: (0.0, 1))
    problem = Problem(net, graph, mp.Budget(macs=0.9, multiple_of=1), task, mp.Recipe())
    half, asked = mp.Budget(macs=0.5, multiple_of=1), []

    class Anew(mp.Magnitude):
        def find(self, problem: Problem) -> Found:
            asked.append(problem.budget)
            return found

    again = in_time._again(half, found, problem, Anew(), True)
    assert again.plan == mp.Plan({axis: range(2, 8)})
    assert (again.exact, asked) == (False, [])
    assert torch.equal(scores, torch.arange(12.0))
    assert in_time._again(half, found, problem, Anew(), False) is found
    assert asked == [half]
    left = replace(found, whole={axis: "it may not be cut"})
    with pytest.raises(BudgetError):
        in_time._again(half, left, problem, Anew(), True)
