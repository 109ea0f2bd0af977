"""Several processes come to what one comes to; `tests.train.together` says what each does.

Two are started once for all quick tests, and need not import everything anew. Those of the slow ones are started by
Python itself, each with another order of sets.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.forks import Forks, Process
from tests.train import together
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import metaprune as mp
from metaprune.data import Characters
from metaprune.train.processes import Group
from metaprune.train.several.dividing import Rows, divided, rows_of

ROOT = Path(__file__).parents[2]
PATIENCE = 170.0
"""Seconds: no run may hang."""


def environment(size: int, rank: int, port: int) -> dict[str, str]:
    names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = {"WORLD_SIZE": str(size), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    return {**os.environ, **names, **ranks}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run(
    size: int, folder: Path, *checks: str, forks: Forks | None = None
) -> tuple[dict[str, Any], list[int], list[str]]:
    """What the first process wrote, how each ended, and what each said; they may be forks."""
    file, port = folder / "found.json", free_port()
    file.unlink(missing_ok=True)
    module, words = "tests.train.together", [str(file), *checks]
    command = [sys.executable, "-W", "ignore", "-m", module, *words]
    logs = [folder / f"{rank}.log" for rank in range(size)]
    processes: list[subprocess.Popen[bytes] | Process] = []
    for rank, log in enumerate(logs):
        around = environment(size, rank, port)
        with log.open("w") as said:
            if forks is not None:
                streams = (0, said.fileno(), said.fileno())
                processes.append(forks.start(module, *words, folder=ROOT, environment=around, streams=streams))
            else:
                processes.append(subprocess.Popen(command, cwd=ROOT, env=around, stdout=said, stderr=said))
    try:
        ended = [process.wait(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    found = json.loads(file.read_text()) if file.exists() else {}
    return found, ended, [log.read_text() for log in logs]


def alone(check: str, folder: Path) -> Any:
    """What one process comes to, here."""
    return json.loads(json.dumps(together.CHECKS[check](folder)))


def same(found: Any, expected: Any, rounding: float = 1e-11) -> bool:
    """But for rounding in float64."""
    if isinstance(expected, float):
        return bool(found == pytest.approx(expected, rel=1e-9, abs=rounding))
    if isinstance(expected, list):
        return len(found) == len(expected) and all(
            same(one, other, rounding) for one, other in zip(found, expected, strict=True)
        )
    if isinstance(expected, dict):
        return bool(found.keys() == expected.keys()) and all(
            same(found[key], expected[key], rounding) for key in expected
        )
    return bool(found == expected)


ALIKE = ("fit", "fit_from_a_loader_of_ones_own", "evaluate", "split", "split_dhp")
ROUNDING = {"split": 1e-8, "meta_training": 1e-5, "meta_training_on_the_way": 1e-5, "lessons": 1e-5}
"""AdamW divides by the size of a gradient and 1e-8; of a bias before a batch norm it is rounding alone, near 1e-16.

