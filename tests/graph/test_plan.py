"""Plans: what is none is refused in words, one after the other is one, and JSON gives back the same."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.graph.errors import PlanError


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ([0, 1], "expected a mapping from axis names to kept channels, got list"),
        ({"a": 3}, "axis 'a': expected a sequence of whole numbers, the channels that stay, got 3"),
        ({"a": [0, 1.5]}, "axis 'a': expected a sequence of whole numbers"),
        ({"a": ["x"]}, "axis 'a': expected a sequence of whole numbers"),
        ({"a": [float("inf")]}, "axis 'a': expected a sequence of whole numbers"),
        ({"a": [1, 0]}, "axis 'a': kept channels must be ascending and different, got (1, 0)"),
        ({"a": [0, 0]}, "axis 'a': kept channels must be ascending and different, got (0, 0)"),
        ({"a": [5, *range(8)]}, "must be ascending and different, got (5, 0, 1, 2, 3, 4, …)"),
    ],
    ids=str,
)
def test_what_is_no_plan_is_refused(kept: Any, said: str) -> None:
    with pytest.raises(PlanError, match=re.escape(said)):
        mp.Plan(kept)


def test_whole_numbers_of_any_kind_are_channels() -> None:
    plan = mp.Plan({"a": np.array([0, 2]), "b": torch.tensor([1]), "c": (0.0, 3.0), "d": range(2)})
    assert plan.kept == {"a": (0, 2), "b": (1,), "c": (0, 3), "d": (0, 1)}
    assert all(type(channel) is int for stays in plan.kept.values() for channel in stays)
    assert plan.widths == {"a": 2, "b": 1, "c": 2, "d": 2}
    assert list(plan) == ["a", "b", "c", "d"]


def test_one_after_the_other() -> None:
    """The second counts in what the first one left."""
    both = mp.Plan({"a": [1, 4, 6], "b": [0]}).then(mp.Plan({"a": [0, 2], "c": [3]}))
    assert both.kept == {"a": (1, 6), "b": (0,), "c": (3,)}


def test_json_is_sorted_and_equal_plans_are_one() -> None:
    plan = mp.Plan({"b": [1], "a": [0, 2]})
    assert plan.to_json() == '{"a": [0, 2], "b": [1]}'
    assert mp.Plan.from_json(plan.to_json()) == plan
    assert len({plan, mp.Plan({"a": [0, 2], "b": (1,)})}) == 1
    for text, said in (("{", "expected JSON of axis names and kept channels, got '{'"), ("[1]", "got list")):
        with pytest.raises(PlanError, match=re.escape(said)):
            mp.Plan.from_json(text)


def test_a_plan_must_fit_its_graph() -> None:
    graph = mp.trace(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), (torch.zeros(2, 3),))
    for kept, said in (
        ({"b": [0]}, "plan: the graph has no axis 'b'; free axes are 0 …"),
        ({"0": []}, "axis '0': expected at least one kept channel, all inside [0, 4), got ()"),
        ({"0": [-1, 2]}, "axis '0': expected at least one kept channel, all inside [0, 4), got (-1, 2)"),
        ({"0": [3, 4]}, "axis '0': expected at least one kept channel, all inside [0, 4), got (3, 4)"),
        ({"1": [1]}, "axis '1' must keep its 2 channels (it is a size of the output), got 1"),
    ):
        with pytest.raises(PlanError, match=re.escape(said)):
            mp.Plan(kept).check(graph)
    mp.Plan({"0": [0, 3], "1": [0, 1]}).check(graph)  # what stays whole may be fixed


def test_of_many_axes_six_are_named() -> None:
    graph = mp.trace(nn.Sequential(*(nn.Linear(3, 3) for _ in range(9))), (torch.zeros(2, 3),))
    assert len(graph.free) == 8
    with pytest.raises(PlanError, match=r"free axes are 0, 1, 2, 3, 4, 5 … \(print the graph\)"):
        mp.Plan({"b": [0]}).check(graph)
