"""Bad input: up to three clear lines from a named error, and the given model unchanged."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import BudgetError, MetapruneError, PlanError, TraceError
from tests.laws.oracle import fingerprint
from tests.zoo import ZOO


@contextmanager
def refused(error: type[MetapruneError], *words: str) -> Iterator[None]:
    """The block raises this error, in up to three lines that hold these words."""
    with pytest.raises(error) as caught:
        yield
    line = str(caught.value)
    assert len(line.splitlines()) <= 3
    assert 20 < len(line) < 500
    assert all(word in line for word in words), line


class Broken(nn.Module):
    """An error of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("first line\nsecond line")


@cache
def known() -> tuple[nn.Module, mp.ChannelGraph]:
    """A network, which nothing that is refused changes, and its graph."""
    model, args, kwargs = ZOO["resnet"].example()
    return model, mp.trace(model, args, kwargs)


PICTURE = torch.zeros(2, 3, 8, 8)
TRACES: dict[str, tuple[Any, Any, Any, tuple[str, ...]]] = {
    "an error inside": (Broken(), (torch.ones(2, 4),), None, ("Broken", "first line")),
    "too few channels": (ZOO["resnet"].build(), (torch.zeros(2, 1, 8, 8),), None, ("ResNet",)),
    "no inputs": (ZOO["resnet"].build(), (), None, ("ResNet",)),
    "unknown keyword": (ZOO["resnet"].build(), (PICTURE,), {"mask": PICTURE}, ("ResNet",)),
    "numbers where tokens belong": (ZOO["gpt"].build(), (torch.rand(2, 6),), None, ("Gpt",)),
    "a tensor for a tuple": (ZOO["resnet"].build(), PICTURE, None, ("tuple", "Tensor")),
    "a list for a dictionary": (ZOO["resnet"].build(), (PICTURE,), [PICTURE], ("kwargs", "list")),
    "a function": (torch.relu, (PICTURE,), None, ("nn.Module",)),
    "a class": (nn.ReLU, (PICTURE,), None, ("nn.Module", "type")),
}


@pytest.mark.parametrize("kind", TRACES)
def test_trace(kind: str) -> None:
    model, args, kwargs, words = TRACES[kind]
    before = fingerprint(model) if isinstance(model, nn.Module) else None
    with refused(TraceError, *words):
        mp.trace(model, args, kwargs)
    assert before is None or fingerprint(model) == before


PLANS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "no mapping": ([0, 1], ("mapping", "list")),
    "unsorted": ({"conv1": [2, 1]}, ("conv1", "ascending", "2, 1")),
    "repeated": ({"conv1": [1, 1]}, ("conv1", "different")),
    "not whole": ({"conv1": [0.5, 1]}, ("conv1", "whole")),
    "words": ({"conv1": "all"}, ("conv1", "whole")),
    "a width": ({"conv1": 4}, ("conv1", "channels")),
    "a mask": ({"conv1": [True, False, True]}, ("conv1",)),
    "none at all": ({"conv1": None}, ("conv1",)),
}


@pytest.mark.parametrize("kind", PLANS)
def test_plan(kind: str) -> None:
    kept, words = PLANS[kind]
    with refused(PlanError, "plan" if kind == "no mapping" else "axis", *words):
        mp.Plan(kept)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "3", '{"conv1": 4}', '{"conv1": [3, 1]}', '{"conv1": [1.5]}'])
def test_plan_from_text(text: str) -> None:
    with refused(PlanError, "expected" if "[3, 1]" not in text else "ascending"):
        mp.Plan.from_json(text)


MISFITS: dict[str, tuple[dict[str, list[int]], tuple[str, ...]]] = {
    "unknown axis": ({"layer9": [0]}, ("layer9", "conv1")),
    "above the size": ({"conv1": [0, 8]}, ("conv1", "[0, 8)", "0, 8")),
    "below zero": ({"conv1": [-1, 0]}, ("conv1", "[0, 8)", "-1")),
    "nothing stays": ({"conv1": []}, ("conv1", "at least one")),
    "the input": ({"x:1": [0]}, ("x:1", "3", "input")),
    "the output": ({"linear": [0, 1]}, ("linear", "10", "output")),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_plan_that_does_not_fit(kind: str) -> None:
    model, graph = known()
    before = fingerprint(model)
    kept, words = MISFITS[kind]
    for use in (mp.slice, mp.mask):
        with refused(PlanError, *words):
            use(model, graph, mp.Plan(kept))
    for price in (mp.macs, mp.params):
        with refused(PlanError, *words):
            price(graph, mp.Plan(kept))
    assert fingerprint(model) == before


@pytest.mark.parametrize("other", ["vgg", "gpt", "resnet_bottleneck"])
def test_graph_of_another_network(other: str) -> None:
    _, graph = known()
    stranger, *_ = ZOO[other].example()
    before = fingerprint(stranger)
    for use in (mp.slice, mp.mask):
        with refused(MetapruneError, "graph"):
            use(stranger, graph, mp.Plan({"conv1": [0, 1]}))
    assert fingerprint(stranger) == before


def test_network_that_was_cut_already() -> None:
    model, graph = known()
    small = mp.slice(model, graph, mp.Plan({"conv1": [0, 1]}))
    with refused(MetapruneError, "graph"):
        mp.slice(small, graph, mp.Plan({"conv1": [0, 1]}))


BUDGETS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "none": ({}, ("macs", "params", "latency")),
    "one of two": ({"macs": 0.5, "params": -0.5}, ("params", "-0.5")),
    "zero": ({"macs": 0}, ("macs", "above 0")),
    "nothing stays": ({"params": 0.0}, ("params", "above 0")),
    "negative": ({"macs": -0.5}, ("macs", "-0.5")),
    "more than all": ({"macs": 1.5}, ("macs", "1.5")),
    "not a number": ({"macs": float("nan")}, ("macs", "nan")),
    "infinite": ({"macs": float("inf")}, ("macs", "inf")),
    "words": ({"macs": "half"}, ("macs", "half")),
    "a switch": ({"macs": True}, ("macs", "True")),
    "no time": ({"latency": 0}, ("latency", "above 0")),
    "steps of zero": ({"macs": 0.5, "multiple_of": 0}, ("multiple_of", "0")),
    "broken steps": ({"macs": 0.5, "multiple_of": 1.5}, ("multiple_of", "1.5")),
}


@pytest.mark.parametrize("kind", BUDGETS)
def test_budget(kind: str) -> None:
    fields, words = BUDGETS[kind]
    with refused(BudgetError, "budget", *words):
        mp.Budget(**fields)


@pytest.mark.parametrize("budget", [mp.Budget(macs=0.0001), mp.Budget(params=1e-4, multiple_of=1), mp.Budget(macs=2)])
def test_budget_below_what_is_possible_names_the_smallest(budget: mp.Budget) -> None:
    _, graph = known()
    with refused(BudgetError, "smallest possible is"):
        Allocation(graph, budget)