Metanetworks compute in float32."""
TOLD = ("other_weights", "stopped", "not_divisible", "split_metapruning", "a_folder_of_others", "fault")


@pytest.fixture(scope="module")
def two(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found, ended, said = run(2, tmp_path_factory.mktemp("two"), *ALIKE, forks=forks)
    assert ended == [0, 0], said
    return found


@pytest.fixture(scope="module")
def told(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("told")
    found, ended, said = run(2, folder, *TOLD, forks=forks)
    assert ended == [0, 0], said
    return found, folder


@pytest.mark.parametrize("check", ALIKE)
def test_two_processes_come_to_what_one_comes_to(check: str, two: dict[str, Any], tmp_path: Path) -> None:
    assert same(two[check], alone(check, tmp_path), ROUNDING.get(check, 1e-11))


def test_a_run_of_two_goes_on_in_one(told: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    assert told[0]["stopped"] == ["checkpoint.safetensors"]
    assert same(alone("gone_on", told[1]), alone("uninterrupted", tmp_path))


def test_networks_that_differ_are_refused_in_all(told: tuple[dict[str, Any], Path]) -> None:
    assert "differ between the 2 processes" in told[0]["other_weights"]


def test_a_method_that_cannot_work_with_pieces_of_weights_is_refused(told: tuple[dict[str, Any], Path]) -> None:
    assert "MetaPruning: expected the whole network in each process" in told[0]["split_metapruning"]


def test_a_task_that_cannot_be_divided_is_refused_with_the_reason(told: tuple[dict[str, Any], Path]) -> None:
    assert "cannot train this task together: it is one" in told[0]["not_divisible"]


def test_a_folder_of_others_is_refused_in_all(told: tuple[dict[str, Any], Path]) -> None:
    assert "others" in told[0]["a_folder_of_others"]
    assert (told[1] / "others" / "run.json").read_text() == "{}"


def test_a_fault_in_one_ends_the_other_and_says_why(told: tuple[dict[str, Any], Path]) -> None:
    """That they end at all, `run` sees: it waits no longer than it says."""
    assert "process 1 of 2" in told[0]["fault"]
    assert "the disk is gone" in told[0]["fault"]


# Long ones.

EVERY = (
    *("dhp", "taylor", "split_taylor", "magnitude", "metanetwork", "transportation", "fit", "evaluate"),
    *("metapruning", "meta_training", "meta_training_on_the_way", "lessons"),
)


@pytest.mark.slow
def test_four_processes_come_to_what_one_comes_to_and_two_go_on(tmp_path: Path) -> None:
    found, ended, said = run(4, tmp_path, *EVERY, "fit_from_a_loader_of_ones_own", "saved", "stopped")
    assert ended == [0] * 4, said
    (tmp_path / "alone").mkdir()
    for check in (*EVERY, "fit_from_a_loader_of_ones_own"):
        assert same(found[check], alone(check, tmp_path / "alone"), ROUNDING.get(check, 1e-11)), check
    assert {"run.json", "plan.json", "model.safetensors", "report.json"} <= set(found["saved"])
    again, ended, said = run(2, tmp_path, "gone_on")
    assert ended == [0] * 2, said
    assert same(again["gone_on"], alone("uninterrupted", tmp_path / "alone"))


@pytest.mark.slow
def test_the_clock_of_the_first_process_counts(tmp_path: Path) -> None:
    found, ended, said = run(2, tmp_path, "milliseconds")
    assert ended == [0] * 2, said
    assert same(found["milliseconds"], alone("milliseconds", tmp_path))


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_it_says_so(tmp_path: Path) -> None:
    found, ended, said = run(2, tmp_path, "killed")
    assert ended == [0, -9], said
    assert "ended without a word" in found["killed"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    [
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m"],
        [sys.executable, "-m", "lightning_fabric.cli", "--accelerator", "cpu", "--devices", "2"],
        [sys.executable, "-m"],
    ],
    ids=["torchrun", "fabric run", "by itself"],
)
def test_ways_to_start(start: list[str], tmp_path: Path) -> None:
    """With `torchrun` and `fabric run` the recipe need not say how many; else it does, and the others are started."""
    what = ["tests.train.together"] if start[-1] == "-m" else [str(ROOT / "tests/train/together.py")]
    clean = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    devices = {"DEVICES": "2"} if start[-1] == "-m" and len(start) == 2 else {}
    done = subprocess.run(
        [*start, *what, str(tmp_path / "found.json"), "fit"],
        cwd=ROOT,
        env={**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **devices},
        timeout=PATIENCE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["processes"] == 2
    assert same(found["fit"], alone("fit", tmp_path))


def typed(*words: str, folder: Path) -> str:
    """What a command of metaprune says, which starts the other processes itself."""
    clean = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    done = subprocess.run(
        [sys.executable, "-m", "metaprune", *words, "--data", "digits", "--device", "cpu", "--devices", "2"],
        cwd=folder,
        env={**clean, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        timeout=PATIENCE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_command_line_starts_the_others_and_one_speaks(tmp_path: Path) -> None:
    command = ["prune", "resnet8", "--out", "out", "--method", "magnitude", "--macs", "0.5"]
    said = typed(*command, "--epochs", "1", "--dense-epochs", "1", folder=tmp_path)
    assert said.count("data: ") == 1
    assert (tmp_path / "out" / "report.html").is_file()
    assert '"processes": "2, auto"' in (tmp_path / "out" / "report.json").read_text()


@pytest.mark.slow
def test_a_zoo_and_a_metanetwork_of_two_processes(tmp_path: Path) -> None:
    """Networks and lessons are made once each, by one of them; one speaks."""
    short = ["--batch-size", "64", "--epochs", "1"]
    grown = ["zoo", "resnet8", *short, "--count", "3", "--widths", "0.25", "--cuts", "1", "--out", "zoo"]
    assert typed(*grown, folder=tmp_path).count("; next:") == 1
    taught = ["--hidden", "4", "--layers", "1", "--teacher", "magnitude", "--teacher-epochs", "1", "--out", "learned"]
    assert typed("meta-train", "zoo", *short, *taught, folder=tmp_path).count("; next:") == 1
    assert len(list((tmp_path / "zoo").glob("*/model.safetensors"))) == 3
    assert len(list((tmp_path / "learned" / "lessons").glob("*/lesson.json"))) == 6
    assert (tmp_path / "learned" / "metanetwork.safetensors").is_file()


# Without other processes.


@pytest.mark.parametrize(("examples", "size"), [(12, 4), (13, 4), (2, 4), (1, 2), (7, 3)])
def test_rows_are_each_taken_once_and_weights_are_shares(examples: int, size: int) -> None:
    parts = [Rows(rank, size).of(0, examples) for rank in range(size)]
    taken = [row for first, last, weight in parts if weight for row in range(first, last)]
    assert taken == list(range(examples))
    assert sum(weight for *_, weight in parts) == pytest.approx(size)
    assert all(last > first for first, last, _ in parts)


def test_a_batch_of_lists_and_tensors_is_cut_by_rows() -> None:
    task = together.task(inputs=lambda batch: ((batch[0],), {}))
    images = [torch.zeros(3, 4, 4 + i) for i in range(2)]
    targets = [{"boxes": torch.zeros(i, 4)} for i in range(2)]
    cut = rows_of([images, targets, "all"], 1, 2, 2, task)
    assert [image.shape[2] for image in cut[0]] == [5]
    assert [len(target["boxes"]) for target in cut[1]] == [1]
    assert cut[2] == "all"
    x = torch.arange(2)
    assert rows_of([x, x], 1, 2, 2, task)[1].tolist() == [1]
    several = rows_of((torch.zeros(2, 5), [x, x + 10]), 1, 2, 2, task)[1]  # as many targets as examples
    assert [target.tolist() for target in several] == [[1], [11]]
    words = rows_of((torch.zeros(2, 5), ["a", "b"]), 1, 2, 2, task)[1]
    assert words == ["b"]


def test_batches_side_by_side_have_their_places_in_the_pass() -> None:
    data = together.examples(50, 1)
    task = together.task(inputs=lambda batch: ((batch["labels"],), {}))
    parts = {
        rank: [
            (part.place, part.weight)
            for part in divided(together.Plain(data, 12), task, _group(rank), "data", "side by side")
        ]
        for rank in range(3)
    }
    assert parts == {0: [(0, 1.0), (3, 1.0)], 1: [(1, 1.0), (4, 1.0)], 2: [(2, 1.0), (5, 0.0)]}


def test_a_batch_that_cannot_be_cut_is_refused() -> None:
    task = together.task(inputs=lambda batch: ((torch.zeros(6, 2),), {}))
    with pytest.raises(mp.MetapruneError, match="train in one process"):
        rows_of((torch.zeros(3, 4), torch.zeros(3)), 0, 3, 6, task)


@pytest.mark.parametrize(
    ("how", "own"),
    [("rows", False), ("rows", True), ("turns", False), ("turns", True), ("side by side", False)],
)
def test_each_example_is_given_to_one_process(how: Any, own: bool) -> None:
    """Of a `DataLoader` and of a loader of one's own, which puts some noise on them."""
    data = together.examples(50, 1)
    seen: list[Tensor] = []
    for rank in range(3):
        torch.manual_seed(0)
        loader = DataLoader(data, batch_size=12, shuffle=True) if own else together.Plain(data, 12)
        task = together.task(inputs=lambda batch: ((batch[0] if own else batch["labels"],), {}))
        for part in divided(loader, task, _group(rank), "data", how):
            if part.weight:
                seen.append(part.batch[0] if own else part.batch["x"])
    apart = torch.cdist(torch.cat(seen), data.tensors[0])
    assert sorted(apart.argmin(1).tolist()) == list(range(50))


