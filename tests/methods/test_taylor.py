"""One shot by evidence: gates' gradients, and the scores by hand."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.methods.gates.terms import counted_axes
from metaprune.methods.method import Problem
from metaprune.methods.saliency import _gates, gate_gradients
from tests.laws import oracle
from tests.methods import small
from tests.zoo import ZOO

BATCHES = 3


def in_order(task: mp.Task) -> mp.Task:
    """The same with batches that come in one order, in float64."""
    return replace(task, train=[[images.double(), labels] for images, labels in task.train])


def gated(model: nn.Module, graph: mp.ChannelGraph, axis: str, channel: int, gate: float, *roles: str) -> nn.Module:
    """A copy whose parameters are multiplied wherever they hold a channel, or have one of some roles there."""
    model = copy.deepcopy(model)
    places = {(use.tensor, use.dim) for use in graph.uses if use.axis == axis and use.role in roles}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for dim, term in enumerate(graph.tensors[name]):
                if getattr(term, "name", "") == axis and (not roles or (name, dim) in places):
                    parameter.select(dim, channel).mul_(gate)
    return model


@pytest.mark.parametrize("held", [False, True])
def test_a_gates_gradient_is_a_difference_of_losses(held: bool) -> None:
    """Where the axis is read, or wherever it stands, norms and biases too; in evaluation mode, whatever the mode."""
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    model, task = model.double().train(), in_order(small.task())
    found = gate_gradients(model, graph, task, BATCHES, held=held)
    assert model.training
    step, roles = 1e-7, () if held else ("reads",)  # so small a step that no activation passes zero
    for axis, rows in found.items():
        assert rows.shape == (BATCHES, graph.axes[axis].size)
        for channel in (0, 3):
            more, less = (gated(model, graph, axis, channel, 1 + s, *roles).eval() for s in (step, -step))
            for row, (images, labels) in zip(rows, task.train, strict=False):
                slope = (task.loss(more(images), [images, labels]) - task.loss(less(images), [images, labels])) / 2
                assert row[channel].item() == pytest.approx(slope.item() / step, rel=1e-5, abs=1e-9)


def squares(output: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (output * batch[1]).mean()


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v2", "convnext", "vit", "gpt", "unet", "shufflenet_v2", "mixer"])
def test_the_loss_changes_by_it_when_a_channel_goes_that_says_little(name: str) -> None:
    """To first order: of channels that small weights read, where weights alone read them and no norm runs over them."""
    model, args, kwargs = ZOO[name].example()
    graph = mp.trace(model, args, kwargs)
    shared = {use.axis for use in graph.uses if getattr(graph.tensors[use.tensor][use.dim], "name", "") != use.axis}
    read = [axis for axis in graph.free if axis not in {*graph.unabsorbed, *counted_axes(graph), *shared}]
    assert read
    generator, little = torch.Generator().manual_seed(0), 1e-4
    output = model(*args, **kwargs)
    batch = (args[0], torch.randn(output.shape, generator=generator, dtype=output.dtype))
    task = mp.Task([batch], [batch], None, squares, lambda output, batch: (0.0, 1), inputs=lambda batch: (args, kwargs))
    for axis in read:
        quiet = gated(model, graph, axis, 1, little, "reads")
        rows = gate_gradients(quiet, graph, task)[axis]
        kept = tuple(channel for channel in range(graph.axes[axis].size) if channel != 1)
        with torch.no_grad():
            before, after = (
                squares(net(*args, **kwargs), batch) for net in (quiet, mp.mask(quiet, graph, mp.Plan({axis: kept})))
            )
        assert rows[0, 1].item() == pytest.approx((before - after).item(), rel=5e-3, abs=1e-12), axis


@pytest.mark.parametrize("name", ["hf_mamba", "layer_norm_mlp", "vit", "gpt", "lstm", "gru", "tied_autoencoder"])
def test_every_axis_has_gates(name: str) -> None:
    """Those that weights alone do not read, or only carry, too: else they would seem to say nothing."""
    model, args, kwargs = ZOO[name].example()
    graph = mp.trace(model, args, kwargs)
    gates = _gates(graph, held=False)
    assert gates.places is not None
    assert {axis for _, _, axis in gates.places} >= graph.free.keys()
    assert gates.sides.keys() == graph.free.keys()


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


@pytest.mark.parametrize("wrong", [{"batches": 0}, {"cost_power": -1.0}, {"cost_power": float("inf")}, {"held": 1}])
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
