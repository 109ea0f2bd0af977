"""Training: it learns, follows its schedule, and leaves alone what is not its own."""

import copy
import logging
import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from metaprune.train import Classification, Recipe, Task, TaskError, TrainError, engine, evaluate, fit
from metaprune.train.callbacks import Callback, Moment
from metaprune.train.optimizers import as_moved, by_default, optimizer_of
from metaprune.train.processes import ALONE
from metaprune.train.recipe import pick_precision
from metaprune.train.scores import scores, scores_of_outputs
from metaprune.train.several.launching import fabric_of


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_it_learns(network: nn.Module, task: Task, recipe: Recipe, precision: str, optimizer: str) -> None:
    recipe = replace(recipe, precision=precision, optimizer=optimizer, epochs=10)  # type: ignore[arg-type]
    history = fit(network, task, recipe, progress=False)
    assert [row.epoch for row in history.rows] == list(range(1, 11))
    assert history.rows[-1].metric > 90
    assert history.rows[-1].metric == evaluate(network, task.val, task, recipe)
    assert history.rows[-1].loss < history.rows[0].loss


def test_the_same_seed_gives_the_same_weights(network: nn.Module, task: Task, recipe: Recipe) -> None:
    twin, other = copy.deepcopy(network), copy.deepcopy(network)
    fit(network, task, recipe, progress=False)
    torch.rand(7)
    fit(twin, task, recipe, progress=False)
    fit(other, task, replace(recipe, seed=1), progress=False)
    assert same(weights(network), weights(twin))
    assert not same(weights(network), weights(other))


def test_modes_layout_gradients_and_random_numbers_are_given_back(
    network: nn.Module, task: Task, recipe: Recipe
) -> None:
    """The layout meanwhile is the recipe's; filters of one channel would be the same in both."""
    layouts: set[bool] = set()

    class Looking(Callback):
        def on_step(self, moment: Moment) -> None:
            layouts.add(network[3].weight.is_contiguous(memory_format=torch.channels_last))

    network = nn.Sequential(*network[:3], nn.Conv2d(4, 4, 3, padding=1), *network[3:])
    network.eval()
    network[1].train()
    modes = [module.training for module in network.modules()]
    strides = [parameter.stride() for parameter in network.parameters()]
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    fit(network, task, recipe, callbacks=[Looking()], progress=False)
    evaluate(network, task.val, task, recipe)
    assert layouts == {True}
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert [module.training for module in network.modules()] == modes
    assert [parameter.stride() for parameter in network.parameters()] == strides
    assert all(parameter.grad is None for parameter in network.parameters())


def test_modes_and_random_numbers_are_given_back_after_an_error(network: nn.Module, task: Task, recipe: Recipe) -> None:
    class Stopping(Callback):
        def on_step(self, moment: Moment) -> None:
            raise KeyboardInterrupt

    network.eval()
    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        fit(network, task, recipe, callbacks=[Stopping()], progress=False)
    assert not network.training
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluating_changes_nothing(network: nn.Module, task: Task, recipe: Recipe) -> None:
    before = weights(network)
    assert evaluate(network, task.val, task, recipe) == evaluate(network, task.val, task, recipe)
    assert same(before, weights(network))


def test_frozen_parameters_stay(network: nn.Module, task: Task, recipe: Recipe) -> None:
    network[0].weight.requires_grad_(False)
    before = weights(network)
    groups = [{"params": list(network.parameters())}]
    for parameters in (None, groups):
        fit(network, task, recipe, parameters=parameters, progress=False)
    after = weights(network)
    assert torch.equal(before["0.weight"], after["0.weight"])
    assert not torch.equal(before["5.weight"], after["5.weight"])
    assert not network[0].weight.requires_grad


def test_norms_and_biases_do_not_decay(network: nn.Module, task: Task, recipe: Recipe) -> None:
    silent = replace(task, loss=lambda output, batch: 0.0 * output.sum())
    before = weights(network)
    fit(network, silent, replace(recipe, weight_decay=0.1), progress=False)
    after = weights(network)
    assert all(after[key].norm() < before[key].norm() for key in ("0.weight", "5.weight"))
    assert all(torch.equal(after[key], before[key]) for key in ("0.bias", "1.weight", "1.bias", "5.bias"))