class Drawing:
    """Batches of six of twelve, drawn one after another from the global random numbers."""

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(4):
            yield torch.randperm(12)[:6].tolist()


class Drawn(Dataset[Tensor]):
    """Examples that draw, too, and not equally often."""

    def __getitem__(self, index: int) -> Tensor:
        torch.rand(index)
        return torch.tensor([index])


def test_indices_that_are_drawn_while_examples_are_read_are_the_same_in_all() -> None:
    task, seen = together.task(inputs=lambda batch: ((batch,), {})), []
    for rank in range(3):
        torch.manual_seed(0)
        parts = divided(DataLoader(Drawn(), batch_sampler=Drawing()), task, _group(rank), "data")
        seen.append([part.batch.flatten().tolist() for part in parts])
    for of_batch in zip(*seen, strict=True):
        assert [len(indices) for indices in of_batch] == [2, 2, 2]
        assert len({index for indices in of_batch for index in indices}) == 6
    assert len({tuple(batch) for batch in seen[0]}) > 1


def _group(rank: int) -> Group:
    """One of three, that says nothing to the others."""
    group = Group(rank)
    group.size = 3
    return group


def test_tasks_with_steps_of_their_own_cannot_be_divided() -> None:
    classes = [torch.randn(8, 1, 8, 8) for _ in range(4)]
    assert mp.FewShot(Characters(classes, classes, classes), 3, 2).alone
    assert not together.task().alone


@pytest.mark.parametrize("fields", [{"devices": 0}, {"devices": "all"}, {"strategy": "deepspeed"}, {"nodes": 1.5}])
def test_settings_that_are_none_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(mp.MetapruneError, match=next(iter(fields))):
        mp.Recipe(1, **fields)


def test_data_that_somebody_divided_are_not_divided_again() -> None:
    data = together.examples(8, 1)
    loader = DataLoader(data, batch_size=4, sampler=DistributedSampler(data, 2, 0))
    with pytest.raises(mp.MetapruneError, match="DistributedSampler"):
        divided(loader, together.task(), _group(0), "data")


def test_several_devices_are_of_one_kind() -> None:
    with pytest.raises(mp.MetapruneError, match="of one kind"):
        mp.Recipe(1, device="cuda:1", devices=2)


def test_a_number_that_is_not_the_launchers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(mp.MetapruneError, match="4 processes were started"):
        mp.evaluate(nn.Linear(6, 3).double(), together.task().val, together.task(), together.recipe(devices=2))
