"""Laws of plans and budgets for the methods that ask data, on one small network: Taylor and graph metanetworks."""

from functools import cache

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.graph.graph import ChannelGraph
from metaprune.methods.method import Method, Problem
from tests.laws import oracle
from tests.laws.test_budgets import reachable
from tests.methods import small

METHODS = (mp.Taylor(batches=2), mp.GraphMetanetwork(trial=0), mp.GraphMetanetwork(trial=0, criterion="importance"))
methods = pytest.mark.parametrize("method", METHODS, ids=["Taylor", "blend", "importance"])


@cache
def traced() -> tuple[nn.Module, ChannelGraph]:
    model = small.network()
    return model, mp.trace(model, small.EXAMPLE)


def found(method: Method, model: nn.Module, budget: mp.Budget) -> mp.Plan:
    recipe = small.recipe(1)
    return method.find(Problem(model, traced()[1], budget, small.task(), recipe, None, False, at_once=True)).plan


@methods
@pytest.mark.parametrize("cost", ["macs", "params"])
def test_budgets(method: Method, cost: str) -> None:
    """A plan fits its budget; a budget of 1 prunes nothing; same seed, same plan; the model is untouched."""
    model, graph = traced()
    before = oracle.fingerprint(model)
    budget = reachable(graph, cost)
    plan = found(method, model, budget)
    assert getattr(mp, cost)(graph, plan) <= budget.value
    assert plan.kept
    assert found(method, model, budget) == plan
    assert found(method, model, mp.Budget(**{cost: 1.0})).kept == {}
    assert oracle.fingerprint(model) == before


@methods
def test_renumbering_channels_renumbers_the_plan(method: Method) -> None:
    model, graph = traced()
    generator = torch.Generator().manual_seed(0)
    orders = {axis: torch.randperm(graph.axes[axis].size, generator=generator).tolist() for axis in graph.free}
    permuted = oracle.permute(model, graph, orders)
    budget = reachable(graph, "params")
    plan, other = found(method, model, budget), found(method, permuted, budget)
    assert {axis: sorted(orders[axis][channel] for channel in kept) for axis, kept in other.kept.items()} == {
        axis: list(kept) for axis, kept in plan.kept.items()
    }
