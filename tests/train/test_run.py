"""Killed with `kill -9` anywhere and started again, a training ends with bitwise the same state."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.breaking import Breaks
from tests.forks import Forks
from torch import Tensor, nn

from metaprune.train import Checkpoint, CheckpointError, Recipe, Task, fit, randomness, run
from metaprune.train.progress import Bar

KILLS = [
    "sgd, after step 0",  # before there is a checkpoint
    "sgd, in the write 6",
    "adamw, after step 6",
]
MORE = [
    "sgd, evaluating 1",
    "sgd, between the renames 3",
    "sgd, after step 4",
    "sgd, after step 5",
    "sgd, after step 8",
]


@pytest.mark.parametrize("kills", [KILLS, pytest.param(MORE, marks=pytest.mark.slow)], ids=len)
def test_killed_and_started_again(kills: list[str], forks: Forks, tmp_path: Path) -> None:
    with (tmp_path / "said").open("w+") as said:
        streams = (0, said.fileno(), 2)
        done = forks.start(
            "tests.train.killed", tmp_path, *kills, folder=tmp_path, environment=os.environ, streams=streams
        )
        assert done.wait(600) == 0
        said.seek(0)
        outcomes = json.load(said)
    assert outcomes == {kill: {"signal": 9, "different": []} for kill in kills}


def test_a_run_that_had_ended_is_not_run_again(tmp_path: Path, network: nn.Module, task: Task, recipe: Recipe) -> None:
    twin = nn.Sequential(*network)
    start = {key: value.clone() for key, value in network.state_dict().items()}
    history = fit(network, task, recipe, checkpoint=tmp_path, progress=False)
    end = {key: value.clone() for key, value in network.state_dict().items()}
    twin.load_state_dict(start)
    again = fit(
        twin,
        replace(task, loss=lambda *_: pytest.fail("trained")),
        recipe,
        checkpoint=tmp_path,
        progress=False,
    )
    assert again.rows == history.rows
    assert all(torch.equal(value, end[key]) for key, value in twin.state_dict().items())


def test_a_damaged_checkpoint_costs_nothing_but_time(
    tmp_path: Path, network: nn.Module, task: Task, recipe: Recipe
) -> None:
    start = {key: value.clone() for key, value in network.state_dict().items()}
    checkpoint = Checkpoint(tmp_path, seconds=0)
    fit(network, task, recipe, checkpoint=checkpoint, progress=False)
    end = {key: value.clone() for key, value in network.state_dict().items()}
    content = checkpoint.newest.read_bytes()
    checkpoint.newest.write_bytes(content[: len(content) // 2])
    network.load_state_dict(start)
    with pytest.warns(UserWarning, match="damaged"):
        fit(network, task, recipe, checkpoint=checkpoint, progress=False)
    assert all(torch.equal(value, end[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("change", [{"lr": 0.01}, {"epochs": 4}, {"seed": 1}])
def test_checkpoints_of_another_recipe(
    tmp_path: Path, network: nn.Module, task: Task, recipe: Recipe, change: dict[str, float]
) -> None:
    fit(network, task, recipe, checkpoint=tmp_path, progress=False)
    (name,) = change
    with pytest.raises(CheckpointError, match=f"of another run .*{name} was .*, is {change[name]}"):
        fit(network, task, replace(recipe, **change), checkpoint=tmp_path, progress=False)  # type: ignore[arg-type]


def test_checkpoints_of_another_optimizer(tmp_path: Path, network: nn.Module, task: Task, recipe: Recipe) -> None:
    fit(network, task, recipe, checkpoint=tmp_path, progress=False)
    with pytest.raises(CheckpointError, match=r"of another run .*optimizer was \['SGD'\], is \['RAdam'\]"):
        fit(network, task, recipe, optimizer=torch.optim.RAdam, checkpoint=tmp_path, progress=False)
    groups = [{"params": list(network.parameters())}]
    with pytest.raises(CheckpointError, match=r"of another run .*groups was \[2, 4\], is \[6\]"):
        fit(network, task, recipe, parameters=groups, checkpoint=tmp_path, progress=False)


def test_a_run_may_move(tmp_path: Path, network: nn.Module, task: Task, recipe: Recipe) -> None:
    """Where it is computed is no part of what it is."""
    moved = Recipe(device="cuda", compile=True, devices=2, strategy="ddp", nodes=2)
    assert moved.what == Recipe().what
    assert all(
        replace(Recipe(), **change).what != Recipe().what for change in ({"epochs": 9}, {"precision": "32-true"})
    )
    history = fit(network, task, recipe, checkpoint=tmp_path, progress=False)
    silent = replace(task, loss=lambda *_: pytest.fail("trained"))
    again = fit(network, silent, replace(recipe, device="auto"), checkpoint=tmp_path, progress=False)
    assert again.rows == history.rows


def test_checkpoints_of_another_network(tmp_path: Path, network: nn.Module, task: Task, recipe: Recipe) -> None:
    fit(network, task, recipe, checkpoint=tmp_path, progress=False)
    other = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    before = other[1].weight.clone()
    with pytest.raises(CheckpointError, match="the network has other parameters"):
        fit(other, task, recipe, checkpoint=tmp_path, progress=False)
    assert torch.equal(before, other[1].weight)


def test_checkpoints_of_something_else(tmp_path: Path, network: nn.Module, task: Task, recipe: Recipe) -> None:
    Checkpoint(tmp_path).save({"plan": [1, 2]})
    with pytest.raises(CheckpointError, match="not of a training"):
        fit(network, task, recipe, checkpoint=tmp_path, progress=False)


@pytest.mark.parametrize(("seconds", "within"), [(25.0, 1), (15.0, 2), (1e9, 0)])
def test_within_an_epoch_it_is_written_as_often_as_was_asked(
    seconds: float, within: int, tmp_path: Path, network: nn.Module, task: Task, recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Six steps an epoch, of ten seconds each by this clock, which has run for long when the run begins."""
    now, written = [50_000.0], []
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    save = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", lambda self, tree: (written.append(tree["batch"]), save(self, tree))[1])

    def slow(output: Tensor, batch: object) -> Tensor:
        now[0] += 10
        return task.loss(output, batch)

    fit(
        network,
        replace(task, loss=slow),
        replace(recipe, epochs=1),
        checkpoint=Checkpoint(tmp_path, seconds),
        progress=False,
    )
    assert sum(batch > 0 for batch in written) == within, written


