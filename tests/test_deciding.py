"""Decisions without a session: plans and scores, and what is asked for first."""

from functools import cache
from typing import Any

import pytest
import torch

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.methods.method import Problem
from metaprune.methods.registry import METHODS, decides_by
from tests.laws import oracle
from tests.methods import small

HALF = mp.Budget(macs=0.5, multiple_of=4)
DATALESS = (mp.Magnitude(), mp.Uniform(), mp.Random(), mp.IntraFusion())
ONE_SHOT = (*DATALESS, mp.Taylor(batches=2), mp.GraphMetanetwork())


@cache
def known() -> tuple[small.Small, mp.ChannelGraph]:
    """A network, which no decision changes, and its graph."""
    torch.manual_seed(0)
    model = small.Small()
    return model, mp.trace(model, small.EXAMPLE)


@pytest.mark.parametrize("method", ONE_SHOT, ids=lambda method: method.name)
def test_a_plan_is_what_prune_cuts(method: Any) -> None:
    model, graph = known()
    before = oracle.fingerprint(model)
    plan = mp.plan(model, small.EXAMPLE, method=method, budget=HALF, task=small.task(), seed=3)
    assert mp.macs(graph, plan) <= 0.5 * mp.macs(graph)
    assert oracle.fingerprint(model) == before
    assert plan == mp.plan(model, small.EXAMPLE, method=method, budget=HALF, task=small.task(), seed=3, graph=graph)
    if method.name != "graph metanetwork":  # whose trial trains
        problem = Problem(model, graph, HALF, small.task(), small.recipe(1, seed=3), progress=False)
        assert plan == method.find(problem).plan


@pytest.mark.parametrize("method", DATALESS, ids=lambda method: method.name)
def test_methods_that_need_no_data_need_no_task(method: Any) -> None:
    plan = mp.plan(small.Small(), small.EXAMPLE, method=method, budget=HALF)
    assert plan.kept


@pytest.mark.parametrize("method", DATALESS, ids=lambda method: method.name)
def test_a_default_device_of_the_callers_changes_no_plan(method: Any) -> None:
    """Here one that holds no values: whatever was made there would be missed."""
    model, graph = known()
    plan = mp.plan(model, small.EXAMPLE, method=method, budget=HALF, graph=graph)
    torch.set_default_device("meta")
    try:
        again = mp.plan(model, small.EXAMPLE, method=method, budget=HALF, graph=graph)
    finally:
        torch.set_default_device(None)
    assert again == plan


@pytest.mark.parametrize("method", ONE_SHOT, ids=lambda method: method.name)
def test_scores_are_per_axis_and_channel_and_rank_what_a_plan_keeps(method: Any) -> None:
    model, graph = known()
    found = mp.scores(model, small.EXAMPLE, method=method, task=small.task(), budget=HALF)
    assert {name: len(values) for name, values in found.items()} == {name: a.size for name, a in graph.free.items()}
    plan = mp.plan(model, small.EXAMPLE, method=method, budget=HALF, task=small.task())
    for axis, kept in plan.kept.items():
        gone = [channel for channel in range(graph.axes[axis].size) if channel not in kept]
        assert found[axis][list(kept)].min() >= found[axis][gone].max()


def test_scores_are_weighed_by_the_cost_that_is_bounded() -> None:
    """Taylor's evidence, a mean square, is divided by the price of a channel: in MACs, or in what the budget bounds."""
    model, method = small.network(), mp.Taylor(batches=2)
    graph = mp.trace(model, small.EXAMPLE)
    by_macs = mp.scores(model, small.EXAMPLE, method=method, task=small.task(), graph=graph)
    by_params = mp.scores(
        model, small.EXAMPLE, method=method, task=small.task(), graph=graph, budget=mp.Budget(params=0.5)
    )
    macs, params = (Allocation(graph, mp.Budget(**{cost: 1.0})).prices({}) for cost in ("macs", "params"))
    ratios = [(by_params[name] / by_macs[name]) ** 2 * params[name] / macs[name] for name in graph.free]
    assert torch.cat(ratios).tolist() == pytest.approx([1.0] * 52, rel=1e-4)
    assert max(params[name] / macs[name] for name in params) > 1.2 * min(params[name] / macs[name] for name in params)
    other = mp.scores(model, small.EXAMPLE, method=method, task=small.task(), graph=graph, seed=5)
    assert not torch.equal(other["stem"], by_macs["stem"])


def test_limits_hold_in_a_plan() -> None:
    plan = mp.plan(small.Small(), small.EXAMPLE, method=mp.Magnitude(), budget=HALF, limits=mp.Limits(keep=["inner"]))
    assert "inner.0" not in plan.kept


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": mp.DHP()}, "DHP decides while it trains; use mp.prune"),
        ({"method": mp.Taylor()}, "Taylor asks the training data; give task="),
        ({"method": mp.Taylor}, "expected a method"),
        ({"budget": 0.5}, "expected the budget as mp.Budget"),
        ({"budget": mp.Budget(macs=1e-9)}, "cannot be met"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(MetapruneError) as caught:
        mp.plan(small.Small(), small.EXAMPLE, **{"method": mp.Magnitude(), "budget": HALF} | fields)
    assert said in str(caught.value)


def test_a_graph_of_another_network_is_refused() -> None:
    graph = mp.trace(torch.nn.Linear(3, 2), (torch.randn(2, 3),))
    with pytest.raises(MetapruneError, match="not of this Small"):
        mp.plan(small.Small(), small.EXAMPLE, method=mp.Magnitude(), budget=HALF, graph=graph)


def test_a_plan_in_a_time_of_ones_own() -> None:
    """Time is what the user's function says: as many milliseconds as there are thousands of parameters."""
    model, graph = known()
    clock = mp.Clock(measure=lambda network: oracle.counted_params(network) / 1000)
    budget = mp.Budget(speedup=1.5, multiple_of=1)
    plan = mp.plan(model, small.EXAMPLE, method=mp.Magnitude(), budget=budget, clock=clock)
    assert 0.6 * mp.params(graph) < mp.params(graph, plan) <= mp.params(graph) / 1.5 * 1.02


def test_every_method_of_the_registry_is_tried_here_or_trains() -> None:
    assert {type(method) for method in ONE_SHOT} == {
        method for method in METHODS.values() if decides_by(method) != "training"
    }
