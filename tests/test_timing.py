"""A budget in time, on a clock of the user's own: as many milliseconds as there are hundreds of parameters."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.cost.latency_form import Anchor
from metaprune.graph.errors import BudgetError, MetapruneError
from metaprune.timing import Timed, corrected, form_of, inference_at, recalled, timed
from tests.laws import oracle

X = torch.randn(2, 5)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 40), nn.ReLU(), nn.Linear(40, 7))


def params(width: int) -> int:
    return 6 * width + 7 * width + 7


def clock(asked: list[int] | None = None, much: Callable[[int], float] = lambda count: count / 100) -> mp.Clock:
    def phone(model: nn.Module) -> float:
        if asked is not None:
            asked.append(oracle.counted_params(model))
        return much(oracle.counted_params(model))

    return mp.Clock(measure=phone)


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        ({"latency": 3.0}, 3.0),
        ({"speedup": 2.0}, 5.27 / 2),
        ({"latency": 3.0, "speedup": 2.0}, 5.27 / 2),
        ({"latency": 2.0, "speedup": 2.0}, 2.0),
    ],
)
def test_the_limit_is_the_smaller_of_both(budget: dict[str, Any], limit: float) -> None:
    model = network()
    graph = mp.trace(model, (X,))
    found = timed(model, graph, mp.Budget(**budget, multiple_of=1), clock())
    assert found.anchors[0].ms == params(40) / 100
    assert found.limit == pytest.approx(limit)
    assert found.budget.form is not None
    widest = max(width for width in range(4, 41) if params(width) <= 99 * limit)  # a hundredth is left
    plan = mp.plan(model, (X,), method=mp.Magnitude(), budget=found.budget, clock=clock(), graph=graph)
    assert abs(plan.widths["0"] - widest) <= 1
    assert found.note is None
    assert found.steps == {}


def test_the_first_anchors_are_the_dense_and_the_smallest_network() -> None:
    model, asked = network(), list[int]()
    form = form_of(model, mp.trace(model, (X,)), clock(asked))
    assert [anchor.widths for anchor in form.anchors[:2]] == [{"0": 40}, {"0": 8}]  # in steps of 8, a tenth or more
    assert asked[:2] == [params(40), params(8)]
    for width in (40, 30, 20, 8):
        assert form.at({"0": width}) / 1e6 == pytest.approx(params(width) / 100, rel=1e-3)


def test_where_the_time_is_met_already_nothing_more_is_measured() -> None:
    model, asked = network(), list[int]()
    found = timed(model, mp.trace(model, (X,)), mp.Budget(latency=6.0), clock(asked))
    assert found.budget.multiple_of == 8
    assert len(asked) == len(found.anchors) == 6


@pytest.mark.parametrize("budget", [mp.Budget(latency=1.0, multiple_of=1), mp.Budget(speedup=9.0, multiple_of=1)])
def test_what_the_smallest_cannot_do_is_refused(budget: mp.Budget) -> None:
    """4 of 40 channels are 0.59 ms; that the clock adds 1 ms to."""
    model = network()
    with pytest.raises(BudgetError, match=r"the smallest network takes 1.59 ms and the dense one 6.27 ms.*3.94 times"):
        timed(model, mp.trace(model, (X,)), budget, clock(much=lambda count: 1 + count / 100))


def test_what_is_recalled_is_what_was_found_and_nothing_is_measured() -> None:
    model = network()
    graph = mp.trace(model, (X,))
    budget = mp.Budget(speedup=2.0, multiple_of=2)
    found = timed(model, graph, budget, clock())
    found = replace(found, later=(Anchor({"0": 21}, 3.0),), steps={8: 0.5, 4: 0.6})
    tree = found.tree
    assert tree["anchors"][0] == [{"0": 40}, 5.27]
    assert tree["later"] == [[{"0": 21}, 3.0]]
    assert tree["steps"] == {"8": 0.5, "4": 0.6}
    asked: list[int] = []
    again = recalled(tree, model, graph, budget, clock(asked))
    assert asked == []
    assert (again.budget, again.anchors, again.later, again.steps) == (
        found.budget,
        found.anchors,
        found.later,
        found.steps,
    )
    assert again.budget.form is not None
    assert found.budget.form is not None
    for width in (8, 20, 33):
        assert again.budget.form.at({"0": width}) == pytest.approx(found.budget.form.at({"0": width}), rel=1e-6)
    settled = again.settled.budget.form
    assert settled is not None
    assert settled.at({"0": 21}) == 3_000_000


def test_a_speed_up_that_was_turned_into_milliseconds_is_recalled_as_such() -> None:
    model = network()
    graph = mp.trace(model, (X,))
    tree = timed(model, graph, mp.Budget(speedup=2.0, multiple_of=2), clock()).tree | {"latency": 2.5}
    again = recalled(tree, model, graph, mp.Budget(speedup=2.0, multiple_of=2), clock())
    assert (again.budget.speedup, again.budget.latency, again.limit) == (None, 2.5, 2.5)


@pytest.mark.parametrize(
    "damage",
    [
        lambda tree: tree.pop("steps"),
        lambda tree: tree.update(anchors=[[1]]),
        lambda tree: tree.update(later=[[{}, "fast"]]),
        lambda tree: tree.update(multiple_of="many"),
        lambda tree: tree.update(steps=[8]),
    ],
)
def test_damaged_memories_are_refused(damage: Callable[[dict[str, Any]], Any]) -> None:
    model = network()
    graph = mp.trace(model, (X,))
    budget = mp.Budget(speedup=2.0, multiple_of=2)
    tree = Timed(budget, (Anchor({"0": 40}, 5.27), Anchor({"0": 4}, 0.59))).tree
    recalled(tree, model, graph, budget, clock())
    damage(tree)
    with pytest.raises(BudgetError, match="what the run remembers of time is damaged"):
        recalled(tree, model, graph, budget, clock())


def test_a_network_that_was_found_sets_the_form_right() -> None:
    """It takes 4 ms where 2.635 were allowed: the form goes through it, and the ratio says by how much it is over."""
    model = network()
    graph = mp.trace(model, (X,))
    found = timed(model, graph, mp.Budget(speedup=2.0, multiple_of=1), clock())
    plan = mp.Plan({"0": range(30)})
    slower = clock(much=lambda count: 5.27 if count == params(40) else 4.0)
    new, over = corrected(model, graph, plan, found, slower, model)
    assert over == pytest.approx(4.0 / 2.635)
    [steady] = new.later
    assert steady == Anchor({"0": 30}, pytest.approx(4.0))
    assert new.anchors == found.anchors
    assert new.budget.form is not None
    assert new.budget.form.at({"0": 30}) == 4_000_000


def test_a_batch_that_divides_the_channels_otherwise_is_refused() -> None:
    class Folded(nn.Module):
        """Channels are laid beside the batch, and taken back."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(5, 8), nn.Linear(8, 7)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            wide = self.one(x)
            return self.two(wide.reshape(4, -1).relu().reshape(len(x), 8))

    model = Folded()
    graph = mp.trace(model, (X,))
    assert inference_at(model, graph, mp.Clock()) is graph.inferences[0]
    assert inference_at(model, graph, mp.Clock(batch=2)) is graph.inferences[0]
    found = inference_at(network(), mp.trace(network(), (X,)), mp.Clock(batch=6))
    assert found.graph.batch == 6
    if graph.free:
        with pytest.raises(MetapruneError, match="divides its channels otherwise"):
            inference_at(model, graph, mp.Clock(batch=3))