def test_the_bar_goes_on_where_the_run_does(
    tmp_path: Path, network: nn.Module, task: Task, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from inside an epoch: its batches and those of the epochs before are done."""
    checkpoint = Checkpoint(tmp_path, seconds=0)
    with pytest.raises(KeyboardInterrupt):
        fit(network, replace(task, train=Breaks(task.train, 9)), recipe, checkpoint=checkpoint, progress=False)
    shown: list[int] = []
    monkeypatch.setattr(Bar, "at", lambda bar, step, *_: shown.append(step))
    fit(network, task, recipe, checkpoint=checkpoint, progress=False)
    assert len(task.train) == 6
    assert shown[0] == 9
    assert shown == sorted(shown)


def test_seconds_go_on_after_a_kill(
    tmp_path: Path, network: nn.Module, task: Task, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes ten seconds by this clock; between the two starts a day goes by, which is not counted."""
    now = [1000.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    left = 8

    def dying(output: Tensor, batch: object) -> Tensor:
        nonlocal left
        left -= 1
        now[0] += 10
        if left < 0:
            raise KeyboardInterrupt
        return task.loss(output, batch)

    with pytest.raises(KeyboardInterrupt):
        fit(network, replace(task, loss=dying), recipe, checkpoint=tmp_path, progress=False)
    now[0] += 86_400
    left = 1000
    rows = fit(network, replace(task, loss=dying), recipe, checkpoint=tmp_path, progress=False).rows
    assert [row.seconds for row in rows] == [60, 120, 180]


@pytest.mark.parametrize("done", [0, 2])
def test_alone_steps_draw_on_where_the_loader_left_off(done: int) -> None:
    """One stream of random numbers for an epoch, from which loader and steps draw in turn, as in plain PyTorch."""

    def loader() -> Iterator[Any]:
        for place in range(4):
            torch.rand(())
            yield SimpleNamespace(place=place)

    at_work = run.Run({}, {}, (), {"name": "fit", "batches": 4, "start": 0, "seed": 5, "before": 3})
    at_work.batch = done
    drawn = [torch.rand(()).item() for _ in at_work.rest_of_epoch(loader())]
    randomness.seed(5, 3)
    stream = [torch.rand(()).item() for _ in range(done + 2 * (4 - done))]
    assert drawn == stream[done + 1 :: 2]
