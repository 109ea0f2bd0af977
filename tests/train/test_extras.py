"""What a user adds to a training: an optimizer, loggers, callbacks; fewer steps, the best epoch."""

from __future__ import annotations

import copy
import csv
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from metaprune.train import Callback, Checkpoint, Moment, Partner, Recipe, Task, TrainError, evaluate, fit
from metaprune.train.optimizers import described


def weights(module: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in module.state_dict().values()]


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, weights(one), weights(other)))


def test_an_optimizer_of_ones_own(network: nn.Module, task: Task, recipe: Recipe) -> None:
    """The recipe's by hand gives the same bits; another class does not. Groups carry their rate and decay."""
    seen: list[dict[str, Any]] = []

    def by_hand(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        seen.extend({key: group[key] for key in ("lr", "weight_decay")} for group in groups)
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True)

    twins = [copy.deepcopy(network) for _ in range(3)]
    fit(network, task, recipe, progress=False)
    for twin, factory in zip(twins, (by_hand, torch.optim.RAdam, partial(torch.optim.SGD, momentum=0.5)), strict=True):
        fit(twin, task, recipe, optimizer=factory, progress=False)
    assert same(network, twins[0])
    assert not any(same(network, twin) for twin in twins[1:])
    assert seen == [{"lr": 0.05, "weight_decay": 5e-4}, {"lr": 0.05, "weight_decay": 0.0}]
    assert described(torch.optim.RAdam, recipe).startswith("RAdam(betas=(0.9, 0.999), eps=1e-08")


def test_a_partner_with_a_rate_has_its_own(network: nn.Module, task: Task, recipe: Recipe) -> None:
    made: list[torch.optim.Optimizer] = []

    def factory(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        made.append(torch.optim.Adam(groups))
        return made[-1]

    class Rates(Callback):
        def on_step(self, moment: Moment) -> None:
            given = [[group["lr"] for group in each.param_groups] for each in made]
            assert given == [[pytest.approx(moment.lr)] * 4, [pytest.approx(6 * moment.lr)] * 2]
            rates.append(moment.lr)

    rates: list[float] = []
    task = replace(task, partners={"head": Partner(nn.Linear(3, 1)), "critic": Partner(nn.Linear(3, 1), lr=0.3)})
    fit(network, task, recipe, optimizer=factory, callbacks=[Rates()], progress=False)
    assert rates == pytest.approx([recipe.lr_at((step + 0.5) / 6) for step in range(18)])


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("adam", "expected the optimizer as a function"),
        (lambda groups: None, "expected the factory to give a torch optimizer, got None"),
        (lambda groups: torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1), "over the parameters it was given"),
        (lambda groups: {}["x"], "the factory failed: KeyError"),
    ],
)
def test_factories_that_make_none(factory: Any, words: str, network: nn.Module, task: Task, recipe: Recipe) -> None:
    with pytest.raises(TrainError, match=words):
        fit(network, task, recipe, optimizer=factory, progress=False)


