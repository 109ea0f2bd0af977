"""Allocations around what criteria keep: within the budget, each once, and where they say they are."""

from functools import cache

import pytest
import torch
from torch import Tensor

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.plan import ratios_of
from metaprune.methods.graph_metanetwork.learning.lessons.allocations import (
    around,
    between,
    children,
    directions,
)
from metaprune.methods.saliency import group_norms
from tests.methods import small


@cache
def given() -> tuple[Allocation, dict[str, Tensor], dict[str, mp.Plan]]:
    torch.manual_seed(0)
    model = small.Small()
    graph = mp.trace(model, small.EXAMPLE)
    allocation = Allocation(graph, mp.Budget(macs=0.4, multiple_of=1))
    heights = group_norms(model, graph)
    return allocation, heights, {"own": allocation.plan(heights), "uniform": allocation.proportional(heights)}


def test_all_are_within_the_budget_use_it_and_differ() -> None:
    allocation, heights, rivals = given()
    found = around(allocation, heights, rivals, 16, 0)
    assert list(found)[:2] == ["own", "uniform"]
    assert len(found) == 16 == len({plan.to_json() for plan in found.values()})
    for plan in found.values():
        assert allocation.form.at(plan.widths) <= allocation.limit
        for name, kept in plan.kept.items():  # which channels stay is the ranking's word
            assert set(kept) == set(heights[name].argsort()[-len(kept) :].tolist())
    assert found == around(allocation, heights, rivals, 16, 0)
    assert list(around(allocation, heights, rivals, 1, 0)) == ["own", "uniform"], "rivals are always tried"


def test_tilts_go_where_they_say() -> None:
    allocation, heights, rivals = given()
    found = around(allocation, heights, rivals, 40, 0)
    assert {"depth", "size"} <= directions(allocation.graph).keys()
    for what, direction in directions(allocation.graph).items():
        values = torch.tensor(list(direction.values()))
        assert values.mean().abs() < 1e-6
        assert values.std() == pytest.approx(1)
        if f"more with {what}" in found and f"less with {what}" in found:
            more, less = (ratios_of(allocation.graph, found[f"{word} with {what}"]) for word in ("more", "less"))
            assert sum(direction[name] * (more[name] - less[name]) for name in more) > 0


def test_half_way() -> None:
    assert between({"a": 0.25, "b": 1.0}, {"a": 1.0, "b": 1.0}) == {"a": 0.5, "b": 1.0}


def test_children_are_new() -> None:
    allocation, heights, rivals = given()
    known = around(allocation, heights, rivals, 8, 0)
    more = children(allocation, heights, known, list(known)[:4], 3, 0)
    assert len(more) == 3
    assert not more.keys() & known.keys()
    assert {plan.to_json() for plan in more.values()}.isdisjoint(plan.to_json() for plan in known.values())
    assert all(allocation.form.at(plan.widths) <= allocation.limit for plan in more.values())
