"""The way from a zoo to a pruned network, as a user would type it."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_bad_input import refused
from tests.cli.test_commands import RUN, metaprune
from typer.testing import CliRunner, Result

from metaprune.cli import app
from metaprune.cli.meta import _asked, _purpose
from metaprune.cli.purpose.look import Cut, Look
from metaprune.cli.purpose.purpose import Purpose
from metaprune.cli.purpose.task_name import TaskName
from metaprune.methods.graph_metanetwork import Metanetwork, load, save
from metaprune.methods.graph_metanetwork.learning.zoo import entries
from metaprune.session import measuring
from metaprune.train.atomic import read_json, read_tensors, write_json, write_tensors

COMMON = "--data digits --batch-size 64 --device cpu --threads 1"
NETWORK = """
from torch import nn

def tiny(classes=10, channels=1):
    inner = [nn.Conv2d(channels, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32)]
    return nn.Sequential(*inner, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes))
"""
ZOO = f"zoo NET {COMMON} --count 2 --epochs 1 --widths 0.25 --cuts 1 --precision 32-true"
TRAIN = f"meta-train ZOO {COMMON} --epochs 2 --batches 1 --hidden 4 --layers 1"


def of_network(command: str, zoo: Path) -> str:
    """With the network whose file is beside the zoo."""
    return command.replace("NET", f"{zoo.parent / 'net.py'}:tiny")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("meta") / "zoo"
    (out.parent / "net.py").write_text(NETWORK)
    shown = metaprune(*of_network(ZOO, out).split(), "--out", out).stdout
    assert "2 networks in" in shown
    assert shown.count("width 0.25, cut to 1, accuracy (%)") == 2
    return out


@pytest.fixture(scope="module")
def trained(zoo: Path) -> tuple[Path, Result]:
    out = zoo.with_name("metanetwork")
    return out, metaprune(*TRAIN.replace("ZOO", str(zoo)).split(), "--objective", "direct", "--out", out)


def test_a_zoo_is_kept_and_can_grow(zoo: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in zoo.rglob("*.safetensors")}
    metaprune(*of_network(ZOO, zoo).split(), "--out", zoo)
    assert times == {path: path.stat().st_mtime_ns for path in zoo.rglob("*.safetensors")}
    assert len(entries(zoo)) == len(times) == 2


def test_meta_training_says_what_came_of_it(trained: tuple[Path, Result]) -> None:
    out, result = trained
    curve = json.loads((out / "curve.json").read_text())
    assert len(curve["steps"]) == 2
    assert curve["goal"].startswith("Direct(")
    assert re.search(r"area of accuracy \(%\) on networks held out: [\d.]+ without edits", result.stdout)
    assert "--method graph_metanetwork" in result.stdout
    assert load(out / "metanetwork.safetensors").config["hidden"] == 4
    assert (out / "curve.html").is_file()


def test_pruning_with_it(trained: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "latencies", partial(measuring.latencies, seconds=0.001))
    file, out = tmp_path / "metanetwork.safetensors", tmp_path / "out"
    save(load(trained[0] / "metanetwork.safetensors"), file)
    words = ["--method", "graph_metanetwork", "--metanetwork", file, "--set", "tuning=0.5", "--dense-epochs", 1]
    words += ["--out", out]
    metaprune(*of_network(f"prune NET {RUN}", trained[0]).split(), *words)
    report = json.loads((out / "report.json").read_text())
    assert report["settings"]["graph metanetwork.metanetwork"] == str(file)
    assert report["pruned"]["macs"] <= 0.6 * report["dense"]["macs"]
    assert [row["phase"] for row in report["history"]] == ["after the edit", "fine-tuning"]


@pytest.mark.slow
def test_a_teacher_searches_first(zoo: Path, tmp_path: Path) -> None:
    words = f"{TRAIN.replace('ZOO', str(zoo))} --teacher-epochs 2 --shares 0.5,0.7"
    shown = metaprune(*words.split(), "--out", tmp_path).stdout
    assert len(list(tmp_path.glob("lessons/*/lesson.json"))) == 2
    assert "on networks held out" in shown
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert {name for step in curve["steps"] for name in step["parts"]} == {"surprise"}


@pytest.mark.slow
def test_widths_are_learned_from_all_that_was_measured(zoo: Path, tmp_path: Path) -> None:
    """And networks are pruned with what was learned."""
    train = f"meta-train ZOO {COMMON} --objective worth --teacher-epochs 1 --shares 0.5 --out {tmp_path / 'out'}"
    shown = metaprune(*train.replace("ZOO", str(zoo)).split()).stdout
    assert re.search(r"surprise at the lessons of networks held out: [\d.]+ without edits", shown)
    file = tmp_path / "out" / "metanetwork.safetensors"
    config = load(file).config
    assert (config["scored"], config["layers"], config["edits"]) == ("widths", 0, False)
    assert len(json.loads((tmp_path / "out" / "curve.json").read_text())["steps"]) == 40
    assert len(list(tmp_path.glob("out/lessons/*/teacher-dhp.json"))) == 2
    words = ["--method", "graph_metanetwork", "--metanetwork", file, "--dense-epochs", 1, "--out", tmp_path / "pruned"]
    metaprune(*of_network(f"prune NET {RUN}", zoo).split(), *words)
    assert json.loads((tmp_path / "pruned" / "report.json").read_text())["notes"]


# command -> what the line says
BAD = {
    f"zoo resnet9 {COMMON} --out OUT": "not built in",
    f"zoo edsr {COMMON} --out OUT": "--scale: needed for --task super-resolution",
    f"zoo resnet8 {COMMON} --task few-shot --out OUT": "is for few-shot; a zoo is for",
    f"zoo resnet8 {COMMON} --out OUT --count 0": "a count from 1",
    f"zoo resnet8 {COMMON} --out OUT --epochs 0": "epochs",
    f"zoo resnet8 {COMMON} --out OUT --widths wide": "--widths: expected numbers",
    f"zoo resnet8 {COMMON} --out OUT --widths 2": "width in (0, 1], got 2.0",
    f"zoo resnet8 {COMMON} --out OUT --cuts 0": "cut in (0, 1]",
    f"zoo resnet8 {COMMON} --out OUT --snapshots 30": "epochs 1 to 25, got 30",
    f"zoo resnet8 {COMMON} --out OUT --vary depth": "--vary depth: expected",
    f"zoo resnet8 {COMMON} --out OUT --vary depth=8": "takes classes, channels, shortcut, block, got depth",
    f"zoo resnet8 {COMMON} --out OUT --vary block=round": "expected block 'basic' or 'bottleneck', got 'round'",
    f"zoo resnet8 {COMMON} --out OUT --data HERE/nowhere": "nowhere",
    f"meta-train HERE/nowhere {COMMON} --out OUT": "expected a folder that `metaprune zoo` wrote",
    f"{TRAIN} --out OUT --held-out 2": "--held-out: expected 1 to 1",
    f"{TRAIN} --out OUT --held-out 0": "--held-out: expected 1 to 1",
    f"{TRAIN} --out OUT --epochs 0": "epochs",
    f"{TRAIN} --out OUT --hidden 3": "an even number",
    f"{TRAIN} --out OUT --strength -1": "strength",
    f"{TRAIN} --out OUT --batches 0": "--batches: expected a number from 1",
    f"{TRAIN} --out OUT --objective worth --hidden 3": "an even number",
    f"{TRAIN} --out OUT --objective worth --teacher nobody": "method 'nobody' is not known",
    f"{TRAIN} --out OUT --objective worth --shares 0.5,half": "--shares: expected numbers",
    f"{TRAIN} --out OUT --objective worth --shares 0.0001": "budget",
    f"{TRAIN} --out OUT --objective imitate --teacher nobody": "method 'nobody' is not known",
    f"{TRAIN} --out OUT --objective imitate --shares half": "--shares: expected numbers",
    f"prune resnet8 {RUN} --out OUT --method graph_metanetwork --metanetwork HERE/nowhere": "no file at",
    f"prune resnet8 {RUN} --out OUT --method graph_metanetwork --metanetwork HERE/text.txt": "expected safetensors",
    f"prune resnet8 {RUN} --out OUT --metanetwork HERE/text.txt": "belongs to --method graph_metanetwork, got",
}


@pytest.mark.parametrize(("command", "said"), BAD.items(), ids=list(BAD))
def test_bad_command(command: str, said: str, zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Call me Ishmael.\n")
    out = tmp_path / "out"
    assert said in refused(command.replace("OUT", str(out)).replace("HERE", str(tmp_path)).replace("ZOO", str(zoo)))
    assert not list(out.rglob("*"))


def test_a_metanetwork_of_other_data(zoo: Path, tmp_path: Path) -> None:
    index = read_json(zoo / "zoo.json")
    write_json(zoo / "zoo.json", index | {"data": "other"})
    try:
        line = refused(f"{TRAIN.replace('ZOO', str(zoo))} --out {tmp_path / 'out'}")
    finally:
        write_json(zoo / "zoo.json", index)
    assert "are of other, got digits" in line


@pytest.mark.parametrize("facts", [[], {"look": {"colour": 1}}, {"task": {"task": "walking"}}, {"cut": 3}])
def test_an_index_that_is_damaged(facts: Any, zoo: Path, tmp_path: Path) -> None:
    index = read_json(zoo / "zoo.json")
    write_json(zoo / "zoo.json", index | {"facts": facts})
    try:
        line = refused(f"{TRAIN.replace('ZOO', str(zoo))} --out {tmp_path / 'out'}")
    finally:
        write_json(zoo / "zoo.json", index)
    assert "zoo.json is damaged" in line


def test_the_folder_of_another_zoo(zoo: Path) -> None:
    assert "its recipe differ" in refused(of_network(f"{ZOO} --epochs 2 --out {zoo}", zoo))


@pytest.mark.slow
def test_the_folder_of_another_training(trained: tuple[Path, Result], zoo: Path) -> None:
    assert "its goal differ" in refused(f"{TRAIN.replace('ZOO', str(zoo))} --objective paper --out {trained[0]}")


@pytest.mark.parametrize("command", ["zoo", "meta-train"])
def test_help(command: str) -> None:
    assert "Usage" in CliRunner().invoke(app, [command, "--help"]).stdout


def test_a_metanetwork_of_another_format(tmp_path: Path) -> None:
    save(Metanetwork(hidden=4, layers=1), tmp_path / "m.safetensors")
    tensors, about = read_tensors(tmp_path / "m.safetensors")
    assert about is not None
    write_tensors(tmp_path / "m.safetensors", tensors, about | {"format": "metaprune.metanetwork.9"})
    words = f"--method graph_metanetwork --metanetwork {tmp_path / 'm.safetensors'}"
    assert "format" in refused(f"prune resnet8 {RUN} {words} --out {tmp_path / 'out'}")


def test_what_a_zoo_remembers_is_what_it_was_asked() -> None:
    """As JSON holds it, and nothing where all is as usual: zoos of earlier versions can still grow."""
    usual = _asked(Purpose(TaskName.classification), None, Look(), Cut())
    assert usual == {}
    look, cut = Look(size=32, mean="0.5,0.5,0.5", std="0.5", augment=False, val_share=0.2), Cut(48, 64, 3)
    purpose = Purpose(TaskName.super_resolution, scale=3)
    told = json.loads(json.dumps(_asked(purpose, 1, look, cut)))
    assert (Look(**told["look"]), Cut(**told["cut"]), told["channels"]) == (look, cut, 1)
    assert _purpose(["edsr", "srresnet"], settings=told["task"]) == purpose
