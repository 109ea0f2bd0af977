"""The direct goal: the loss along a short tuning of the cut network, and what a moving line gives the scores."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

import metaprune as mp
from metaprune.graph.errors import MetapruneError
from metaprune.methods.graph_metanetwork import Direct, Metanetwork
from metaprune.methods.graph_metanetwork.goal import DataModel
from metaprune.methods.graph_metanetwork.metanetwork import Edited
from metaprune.methods.graph_metanetwork.objective import living
from tests.methods import small


def data_model() -> DataModel:
    torch.manual_seed(0)
    model = small.network()
    return DataModel.of("small", model, mp.trace(model, small.EXAMPLE), small.task(), torch.device("cpu"))


def untrained(data: DataModel) -> Edited:
    """No edits and no scores, as leaves."""
    with torch.no_grad():
        edited = Metanetwork(4, 1)(data.read)
    for leaf in (*edited.weights.values(), edited.scores):
        leaf.requires_grad_()
    return edited


def training(model: torch.nn.Module) -> torch.nn.Module:
    """With the statistics of batches."""
    for module in model.eval().modules():
        if isinstance(module, _BatchNorm):
            module.train()
    return model


def test_the_losses_are_those_of_the_cut_network_on_its_way() -> None:
    """Plain gradient descent of the network that was really cut, batch after batch."""
    data, task = data_model(), small.task()
    goal = Direct(low=0.5, high=0.5, dense=0.0, tuning=0.1)
    batches = list(task.train)[:4]
    edited = untrained(data)
    plan = data.plan(data.ranked(edited), 0.5)
    cut = training(mp.slice(data.model, data.graph, plan))
    training(data.model)
    expected = []
    for images, labels in batches:
        loss = task.loss(cut(images), [images, labels])
        expected.append(loss.item() / len(batches))
        gradients = torch.autograd.grad(loss, list(cut.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(cut.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    objectives = goal.objectives(data, task, batches, torch.Generator())
    values = [objective(edited).item() for _, objective in objectives]
    assert values == pytest.approx(expected, rel=1e-4)
    assert values[-1] != pytest.approx(values[0], rel=1e-2)


def test_what_is_handed_on_is_the_gradient_of_a_batch() -> None:
    """Without tuning: that of a network whose dead channels are gated, which autograd finds by itself."""
    data, task = data_model(), small.task()
    batches = list(task.train)[:2]
    found = []
    for tuning in (0.0, 1e-12):
        training(data.model)
        edited = untrained(data)
        goal = Direct(low=0.5, high=0.5, tuning=tuning)
        for _, objective in goal.objectives(data, task, batches, torch.Generator()):
            objective(edited).backward()
        found.append([leaf.grad for leaf in (*edited.weights.values(), edited.scores)])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second)
    scores = found[0][-1]
    assert scores[torch.cat([torch.arange(n.start, n.stop) for n in data.read.free.values()])].any()


def test_the_line_moves_with_the_scores() -> None:
    """By hand: who is raised takes the place of others that cost as much; raising all alike changes nothing."""
    data = data_model()
    edited = untrained(data)
    ranked = data.ranked(edited)
    plan = data.plan(ranked, 0.5)
    goal = Direct(focus=0.7)
    gates = goal.gates(data, plan, ranked, edited.scores)
    alive = living(data.read, plan)
    assert torch.equal(gates.detach(), alive)
    slopes = torch.randn(len(alive), generator=torch.Generator().manual_seed(1))
    (slopes * gates).sum().backward()
    price = data.allocation.prices(plan.widths)
    height = {name: score.log() for name, score in ranked.items()}
    line = max(height[n][alive[nodes] == 0].max() for n, nodes in data.read.free.items() if (alive[nodes] == 0).any())
    near, cost = torch.zeros(len(alive)), torch.zeros(len(alive))
    for name, nodes in data.read.free.items():
        near[nodes] = (-(height[name] - line).abs() / 0.7).exp().float()
        cost[nodes] = price[name]
    expected = near * (slopes - cost * (near * slopes).sum() / (near * cost).sum())
    torch.testing.assert_close(edited.scores.grad, expected)
    assert (near * cost).sum() > 0
    assert not edited.scores.grad[data.read.axes[data.read.axis, 0] == 0].any()


def test_nothing_dead_nothing_to_rank() -> None:
    data = data_model()
    edited = untrained(data)
    gates = Direct().gates(data, mp.Plan({}), data.ranked(edited), edited.scores)
    assert torch.equal(gates, torch.ones(len(gates)))


def test_scores_raise_channels_in_the_ranking() -> None:
    data = data_model()
    edited = untrained(data)
    name, nodes = next(iter(data.read.free.items()))
    scores = edited.scores.detach().clone()
    scores[nodes.start] = 2.0
    before, after = data.ranked(edited), data.ranked(edited._replace(scores=scores))
    assert after[name][0].item() == pytest.approx(before[name][0].item() * torch.tensor(2.0).exp().item())
    assert torch.equal(after[name][1:], before[name][1:])


@pytest.mark.parametrize(
    "wrong", [{"low": 0.0}, {"low": 0.8, "high": 0.7}, {"focus": 0.0}, {"dense": -1.0}, {"tuning": float("inf")}]
)
def test_bad_settings(wrong: dict) -> None:
    with pytest.raises(MetapruneError, match="Direct: expected"):
        replace(copy.copy(Direct()), **wrong)
