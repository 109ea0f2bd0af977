"""What a run prints to do next works as it is printed; and a network of one's own is found."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import metaprune as mp
from metaprune.cli import app
from metaprune.cost.latency import Latency, latencies
from metaprune.train.scores import scores

OWN = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn

@dataclass
class Sizes:
    hidden: int = 16

def build(classes=10, channels=3):
    return nn.Sequential(
        nn.Conv2d(channels, Sizes().hidden, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(Sizes().hidden, classes),
    )
"""
RUN = "--data digits --macs 0.6 --dense-epochs 1 --epochs 1 --batch-size 64 --device cpu"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_printed_to_do_next_works(folder: Path) -> None:
    done = CliRunner().invoke(app, shlex.split(f"prune own_nets.py:build {RUN} --method uniform --out out"))
    assert done.exit_code == 0, done.output
    steps = [line.strip() for line in done.stdout.splitlines() if line.startswith("  metaprune ")]
    assert len(steps) == 2
    before = {path.name for path in (folder / "out").iterdir()}
    for step in steps:
        again = CliRunner().invoke(app, shlex.split(step)[1:] + ["--batch", "1"] * (" bench " in step))
        assert again.exit_code == 0, again.output
        assert ("equal to the module" in again.output) == (" export " in step)
    assert {path.name for path in (folder / "out").iterdir()} == before | {"model.onnx"}
    sizes = [(folder / "out" / name).stat().st_size for name in ("model.onnx", "model.safetensors")]
    assert sizes[0] > sizes[1] / 2


def test_times_are_measured_alike(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the report, by `bench` of its folder and by `mp.latency`: one function, batch, layout, number of threads."""
    conditions = []

    def spy(
        networks: dict[str, Any], args: tuple[torch.Tensor, ...], *rest: Any, **settings: Any
    ) -> dict[str, Latency]:
        found = latencies(networks, args, *rest, **settings | {"seconds": 0.001})
        conditions.append([(name, replace(time, median_ms=0, iqr_ms=0, runs=0)) for name, time in found.items()])
        return found

    for name in ("session.measuring", "cost.latency", "cost.clock"):
        monkeypatch.setattr(f"metaprune.{name}.latencies", spy)
    line = f"prune own_nets.py:build {RUN} --batch-size 48 --multiple-of 1 --threads 1 --method uniform --out out"
    assert CliRunner().invoke(app, shlex.split(line)).exit_code == 0
    torch.set_num_threads(2)
    done = CliRunner().invoke(app, shlex.split("bench own_nets.py:build --pruned out --device cpu"))
    torch.set_num_threads(1)
    assert done.exit_code == 0, done.output
    assert [name for name, _ in conditions[0]] == ["dense", "pruned"]
    assert conditions[0] == conditions[1]
    assert conditions[0][0][1].batch == 48
    assert done.stdout.count("cpu, 1 thread, 32-true, contiguous tensors") == 2
    mp.latency(torch.nn.Linear(2, 2), (torch.zeros(48, 2),))
    assert [time for _, time in conditions[2]] == [conditions[0][0][1]]


def test_evaluate_says_what_the_report_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the precision of the run, which is not that of the device by default everywhere."""
    line = f"prune own_nets.py:build {RUN} --multiple-of 1 --precision bf16-mixed --method uniform --out out"
    assert CliRunner().invoke(app, shlex.split(line)).exit_code == 0
    asked = []

    def spy(network: Any, batches: Any, task: Any, recipe: Any) -> Any:
        asked.append(recipe.precision)
        return scores(network, batches, task, recipe)

    monkeypatch.setattr("metaprune.train.scores.scores", spy)
    done = CliRunner().invoke(app, shlex.split("evaluate own_nets.py:build --data digits --pruned out --device cpu"))
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    assert done.stdout.splitlines()[-1] == f"accuracy (%) on test: {report['pruned']['metric']:.2f}"
    CliRunner().invoke(app, shlex.split("evaluate own_nets.py:build --data digits --device cpu"))
    assert asked == ["bf16-mixed", "auto"]


def test_a_missed_latency_is_the_exit_status(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is written all the same."""
    at_the_end = iter([1.7, 1.5])

    def made_up(now: float) -> Any:
        return lambda networks, *_, **__: {name: Latency(now, 0.0, 1, 64, "cpu", "32-true", 1) for name in networks}

    monkeypatch.setattr("metaprune.cost.clock.latencies", made_up(1.0))  # the dense network holds it already
    monkeypatch.setattr("metaprune.session.measuring.latencies", lambda *given, **_: made_up(next(at_the_end))(*given))
    run = RUN.replace("--macs 0.6", "--latency 1.5 --method uniform")
    for status, out in ((3, "late"), (0, "in-time")):
        done = CliRunner().invoke(app, shlex.split(f"prune own_nets.py:build {run} --out {out}"))
        assert done.exit_code == status, done.output
        assert ("The budget of 1.5 ms is missed: 1.700 ms measured." in done.stdout) == bool(status)
        assert (folder / out / "report.html").exists()
        assert "unspent" not in done.stdout, "nothing was cut"
    helped = CliRunner().invoke(app, ["prune", "--help"]).stdout
    assert "3 where the result is written but takes longer" in " ".join(helped.split())


def test_a_module_is_found_from_the_folder_one_stands_in(folder: Path) -> None:
    call = [Path(sys.executable).with_name("metaprune"), "inspect", "own_nets:build", "--input", "1x8x8", "--json"]
    done = subprocess.run(call, cwd=folder, env=os.environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["axes"][0]["size"] == 16
    assert sum(axis["fixed"] is None for axis in found["axes"]) == 1


def test_inspect_takes_the_sizes_from_data(folder: Path) -> None:
    done = CliRunner().invoke(app, shlex.split("inspect own_nets.py:build --data digits --json"))
    assert json.loads(done.stdout)["params"] == 16 * 9 + 16 + 16 * 10 + 10


def test_debug_may_stand_anywhere() -> None:
    for line in ("--debug inspect nothing", "inspect nothing --debug"):
        assert "not built in" in str(CliRunner().invoke(app, shlex.split(line)).exception)
    assert CliRunner().invoke(app, ["inspect", "nothing"]).exit_code == 2


def test_demo_refuses_a_folder_it_cannot_write_to_at_once(folder: Path) -> None:
    (folder / "taken").write_text("mine")
    done = CliRunner().invoke(app, ["demo", "--out", "taken"])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1


def test_a_run_that_has_not_ended_has_no_report(folder: Path) -> None:
    (folder / "out").mkdir()
    assert "no report.json" in CliRunner().invoke(app, ["report", "out"]).stderr
    (folder / "out" / "run.json").write_text("{}")
    done = CliRunner().invoke(app, ["report", "out"])
    assert done.exit_code == 2
    assert "the run in out has not ended; start its command again" in done.stderr


def test_reports_of_different_networks_are_not_compared(folder: Path) -> None:
    run = f"{RUN} --multiple-of 1 --method uniform"
    (folder / "other.py").write_text(OWN)
    for name in ("own_nets", "other"):
        assert CliRunner().invoke(app, shlex.split(f"prune {name}.py:build {run} --out {name}")).exit_code == 0
    before = (folder / "own_nets" / "report.html").read_bytes()
    done = CliRunner().invoke(app, ["report", "own_nets", "other"])
    assert done.exit_code == 2
    assert "network" in done.stderr
    assert (folder / "own_nets" / "report.html").read_bytes() == before
