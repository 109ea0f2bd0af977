"""Laws of plans and budgets, for the methods that need no training, on every network of the zoo."""

from typing import Any

import pytest
import torch

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.graph import ChannelGraph
from metaprune.methods.method import Method, Problem
from metaprune.methods.registry import METHODS as REGISTERED
from metaprune.methods.registry import decides_by
from tests.laws import oracle
from tests.laws.case import case
from tests.zoo import networks

METHODS: tuple[Method, ...] = tuple(method() for method in REGISTERED.values() if decides_by(method) == "weights")


def reachable(graph: ChannelGraph, cost: str) -> mp.Budget:
    """A budget in the middle between the dense cost and the smallest that can be met, absolute."""
    whole = Allocation(graph, mp.Budget(**{cost: 1.0}, multiple_of=1))
    return mp.Budget(**{cost: max((whole.dense + whole.form.at(whole.least)) // 2, 2)}, multiple_of=1)


def found(method: Method, model: Any, graph: ChannelGraph, budget: mp.Budget) -> mp.Plan:
    return method.find(Problem(model, graph, budget, None, None)).plan  # type: ignore[arg-type]  (nothing is trained)


@pytest.mark.parametrize("name", networks(families=3))
def test_budgets(name: str) -> None:
    """A plan fits its budget; a budget of 1 prunes nothing; same seed, same plan; the model is untouched."""
    model, graph = case(name).model, case(name).graph
    before = oracle.fingerprint(model)
    for cost, price in (("macs", mp.macs), ("params", mp.params)):
        budget = reachable(graph, cost)
        for method in METHODS:
            plan = found(method, model, graph, budget)
            assert price(graph, plan) <= budget.value
            assert found(method, model, graph, budget) == plan
            assert found(method, model, graph, mp.Budget(**{cost: 1.0})).kept == {}
    assert oracle.fingerprint(model) == before
    check_renumbering(model, graph)


def check_renumbering(model: Any, graph: ChannelGraph) -> None:
    """Renumbering channels renumbers the plan: the same channels stay, wherever they stand."""
    generator = torch.Generator().manual_seed(0)
    orders = {axis: torch.randperm(graph.axes[axis].size, generator=generator).tolist() for axis in graph.free}
    permuted = oracle.permute(model, graph, orders)
    budget = reachable(graph, "params")
    for method in (mp.Magnitude(), mp.Uniform()):
        plan, other = found(method, model, graph, budget), found(method, permuted, graph, budget)
        assert {axis: sorted(orders[axis][channel] for channel in kept) for axis, kept in other.kept.items()} == {
            axis: list(kept) for axis, kept in plan.kept.items()
        }