def test_one_schedule_spans_two_phases(network: nn.Module, task: Task, recipe: Recipe) -> None:
    """Without momentum, whose memory ends with a phase, two phases are the same as one."""
    recipe = replace(recipe, momentum=0.0, warmup=1.0)
    twin = copy.deepcopy(network)
    whole = fit(network, task, recipe, progress=False)
    parts = [
        *fit(twin, task, recipe, stop=2, name="search", progress=False).rows,
        *fit(twin, task, recipe, start=2, name="rest", progress=False).rows,
    ]
    assert same(weights(network), weights(twin))
    assert [row.loss for row in parts] == [row.loss for row in whole.rows]
    assert [(row.epoch, row.phase) for row in parts] == [(1, "search"), (2, "search"), (3, "rest")]


class Counting:
    """A projector that only counts."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def after_step(self, step: int, steps: int) -> None:
        self.seen.append((step, steps))

    def state_dict(self) -> dict[str, Any]:
        return {"seen": len(self.seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = [(-1, -1)] * state["seen"]


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 12), (5, 3)])
def test_after_step_sees_every_step_of_its_phase(
    network: nn.Module, task: Task, recipe: Recipe, accumulate: int, steps: int
) -> None:
    """Two epochs of six batches: the last two of twelve make a step too, where five are accumulated."""
    counting, recipe = Counting(), replace(recipe, accumulate=accumulate)
    fit(network, task, recipe, start=1, during=[counting], progress=False)
    assert counting.seen == [(step, steps) for step in range(steps)]
    assert recipe.steps(6, 2) == steps


def test_nothing_to_do(network: nn.Module, task: Task, recipe: Recipe) -> None:
    before = weights(network)
    assert fit(network, task, recipe, start=3, progress=False).rows == []
    assert same(before, weights(network))


def test_groups_follow_the_schedule_in_proportion(network: nn.Module, task: Task, recipe: Recipe) -> None:
    """With sign-like steps removed: plain SGD moves each weight by its rate times the gradient."""
    recipe = replace(recipe, momentum=0.0, weight_decay=0.0, epochs=1)
    linear = replace(task, loss=lambda output, batch: output.sum())
    head, rest = [network[5].weight], [p for p in network.parameters() if p is not network[5].weight]
    network[5].bias.requires_grad_(False)
    twin = copy.deepcopy(network)
    start = network[5].weight.clone()
    frozen = [{"params": rest, "lr": 1e-30}]
    fit(network, linear, recipe, parameters=[*frozen, {"params": head, "lr": 0.01}], progress=False)
    moved = network[5].weight - start
    head, rest = [twin[5].weight], [p for p in twin.parameters() if p is not twin[5].weight]
    frozen = [{"params": rest, "lr": 1e-30}]
    fit(twin, linear, recipe, parameters=[*frozen, {"params": head, "lr": 0.02}], progress=False)
    torch.testing.assert_close(twin[5].weight - start, 2 * moved)


def test_the_schedule() -> None:
    recipe = Recipe(epochs=10, lr=0.4, warmup=2.0)
    assert recipe.lr_at(0.5) == pytest.approx(0.1)
    assert recipe.lr_at(2) == pytest.approx(0.4)
    assert recipe.lr_at(6) == pytest.approx(0.2)
    assert recipe.lr_at(10) == pytest.approx(0.0)
    assert replace(recipe, schedule="constant").lr_at(9) == 0.4
    steps = replace(recipe, schedule="steps", milestones=(5.0, 7.5))
    assert [steps.lr_at(epoch) for epoch in (4.9, 5.0, 7.4, 7.5)] == pytest.approx([0.4, 0.04, 0.04, 0.004])


def test_gradients_are_clipped(network: nn.Module, task: Task, recipe: Recipe) -> None:
    recipe = replace(recipe, epochs=1, max_steps=1, momentum=0.0, weight_decay=0.0, lr=1.0, schedule="constant")
    steep = replace(task, loss=lambda output, batch: 1e4 * output.sum())
    before = torch.cat([p.detach().flatten() for p in network.parameters()]).clone()
    fit(network, steep, replace(recipe, clip_norm=0.01), progress=False)
    after = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.01, rel=1e-3)


class Described(nn.Module):
    """Takes a positional and a keyword argument, and returns a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 1)

    def forward(self, image: Tensor, *, scale: Tensor) -> dict[str, Tensor]:
        return {"y": self.linear(image.flatten(1)) * scale}