class Told(Callback):
    """Notes all moments."""

    def __init__(self) -> None:
        self.steps: list[Moment] = []
        self.epochs: list[Moment] = []

    def on_step(self, moment: Moment) -> None:
        self.steps.append(moment)

    def on_epoch(self, moment: Moment) -> None:
        self.epochs.append(moment)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_callbacks_are_told(network: nn.Module, task: Task, recipe: Recipe, accumulate: int) -> None:
    """Of the epochs [1, 3): steps count in the phase, and in the whole schedule; they change no bit."""
    recipe, twin, told = replace(recipe, accumulate=accumulate), copy.deepcopy(network), Told()
    rows = fit(network, task, recipe, start=1, name="search", callbacks=[told], progress=False).rows
    fit(twin, task, recipe, start=1, name="search", progress=False)
    assert same(network, twin)
    steps = 12 // accumulate
    assert [moment.step for moment in told.steps] == list(range(1, steps + 1))
    assert {(moment.phase, moment.steps) for moment in told.steps} == {("search", steps)}
    assert [moment.at - moment.step for moment in told.steps] == [-(-6 // accumulate)] * steps
    middles = [1 + accumulate * (place + 0.5) / 6 for place in range(steps)]
    assert [moment.lr for moment in told.steps] == pytest.approx([recipe.lr_at(middle) for middle in middles])
    assert told.steps[-1].epoch == 3
    assert all(moment.loss.isfinite() and not moment.loss.requires_grad for moment in told.steps)
    assert [moment.row for moment in told.epochs] == rows
    assert [moment.epoch for moment in told.epochs] == [2, 3]
    assert told.epochs[-1].network is network


def test_loggers_of_fabric(network: nn.Module, task: Task, recipe: Recipe, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    rows = fit(network, task, replace(recipe, epochs=4), loggers=[logger], progress=False).rows
    logger.finalize("success")
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        logged = list(csv.DictReader(file))
    ended = [row for row in logged if row["epoch"]]
    assert [float(row["fine-tuning/accuracy (%)"]) for row in ended] == pytest.approx([row.metric for row in rows])
    assert [float(row["fine-tuning/loss"]) for row in ended] == pytest.approx([row.loss for row in rows])
    assert [int(row["step"]) for row in ended] == [6, 12, 18, 24]
    assert [float(row["epoch"]) for row in ended] == [1, 2, 3, 4]
    last = [replace(recipe, epochs=4).lr_at(epoch - 0.5 / 6) for epoch in (1, 2, 3, 4)]
    assert [float(row["lr"]) for row in ended] == pytest.approx(last)
    [between] = [row for row in logged if not row["epoch"]]
    assert int(between["step"]) == 20
    assert float(between["fine-tuning/loss of a batch"]) > 0


class Failing:
    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        raise OSError("the disk is full")


def test_loggers_and_callbacks_that_are_none(network: nn.Module, task: Task, recipe: Recipe) -> None:
    odd: list[tuple[dict[str, Any], str]] = [
        ({"loggers": [print]}, "expected loggers as those of Lightning"),
        ({"loggers": [CSVLogger]}, "expected loggers as those of Lightning"),
        ({"loggers": Failing()}, "expected loggers as a list"),
        ({"loggers": [Failing()]}, "logger Failing failed: OSError: the disk is full"),
        ({"callbacks": [Told]}, "expected callbacks of a class derived from mp.Callback"),
        ({"callbacks": [print]}, "expected callbacks of a class"),
    ]
    for fields, words in odd:
        with pytest.raises(TrainError, match=words):
            fit(network, task, recipe, progress=False, **fields)


def test_at_most_so_many_steps(network: nn.Module, task: Task, recipe: Recipe) -> None:
    """Each epoch ends after an equal part of them, and the schedule falls to 0 as ever."""
    for accumulate, batches, steps in ((1, 4, 12), (2, 6, 9), (1, 6, 18)):
        told, short = Told(), replace(recipe, accumulate=accumulate, max_steps={4: 14, 6: 9 * 3}[batches])
        rows = fit(network, task, short, callbacks=[told], progress=False).rows
        assert (len(told.steps), len(rows), short.steps(6)) == (steps, 3, steps)
        assert told.steps[-1].lr < 0.01 * recipe.lr * 3
    for bad in (2, 0, 7.5, "many"):
        with pytest.raises(TrainError, match="max_steps must be"):
            replace(recipe, max_steps=bad)  # type: ignore[arg-type]


def wavering(loader: DataLoader[Any], metrics: list[float], die: int = 99) -> Task:
    """A task whose metric was written down beforehand, one value an epoch."""
    left = iter(metrics)

    def metric(output: Tensor, batch: Any) -> tuple[float, int]:
        value = next(left)
        if value == die:
            raise KeyboardInterrupt
        return value, 1

    return Task(
        loader, [next(iter(loader))], None, loss=lambda o, b: nn.functional.cross_entropy(o, b[1]), metric=metric
    )


@pytest.mark.parametrize(("better", "best"), [(True, 4), (False, 5)])
def test_the_best_epoch_is_kept(
    network: nn.Module, loader: DataLoader[Any], recipe: Recipe, better: bool, best: int, tmp_path: Path
) -> None:
    """Of two as good the later one; also when killed after it, and started again when all is done."""
    recipe, metrics, start = replace(recipe, epochs=6), [3.0, 5.0, 1.0, 5.0, 1.0, 2.0], copy.deepcopy(network)
    states: list[list[Tensor]] = []

    class Keeping(Callback):
        def on_epoch(self, moment: Moment) -> None:
            states.append(weights(moment.network))

    task = replace(wavering(loader, metrics), higher_is_better=better)
    last = fit(network, task, recipe, callbacks=[Keeping()], progress=False)
    assert last.kept is None
    keeping = replace(recipe, keep="best")
    twin = copy.deepcopy(start)
    killed = replace(wavering(loader, [*metrics[:5], 99.0]), higher_is_better=better)
    with pytest.raises(KeyboardInterrupt):
        fit(twin, killed, keeping, checkpoint=tmp_path, progress=False)
    twin = copy.deepcopy(start)
    for rest in ([2.0], []):
        found = fit(
            twin,
            replace(wavering(loader, rest), higher_is_better=better),
            keeping,
            checkpoint=Checkpoint(tmp_path),
            progress=False,
        )
        assert found.kept == best
        assert all(map(torch.equal, weights(twin), states[best - 1]))
    assert len(found.rows) == 6
    told = fit(copy.deepcopy(start), wavering(loader, metrics), keeping, keep="last", progress=False)
    assert told.kept is None


def test_what_is_kept_is_what_was_measured(network: nn.Module, task: Task, recipe: Recipe) -> None:
    wild = replace(recipe, epochs=4, lr=2.0, schedule="constant", keep="best")
    history = fit(network, task, wild, progress=False)
    best = max(history.rows, key=lambda row: (row.metric, row.epoch))
    assert history.kept == best.epoch
    assert evaluate(network, task.val, task, wild) == best.metric
