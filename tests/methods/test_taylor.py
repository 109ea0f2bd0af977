"""One shot by evidence: gates' gradients, and the scores by hand."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.methods.method import Problem
from metaprune.methods.saliency import gate_gradients
from tests.laws import oracle
from tests.methods import small

BATCHES = 3


def in_order(task: mp.Task) -> mp.Task:
    """The same with batches that come in one order, in float64."""
    return replace(task, train=[[images.double(), labels] for images, labels in task.train])


def gated(model: nn.Module, graph: mp.ChannelGraph, axis: str, channel: int, gate: float) -> nn.Module:
    """A copy whose parameters are multiplied wherever they hold a channel."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for dim, term in enumerate(graph.tensors[name]):
                if getattr(term, "name", "") == axis:
                    parameter.select(dim, channel).mul_(gate)
    return model


def test_a_gates_gradient_is_a_difference_of_losses() -> None:
    """Wherever the axis stands, norms and biases among it; in evaluation mode, whatever the mode."""
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    model, task = model.double().train(), in_order(small.task())
    found = gate_gradients(model, graph, task, BATCHES)
    assert model.training
    step = 1e-7  # so small that no activation passes zero
    for axis, rows in found.items():
        assert rows.shape == (BATCHES, graph.axes[axis].size)
        for channel in (0, 3):
            more, less = (gated(model, graph, axis, channel, 1 + s).eval() for s in (step, -step))
            for row, (images, labels) in zip(rows, task.train, strict=False):
                slope = (task.loss(more(images), [images, labels]) - task.loss(less(images), [images, labels])) / 2
                assert row[channel].item() == pytest.approx(slope.item() / step, rel=1e-5, abs=1e-9)


def test_frozen_parameters_are_asked_too() -> None:
    model, task = small.network(), in_order(small.task())
    graph = mp.trace(model, small.EXAMPLE)
    before = gate_gradients(model.double(), graph, task, BATCHES)
    after = gate_gradients(copy.deepcopy(model).requires_grad_(False), graph, task, BATCHES)
    for axis, rows in before.items():
        torch.testing.assert_close(after[axis], rows)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_plan_follows_the_evidence_per_cost(power: float) -> None:
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    budget, task = mp.Budget(macs=0.5, multiple_of=1), small.task()
    found = mp.Taylor(BATCHES, power).find(Problem(model, graph, budget, task, small.recipe(seed=3)))
    allocation = Allocation(graph, budget)
    price = allocation.prices({})
    for axis, rows in gate_gradients(model, graph, task, BATCHES, seed=3).items():
        torch.testing.assert_close(found.scores[axis], (rows.square().mean(0) / price[axis] ** power).sqrt())
    assert found.plan.kept == allocation.plan(found.scores).kept
    assert found.epochs == 0
    assert found.model is model


def test_renumbered_channels_have_the_same_evidence() -> None:
    model = small.network().double()
    graph = mp.trace(model.float(), small.EXAMPLE)
    generator = torch.Generator().manual_seed(3)
    orders = {axis: torch.randperm(a.size, generator=generator).tolist() for axis, a in graph.free.items()}
    moved, task = oracle.permute(model, graph, orders).double(), in_order(small.task())
    before, after = (gate_gradients(m.double(), graph, task, BATCHES) for m in (model, moved))
    for axis, order in orders.items():
        torch.testing.assert_close(after[axis], before[axis][:, order])


def test_nothing_is_left_behind() -> None:
    """Neither gradients nor random numbers."""
    model, task = small.network(), small.task()
    graph = mp.trace(model, small.EXAMPLE)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    gate_gradients(model, graph, task, BATCHES)
    assert torch.equal(torch.rand(3), expected)
    assert all(p.grad is None for p in model.parameters())


def test_without_data_there_is_nothing_to_ask() -> None:
    model, task = small.network(), replace(small.task(), train=[])
    graph = mp.trace(model, small.EXAMPLE)
    assert {len(rows) for rows in gate_gradients(model, graph, task).values()} == {0}
    with pytest.raises(MetapruneError, match="expected training data to ask"):
        mp.Taylor().find(Problem(model, graph, mp.Budget(macs=0.5), task, small.recipe()))


@pytest.mark.parametrize("wrong", [{"batches": 0}, {"cost_power": -1.0}, {"cost_power": float("inf")}])
def test_bad_settings(wrong: dict) -> None:
    with pytest.raises(MetapruneError, match=f"Taylor: expected {next(iter(wrong))}"):
        mp.Taylor(**wrong)


def test_asked_twice_the_data_say_the_same() -> None:
    """The batches come shuffled, in the same order each time; another seed has another."""
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    first, again = (gate_gradients(model, graph, small.task(), 3, seed=4) for _ in range(2))
    assert all(torch.equal(first[axis], again[axis]) for axis in first)
    other = gate_gradients(model, graph, small.task(), 3, seed=5)
    assert not any(torch.equal(first[axis], other[axis]) for axis in first)
