"""The demo, shortened: with the packages that write ONNX and without."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from typer.testing import CliRunner

from metaprune.cli import app, demo
from metaprune.report.report import from_json


def tiny(classes: int, channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "MODELS", {demo.NETWORK: tiny})
    for name in ("DENSE", "AFTER"):
        monkeypatch.setattr(demo, name, replace(getattr(demo, name), epochs=1, warmup=0.0))


@pytest.mark.slow
def test_it_ends_well_without_the_packages_of_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, *args: Any) -> Any:
        return None if name in ("onnxruntime", "onnxscript") else find(name, *args)

    monkeypatch.setattr("importlib.util.find_spec", without)
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    first, *_ = lines = done.stdout.splitlines()
    assert (
        first == "No ONNX file will be written: that needs onnxscript, onnxruntime (pip install 'metaprune[export]')."
    )
    assert sum(line.startswith(("│ dense ", "│ DHP ", "│ magnitude ", "│ uniform ")) for line in lines) == 4
    [cut] = [line for line in lines if line.startswith("Right after the cut")]
    assert [word for word in ("DHP", "magnitude", "uniform") if word in cut] == ["DHP", "magnitude", "uniform"]
    assert "One seed and 359 test images prove little" in done.stdout
    assert "model.onnx" not in done.stdout
    assert not (tmp_path / "out" / "model.onnx").exists()

    report = from_json((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert [(arm.name, arm.epochs) for arm in report.arms] == [
        ("dense", 1),
        ("DHP", 1),
        ("magnitude", 1),
        ("uniform", 1),
    ]
    assert report.dense_epochs == 1  # trained as long: "above dense" would be fair
    assert report.arms[0].figures == report.dense
    assert all(arm.figures.macs <= 0.15 * report.dense.macs for arm in report.arms[1:])
