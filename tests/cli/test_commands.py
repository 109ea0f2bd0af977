"""The commands, one after the other, as a user would type them."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from typer.testing import CliRunner, Result

import metaprune as mp
from metaprune.cli import app
from metaprune.models import MODELS

COMMANDS = ["demo", "inspect", "prune", "evaluate", "bench", "export", "methods", "report", "zoo", "meta-train"]
RUN = "--data digits --macs 0.6 --epochs 2 --batch-size 64 --precision 32-true --device cpu --threads 1"


def metaprune(*words: object) -> Result:
    """Runs a command, which must succeed."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What DHP made of a network that was trained on the way."""
    out = tmp_path_factory.mktemp("cli") / "dhp"
    result = metaprune("prune", "resnet8", *RUN.split(), "--dense-epochs", 1, "--out", out)
    assert "metaprune bench resnet8" in result.stdout
    return out


@pytest.fixture(scope="module")
def uniform(pruned: Path) -> Path:
    """What a control made of the same network."""
    out, weights = pruned.with_name("uniform"), pruned / "dense" / "model.safetensors"
    trained = ["--accumulate", "2", "--max-steps", "12", "--keep-best", "--schedule", "linear"]
    trained += ["--log", "csv", "--ema", "0.9"]
    metaprune("prune", "resnet8", *RUN.split(), *trained, "--method", "uniform", "--weights", weights, "--out", out)
    return out


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help(command: str | None) -> None:
    shown = metaprune(*([command] if command else []), "--help").stdout
    if command is None:
        assert "Usage: root [OPTIONS] COMMAND" in shown
        assert set(re.findall(r"^│ ([a-z][\w-]*) ", shown, re.MULTILINE)) == set(COMMANDS)
    else:
        assert f"Usage: root {command} [OPTIONS]" in shown
        assert {"--config", "--help"} <= set(re.findall(r"^│[ *]+(--[\w-]+)", shown, re.MULTILINE))


def test_inspect() -> None:
    shown = metaprune("inspect", "resnet8", "--input", "1x8x8").stdout
    assert "axes of channels that are cut together" in shown
    assert "Fixed, and why:" in shown
    assert "it is a size of the output: fc (10)" in shown
    graph = mp.trace(MODELS["resnet8"](classes=10, channels=1), (torch.zeros(2, 1, 8, 8),))
    assert f"{mp.macs(graph) / 1e6:.2f} million MACs of one example, 77,754 parameters; 6 of 7 axes are free" in shown


def test_inspect_has_a_row_for_equal_blocks_or_for_every_axis() -> None:
    shown = metaprune("inspect", "resnet20", "--input", "3x8x8").stdout
    assert "stage1.0–2.conv1" in shown
    assert "stage1.1.conv1 " not in shown
    every = metaprune("inspect", "resnet20", "--input", "3x8x8", "--all").stdout
    assert all(f"│ stage1.{i}.conv1 " in every for i in range(3))
    assert "stage1.0–2.conv1 " not in every


def test_inspect_as_json_has_axes_and_groups() -> None:
    tree = json.loads(metaprune("inspect", "resnet20", "--input", "3x8x8", "--json").stdout)
    axes = {axis["name"]: axis for axis in tree["axes"]}
    assert axes["stage2.1.conv1"]["members"][0] == "stage2.1.conv1.weight:0"
    assert axes["fc"]["fixed"] == "it is a size of the output"
    groups = {group["name"]: group for group in tree["groups"]}
    assert sorted(name for group in tree["groups"] for name in group["axes"]) == sorted(axes)
    inner = groups["stage2.0–2.conv1"]
    assert (inner["size"], inner["role"], len(inner["axes"])) == (32, "inner", 3)
    assert inner["macs_share"] == pytest.approx(sum(axes[name]["macs_share"] for name in inner["axes"]))


def test_inspect_draws_a_picture(tmp_path: Path) -> None:
    metaprune("inspect", "resnet8", "--input", "1x8x8", "--picture", tmp_path / "graph.svg")
    picture = ElementTree.parse(tmp_path / "graph.svg").getroot()
    assert picture.tag.endswith("svg")
    assert "stage2.0.shortcut.0" in [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]


