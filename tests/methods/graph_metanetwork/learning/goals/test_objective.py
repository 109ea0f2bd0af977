"""Objectives: the gradient of one backward pass, the regulariser by hand, and steps that lower them."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.data import DataLoader

import metaprune as mp
from metaprune.cost.budget import Allocation, Budget
from metaprune.methods.graph_metanetwork import Metanetwork, edit, graph_of
from metaprune.methods.graph_metanetwork.criterion import Weights, importance, relative_importance
from metaprune.methods.graph_metanetwork.learning.goals.objective import (
    Objective,
    add_gradients,
    group_penalty,
    task_loss,
)
from metaprune.methods.graph_metanetwork.reading.masks import living, masked
from tests.laws import oracle
from tests.methods import small
from tests.methods.graph_metanetwork.cases import gradients, stirred, told

BATCHES = list(DataLoader(small.pictures(48, 3), batch_size=16))


def whole(loss: Callable[[Weights], Tensor]) -> Objective:
    """As an objective."""
    return lambda edited: loss(edited.weights)


@pytest.fixture(scope="module")
def trained() -> tuple[torch.nn.Module, mp.ChannelGraph]:
    model = small.network().eval()
    return model, mp.trace(model, small.EXAMPLE)


def test_one_backward_pass_is_enough(trained) -> None:
    """As going back through the metanetwork once for each batch."""
    model, graph = copy.deepcopy(trained[0]).double(), trained[1]
    read = told(graph_of(model, graph))
    metanetwork = stirred()
    task = small.task()
    objectives: list[Objective] = [
        *(whole(task_loss(model, task, [batch[0].double(), batch[1]])) for batch in BATCHES),
        lambda edited: 0.01 * group_penalty(read, edited.weights),
        lambda edited: edited.scores.sin().sum(),
    ]
    total = add_gradients(metanetwork, read, objectives)
    once = gradients(metanetwork)
    naive = 0.0
    for objective in objectives:
        value = objective(metanetwork(read))
        value.backward()
        naive += value.item()
    assert total == pytest.approx(naive, rel=1e-12)
    assert oracle.distance(gradients(metanetwork), once) < 1e-6
    assert all(gradient.abs().sum() > 0 for gradient in once.values())


def test_importance_and_penalty_by_hand(trained) -> None:
    """On the stem's axis: the slices of all weights and scales that hold it, no biases; gamma from 1 to 16."""
    model, graph = trained
    read = graph_of(model, graph)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    expected: dict[str, Tensor] = {name: torch.zeros(axis.size) for name, axis in graph.free.items()}
    for name in weights:
        for dim, term in enumerate(graph.tensors[name]):
            if getattr(term, "name", "") in expected and not name.endswith("bias"):
                expected[term.name] += weights[name].square().movedim(dim, 0).reshape(term.size, -1).sum(1)
    assert len(expected) == 3
    found = importance(read, weights)
    penalty = torch.zeros(())
    for name, squares in expected.items():
        torch.testing.assert_close(found[read.axis == read.names.index(name)], squares)
        strength = squares.sqrt()
        gamma = 16 ** ((strength.max() - strength) / (strength.max() - strength.min()))
        assert gamma.min() == 1
        assert gamma.max() == pytest.approx(16)
        penalty += (gamma * squares).sum() / 2
    torch.testing.assert_close(group_penalty(read, weights), penalty)


def test_channels_that_weigh_the_same_are_no_trouble(trained) -> None:
    model, graph = copy.deepcopy(trained[0]), trained[1]
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1)
    weights = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    group_penalty(graph_of(model, graph), weights).backward()
    assert all(w.grad is None or w.grad.isfinite().all() for w in weights.values())


def test_a_masked_network_is_the_cut_one(trained) -> None:
    model, graph = trained
    read = graph_of(model, graph)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    plan = oracle.half(graph)
    hidden = masked(read, weights, living(read, plan))
    x = BATCHES[0][0]
    expected = mp.slice(model, graph, plan)(x)
    torch.testing.assert_close(functional_call(model, hidden, (x,)), expected)


@pytest.mark.parametrize(("kind", "lr", "steps"), [("paper", 5e-2, 8), ("direct", 2e-2, 25)])
def test_steps_lower_the_objective(trained, kind: str, lr: float, steps: int) -> None:
    model, graph = trained
    read = graph_of(model, graph)
    task = small.task()
    allocation = Allocation(graph, Budget(macs=0.4, multiple_of=1))
    metanetwork = Metanetwork(hidden=8, layers=1, step=0.3)
    optimizer = torch.optim.AdamW(metanetwork.parameters(), lr=lr)

    def objectives() -> list[Objective]:
        losses = [task_loss(model, task, batch) for batch in BATCHES]
        if kind == "paper":
            return [*map(whole, losses), lambda edited: 0.05 * group_penalty(read, edited.weights)]

        def cut(weights):
            alive = living(read, allocation.plan(relative_importance(read, weights)))
            return sum(loss(masked(read, weights, alive)) for loss in losses)

        return [*map(whole, losses), whole(cut)]

    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        values.append(add_gradients(metanetwork, read, objectives()))
        optimizer.step()
    assert sum(values[-3:]) / 3 < 0.9 * values[0]
    assert edit(model, graph, metanetwork) is not model