def test_any_batch_any_output(recipe: Recipe) -> None:
    x, scale = torch.randn(32, 1, 4, 4), torch.rand(32, 1)
    rows = [{"x": x[i], "scale": scale[i], "y": x[i].sum().view(1) * scale[i]} for i in range(32)]
    loader = DataLoader(rows, batch_size=8)
    task = Task(
        loader,
        loader,
        None,
        loss=lambda output, batch: (output["y"] - batch["y"]).square().mean(),
        metric=lambda output, batch: ((output["y"] - batch["y"]).abs().sum(), len(batch["y"])),
        metric_name="error",
        higher_is_better=False,
        inputs=lambda batch: ((batch["x"],), {"scale": batch["scale"]}),
    )
    history = fit(Described(), task, replace(recipe, epochs=20), progress=False)
    assert history.rows[-1].metric < 0.2 * history.rows[0].metric


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite(network: nn.Module, task: Task, recipe: Recipe, bad: float) -> None:
    calls: list[int] = []

    def loss(output: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(1)
        return task.loss(output, batch) * (bad if len(calls) == 9 else 1.0)

    rate = f"{recipe.lr_at(1 + 2.5 / 6):.3g}"
    with pytest.raises(TrainError, match=rf"the loss is {bad} at epoch 2, step 3 of 6, lr {rate}; lower the learning"):
        fit(network, replace(task, loss=loss), recipe, progress=False)


def test_bad_numbers_are_never_saved(
    network: nn.Module, task: Task, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from metaprune.train import Checkpoint

    calls: list[int] = []

    def loss(output: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(1)
        return task.loss(output, batch) * (float("nan") if len(calls) == 4 else 1.0)

    checkpoint = Checkpoint(tmp_path_factory.mktemp("run"), seconds=0)
    with pytest.raises(TrainError, match="lower the learning rate"):
        fit(network, replace(task, loss=loss), recipe, checkpoint=checkpoint, progress=False)
    assert not all(parameter.isfinite().all() for parameter in network.parameters())
    tree = checkpoint.load()
    assert (tree["epoch"], tree["batch"]) == (0, 3)
    assert all(value.isfinite().all() for value in tree["modules"]["network"].values())


def test_the_recipe_says_how_many_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are started where it asks for several, and for nobody else."""
    asked: list[Any] = []
    monkeypatch.setattr(engine, "_fabric", asked.append)
    monkeypatch.setattr(engine, "group_of", lambda _: ALONE)
    what = engine.in_processes(lambda *args, **kwargs: (args, kwargs))
    one, two = Recipe(1, device="cpu"), Recipe(1, device="cpu", devices=2)
    for args, kwargs in (((one,), {}), ((), {"recipe": one}), ((), {}), (("a",), {"recipe": "no recipe"})):
        assert what(*args, **kwargs) == (args, kwargs)
    assert not asked
    assert what("a", two) == (("a", two), {})
    assert what("a", recipe=two) == (("a",), {"recipe": two})
    assert asked == [two, two]


def test_no_batches(network: nn.Module, task: Task, recipe: Recipe) -> None:
    empty = DataLoader(TensorDataset(torch.empty(0, 1, 4, 4), torch.empty(0)))
    with pytest.raises(TrainError, match="the training data is empty"):
        fit(network, replace(task, train=empty), recipe)
    with pytest.raises(TrainError, match="the validation data is empty"):
        fit(network, replace(task, val=empty), recipe)
    with pytest.raises(TrainError, match="the data is empty"):
        evaluate(network, empty, task, recipe)
    with pytest.raises(TrainError, match="must have a length"):
        fit(network, replace(task, train=iter([])), recipe)


def test_a_length_that_is_not_true(network: nn.Module, task: Task, recipe: Recipe) -> None:
    class Short(list):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 9

    with pytest.raises(TrainError, match="promised 9 batches an epoch and gave 6"):
        fit(network, replace(task, train=Short(task.train)), recipe, progress=False)


def test_labels_out_of_range(network: nn.Module, task: Task, recipe: Recipe) -> None:
    for bad in (3, -1):
        loader = [(torch.zeros(2, 1, 4, 4), torch.tensor([0, bad]))]
        with pytest.raises(TaskError, match=rf"inside \[0, 3\).*got {bad}"):
            fit(network, Classification(loader, loader), recipe, progress=False)
        with pytest.raises(TaskError, match=rf"inside \[0, 3\).*got {bad}"):
            evaluate(network, loader, task, recipe)


def test_nothing_to_train(network: nn.Module, task: Task, recipe: Recipe) -> None:
    with pytest.raises(TrainError, match="no parameter to train"):
        fit(network.requires_grad_(False), task, recipe)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"optimizer": "adam"},
        {"schedule": "step"},
        {"milestones": (), "schedule": "steps"},
        {"milestones": (1.0,)},
        {"milestones": (2.0, 1.0), "schedule": "steps"},
        {"warmup": 10.0},
        {"warmup": 12.0, "before": 1, "after": 1},
        {"clip_norm": 0.0},
        {"accumulate": 0},
        {"max_steps": 11, "before": 1, "after": 1},
        {"keep": "first"},
        {"before": -1},
        {"after": 0.5},
        {"seed": -1},
        {"seed": 2**63},
        {"precision": 16},
        {"device": 0},
        {"compile": "graph"},
    ],
)
def test_recipes_that_cannot_work(change: dict[str, object]) -> None:
    name = next(iter(change))
    with pytest.raises(TrainError, match=f"recipe: {name} must be"):
        Recipe(**change)  # type: ignore[arg-type]
    Recipe(warmup=11.9, max_steps=12, before=1, after=1, seed=2**63 - 1)  # just inside


@pytest.mark.parametrize("change", [{"device": "abacus"}, {"device": "cpu:x"}, {"precision": "7-bit"}])
def test_devices_and_precisions_that_are_not_there(
    network: nn.Module, task: Task, recipe: Recipe, change: dict[str, str]
) -> None:
    with pytest.raises(TrainError, match="recipe: cannot use device"):
        fit(network, task, replace(recipe, **change))


def test_phases_outside_the_schedule(network: nn.Module, task: Task, recipe: Recipe) -> None:
    for start, stop in ((0, 4), (2, 1), (-1, 2)):
        with pytest.raises(TrainError, match="0 <= start <= stop <= 3"):
            fit(network, task, recipe, start=start, stop=stop)


def test_a_line_an_epoch_where_there_is_no_terminal(
    network: nn.Module, task: Task, recipe: Recipe, capfd: pytest.CaptureFixture[str]
) -> None:
    fit(network, task, recipe, name="search")
    captured = capfd.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert len(lines) == 3
    assert lines[0].startswith("search: epoch 1 of 3, loss ")
    fit(network, task, recipe, progress=False)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("able", "precision"),
    [
        ({}, "32-true"),
        ({"avx2": True}, "32-true"),
        ({"amx_bf16": True}, "bf16-mixed"),
        ({"avx512_bf16": True}, "bf16-mixed"),
    ],
    ids=str,
)
def test_automatic_precision(able: dict[str, bool], precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert pick_precision(torch.device("cpu")) == precision
    assert pick_precision(torch.device("meta")) == "32-true"


def test_no_two_epochs_have_the_same_order(network: nn.Module, task: Task, recipe: Recipe) -> None:
    seen: list[Tensor] = []

    def loss(output: Tensor, batch: list[Tensor]) -> Tensor:
        seen.append(batch[0].clone())
        return task.loss(output, batch)

    fit(network, replace(task, loss=loss), recipe, progress=False)
    epochs = torch.cat(seen).view(3, 48, -1)
    assert all(torch.equal(epochs[0].sort(0).values, epoch.sort(0).values) for epoch in epochs)  # of the same pictures
    assert not any(torch.equal(one, other) for one, other in ((epochs[0], epochs[1]), (epochs[1], epochs[2])))


def test_a_part_of_a_schedule_goes_on_with_its_random_numbers(network: nn.Module, task: Task, recipe: Recipe) -> None:
    """What comes second draws what the second epoch of the whole would have drawn."""

    def order(how: Recipe) -> Tensor:
        seen: list[Tensor] = []

        def loss(output: Tensor, batch: list[Tensor]) -> Tensor:
            seen.append(batch[0].clone())
            return task.loss(output, batch)

        fit(network, replace(task, loss=loss), how, progress=False)
        return torch.cat(seen)

    first, second = order(replace(recipe, epochs=2)).split(48)
    part = order(replace(recipe, epochs=1, before=1))
    assert torch.equal(part, second)
    assert not torch.equal(part, first)


@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_by_hand(nesterov: bool, recipe: Recipe) -> None:
    """Three steps of stochastic gradient descent as its formulas say, each at the rate of its middle."""
    x, y = torch.randn(12, 4), torch.randn(12, 2)
    data = DataLoader(TensorDataset(x, y), batch_size=4)
    task = Task(data, data, None, lambda output, batch: (output - batch[1]).square().mean(), lambda *_: (0.0, 1))
    model = nn.Linear(4, 2)
    twin = copy.deepcopy(model)
    recipe = replace(recipe, epochs=1, lr=0.2, momentum=0.8, weight_decay=0.1, nesterov=nesterov, warmup=0.4)
    fit(model, task, recipe, progress=False)
    velocity: dict[str, Tensor] = {}
    for step in range(3):
        loss = (twin(x[4 * step : 4 * step + 4]) - y[4 * step : 4 * step + 4]).square().mean()
        gradients = torch.autograd.grad(loss, [twin.weight, twin.bias])
        middle = (step + 0.5) / 3
        rate = 0.2 * (middle / 0.4 if middle < 0.4 else 0.5 * (1 + math.cos(math.pi * (middle - 0.4) / 0.6)))
        for (name, parameter), gradient in zip(twin.named_parameters(), gradients, strict=True):
            slope = gradient + (0.1 * parameter.detach() if name == "weight" else 0)
            velocity[name] = 0.8 * velocity[name] + slope if name in velocity else slope
            parameter.data -= rate * (slope + 0.8 * velocity[name] if nesterov else velocity[name])
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def test_the_momentum_is_the_first_beta_of_adamw(network: nn.Module, recipe: Recipe) -> None:
    how = replace(recipe, optimizer="adamw", momentum=0.5, weight_decay=0.1)
    made = optimizer_of(by_default(network.parameters()), how, 0.3, "who")
    assert isinstance(made, torch.optim.AdamW)
    found = [(group["lr"], group["betas"], group["weight_decay"]) for group in made.param_groups]
    assert found == [(0.3, (0.5, 0.999), 0.1), (0.3, (0.5, 0.999), 0.0)]


def test_a_share_of_the_epochs_is_whole_and_one_at_least() -> None:
    shares = (0.01, 0.24, 0.26, 0.5, 0.95, 1.0)
    assert [Recipe(epochs=10).epochs_of(share) for share in shares] == [1, 2, 3, 5, 10, 10]
    assert Recipe(epochs=1).epochs_of(1.4) == 1


def test_a_metric_is_the_mean_over_examples_not_over_batches(recipe: Recipe) -> None:
    """Ten examples in fours: the last batch counts half."""
    values = torch.arange(10.0) ** 2
    data = DataLoader(TensorDataset(values[:, None], values), batch_size=4)

    def metric(output: Tensor, batch: list[Tensor]) -> tuple[Tensor, int]:
        return batch[1].sum(), len(batch[1])

    def negative(output: Tensor, batch: list[Tensor]) -> tuple[Tensor, int]:
        return -batch[1].sum(), len(batch[1])

    task = Task(data, data, None, lambda output, batch: output.square().mean() * 1e-6, metric)
    task = replace(task, further={"negative": negative})
    mean = float(values.mean())
    found = scores(nn.Linear(1, 1), data, task, recipe)
    assert (found.metric, found.further) == (pytest.approx(mean), {"negative": pytest.approx(-mean)})
    rows = fit(nn.Linear(1, 1), task, replace(recipe, epochs=1), progress=False).rows
    assert rows[0].metric == pytest.approx(mean)
    outside = scores_of_outputs(lambda batch: batch[0], data, task)
    assert (outside.metric, outside.further) == (pytest.approx(mean), {"negative": pytest.approx(-mean)})


def test_parameters_that_moved_are_found_by_their_names(network: nn.Module) -> None:
    """Groups made before a network moved hold tensors that it may not hold any more."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    strange = nn.Parameter(torch.ones(1))
    groups = [{"params": [*network.parameters(), strange], "lr": 0.5}]
    moved = copy.deepcopy(network)
    [group] = as_moved(groups, names, moved) or []
    assert group["lr"] == 0.5
    *inside, outside = group["params"]
    assert outside is strange
    assert all(one is other for one, other in zip(inside, moved.parameters(), strict=True))


def test_a_module_that_knows_fabric_is_given_back_as_it_was() -> None:
    """As Lightning's do: Fabric writes itself into `_fabric`, and a reference to it would not be copied or saved."""

    class Knows(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 3)
            self._fabric, self._fabric_optimizers = None, []

    model = Knows()
    data = [(torch.randn(2, 4), torch.tensor([0, 1]))]
    task = Classification(data, data)
    before = vars(model)["_fabric_optimizers"]
    fit(model, task, Recipe(epochs=1, precision="32-true"), progress=False)
    evaluate(model, data, task, Recipe(precision="32-true"))
    assert vars(model)["_fabric"] is None
    assert vars(model)["_fabric_optimizers"] is before


def test_fabric_has_no_news() -> None:
    """What it would say of one device and no other process, people who prune do not want to read."""
    names = ("lightning_fabric.utilities.rank_zero", "lightning_fabric.utilities.distributed")
    for name in names:
        logging.getLogger(name).setLevel(logging.INFO)
    fabric_of(Recipe(epochs=1, lr=0.1, device="cpu"))
    assert [logging.getLogger(name).level for name in names] == [logging.WARNING] * 2