def test_a_picture_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    options = ["--input", "1x8x8", "--picture", str(tmp_path)]
    result = CliRunner().invoke(app, ["inspect", "resnet8", *options])
    assert result.exit_code == 2
    assert f"{tmp_path} cannot be written" in " ".join(result.stderr.split())


def test_inspect_a_function_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("from torch import nn\n\ndef tiny():\n    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))")
    assert "axes are free" in metaprune("inspect", f"{file}:tiny", "--input", "4").stdout


@pytest.mark.parametrize("method", ["dhp", "uniform"])
def test_prune_writes_all_it_should(method: str, request: pytest.FixtureRequest) -> None:
    out = request.getfixturevalue("pruned" if method == "dhp" else method)
    for name in ("plan.json", "model.safetensors", "report.json", "report.html", "README.md"):
        assert (out / name).stat().st_size > 0
    assert list(out.rglob("*.tmp")) == list(out.rglob(".*")) == list(out.rglob("*.unfinished")) == []
    report = json.loads((out / "report.json").read_text())
    assert 0.4 * report["dense"]["macs"] < report["pruned"]["macs"] <= 0.6 * report["dense"]["macs"]
    assert (out / "model.safetensors").stat().st_size < 0.9 * report["dense"]["bytes"]
    assert [row["epoch"] for row in report["history"]] == [1, 2]


def test_prune_trains_and_logs_as_it_was_told(uniform: Path) -> None:
    settings = json.loads((uniform / "report.json").read_text())["settings"]
    given = {"accumulate": "2", "max_steps": "12", "keep": "best", "schedule": "linear"}
    assert {name: settings[f"recipe.{name}"] for name in given} == given
    assert settings["average"] == "0.9"
    [log] = (uniform / "logs").rglob("metrics.csv")
    first, *rows = log.read_text().splitlines()
    assert {"step", "lr", "fine-tuning/loss", "fine-tuning/accuracy (%)"} < set(first.split(","))
    assert len(rows) == 2  # an epoch of six steps each


@pytest.mark.parametrize("which", ["dense", "pruned"])
def test_evaluate_says_what_the_report_says(pruned: Path, which: str) -> None:
    where = ["--pruned", pruned] if which == "pruned" else ["--weights", pruned / "dense" / "model.safetensors"]
    options = [
        "--data",
        "digits",
        "--batch-size",
        "64",
        "--precision",
        "32-true",
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    shown = metaprune("evaluate", "resnet8", *options, *where).stdout
    report = json.loads((pruned / "report.json").read_text())
    assert shown.strip().endswith(f"on {report['split']}: {report[which]['metric']:.2f}")


def test_bench(pruned: Path) -> None:
    options = ["--input", "1x8x8", "--batch", "4", "--threads", "1"]
    shown = metaprune("bench", "resnet8", "--pruned", pruned, *options).stdout
    rows = [line for line in shown.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in row.split("│")[1:-1]] for row in rows]
    [[batch, dense, small, pace]] = cells
    assert batch == "4"
    assert all(re.fullmatch(r"[\d.]+ ms ± [\d.e-]+", time) for time in (dense, small))
    assert re.fullmatch(r"within the spread|within 0\.5 %|[\d.]+× (faster|slower)", pace)
    assert "in the report: dense " in shown


@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=pytest.mark.slow)])  # as the next step does
def test_export(pruned: Path, tmp_path: Path, suffix: str) -> None:
    to = tmp_path / f"model{suffix}"
    shown = metaprune("export", "resnet8", "--pruned", pruned, "--input", "1x8x8", "--to", to).stdout
    assert "equal to the module" in shown
    assert [path.name for path in tmp_path.iterdir()] == [to.name]
    assert to.stat().st_size > (pruned / "model.safetensors").stat().st_size / 2


def test_report_compares_folders(pruned: Path, uniform: Path) -> None:
    shown = metaprune("report", pruned, uniform).stdout
    rows = [re.split(r"\s*│\s*", line)[1].lower() for line in shown.splitlines() if line.startswith("│")]
    assert [row.split()[0] for row in rows] == ["dense", "dhp", "uniform"], shown
    page = (pruned / "report.html").read_text()
    assert "uniform" in page.lower()
    assert "uniform" in (pruned / "README.md").read_text().lower()
    assert "DHP" not in (uniform / "report.html").read_text()  # only the first folder is written to
