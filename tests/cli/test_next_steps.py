"""What a run prints to do next works as it is printed; and a network of one's own is found."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metaprune.cli import app

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
    for step in steps:
        again = CliRunner().invoke(app, shlex.split(step)[1:] + ["--batch", "1"] * (" bench " in step))
        assert again.exit_code == 0, again.output
    assert (folder / "out" / "model.onnx").exists()


def test_a_module_is_found_from_the_folder_one_stands_in(folder: Path) -> None:
    call = [Path(sys.executable).with_name("metaprune"), "inspect", "own_nets:build", "--input", "1x8x8", "--json"]
    done = subprocess.run(call, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)
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
