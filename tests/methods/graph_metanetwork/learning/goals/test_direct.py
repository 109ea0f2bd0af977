"""The direct goal: the loss along a short tuning of the cut network."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

import metaprune as mp
from metaprune.graph.errors import MetapruneError
from metaprune.methods.graph_metanetwork import Direct, Metanetwork, Paper
from metaprune.methods.graph_metanetwork.editor.metanetwork import Edited
from metaprune.methods.graph_metanetwork.learning.goals.data_model import DataModel
from metaprune.methods.graph_metanetwork.learning.goals.direct import _Tuned
from metaprune.methods.graph_metanetwork.learning.goals.goal import Goal
from metaprune.methods.graph_metanetwork.learning.goals.objective import group_penalty, task_loss
from metaprune.methods.graph_metanetwork.reading.masks import living, masked
from tests.methods import small
from tests.methods.graph_metanetwork.cases import stirred


def data_model() -> DataModel:
    torch.manual_seed(0)
    model = small.network()
    return DataModel.of("small", model, mp.trace(model, small.EXAMPLE), small.task(), torch.device("cpu"))


def untrained(data: DataModel) -> Edited:
    """No edits, as leaves."""
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
    goal = Direct(dense=0.0, tuning=0.1)
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
    objectives = goal.objectives(data, task, batches, 0.5)
    values = [objective(edited).item() for _, objective in objectives]
    assert values == pytest.approx(expected, rel=1e-4)
    assert values[-1] != pytest.approx(values[0], rel=1e-2)


def test_what_is_handed_on_is_the_mean_gradient_along_the_way() -> None:
    """By hand, on the masked network: the gradient of each batch where the tuning had come to."""
    data, task = data_model(), small.task()
    batches = list(task.train)[:3]
    training(data.model)
    edited = untrained(data)
    goal = Direct(tuning=0.1, dense=0.0)
    for _, objective in goal.objectives(data, task, batches, 0.5):
        objective(edited).backward()
    alive = living(data.read, data.plan(data.ranked(edited), 0.5))
    now = {name: weight.detach().clone() for name, weight in edited.weights.items()}
    expected = {name: torch.zeros_like(weight) for name, weight in now.items()}
    for batch in batches:
        leaves = {name: weight.clone().requires_grad_() for name, weight in now.items()}
        task_loss(data.model, task, batch)(masked(data.read, leaves, alive)).backward()
        for name, leaf in leaves.items():
            expected[name] += leaf.grad / len(batches)
            now[name] -= 0.1 * leaf.grad
    for name, weight in edited.weights.items():
        torch.testing.assert_close(weight.grad, expected[name])


def test_what_the_budget_is_changes_the_edit() -> None:
    data = data_model()
    metanetwork = stirred().float()
    with torch.no_grad():
        one, two, again = (metanetwork(data.read.aimed(share)) for share in (0.5, 0.2, 0.5))
    assert all(torch.equal(weight, again.weights[name]) for name, weight in one.weights.items())
    assert any(not torch.allclose(weight, two.weights[name]) for name, weight in one.weights.items())
    assert torch.equal(one.scores, again.scores)
    assert not torch.allclose(one.scores, two.scores)


def test_the_papers_objective_by_hand() -> None:
    """The mean of the losses, and the regulariser with its spread, as it is or over what it was before the edit."""
    data, task = data_model(), small.task()
    batches = list(task.train)[:3]
    edited = untrained(data)
    edited = edited._replace(weights={name: 2 * weight for name, weight in edited.weights.items()})
    penalty = group_penalty(data.read, edited.weights, 3.0).item()
    losses = [task_loss(data.model, task, batch)(edited.weights).item() / 3 for batch in batches]
    for relative, expected in ((False, 0.7 * penalty), (True, 0.7 * 4)):
        found = list(Paper(0.7, spread=3.0, relative=relative).objectives(data, task, batches, 0.5))
        assert [name for name, _ in found] == ["loss"] * 3 + ["penalty"]
        assert [objective(edited).item() for _, objective in found] == pytest.approx([*losses, expected], rel=1e-5)
    assert group_penalty(data.read, edited.weights, 4.0).item() != pytest.approx(penalty, rel=1e-2)


def test_by_default_the_papers_regulariser_is_one_before_an_edit() -> None:
    data, task = data_model(), small.task()
    found = dict(Paper().objectives(data, task, list(task.train)[:1], 0.5))
    assert found["penalty"](untrained(data)).item() == pytest.approx(1.0, rel=1e-5)


def test_a_loss_that_does_not_hang_on_a_weight_leaves_it_where_it_is() -> None:
    data = data_model()
    edited = untrained(data)
    name, other = [name for name, weight in edited.weights.items() if weight.dim() > 1][-2:]
    tuned = _Tuned(Direct(tuning=0.1), data, 0.5)
    tuned.step(lambda weights: weights[name].square().sum(), 1.0)(edited).backward()
    assert tuned.moved[name].any()
    assert not tuned.moved[other].any()
    assert edited.weights[other].grad is None


@pytest.mark.parametrize("goal", [Paper(low=0.3, high=0.6), Direct(low=0.3, high=0.6)])
def test_shares_are_drawn_between_low_and_high(goal: Goal) -> None:
    drawn = torch.Generator().manual_seed(0)
    shares = [goal.share(None, drawn) for _ in range(400)]  # type: ignore[arg-type]
    assert 0.3 <= min(shares) < 0.31
    assert 0.59 < max(shares) <= 0.6
    assert sum(shares) / 400 == pytest.approx(0.45, abs=0.02)


def test_how_much_the_whole_network_counts() -> None:
    data, task = data_model(), small.task()
    batches = list(task.train)[:2]
    edited = untrained(data)
    found = list(Direct(dense=0.3).objectives(data, task, batches, 0.5))
    assert [name for name, _ in found] == ["loss", "loss", "dense"]
    whole = task_loss(data.model, task, batches[0])(edited.weights)
    torch.testing.assert_close(found[-1][1](edited), 0.3 * whole)


@pytest.mark.parametrize("wrong", [{"low": 0.0}, {"low": 0.8, "high": 0.7}, {"dense": -1.0}, {"tuning": float("inf")}])
def test_bad_settings(wrong: dict) -> None:
    with pytest.raises(MetapruneError, match="Direct: expected"):
        replace(copy.copy(Direct()), **wrong)
