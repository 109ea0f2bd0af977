"""Bad commands: exit code 2, one line on standard error, and nothing written."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from metaprune.cli import app
from metaprune.models import MODELS

PRUNE = "--data digits --macs 0.6 --epochs 1 --batch-size 64 --device cpu --threads 1 --out OUT"
BUDGETLESS = PRUNE.replace("--macs 0.6 ", "")

# command -> what the line says
BAD = {
    # network
    f"prune resnet9 {PRUNE}": "network 'resnet9' is not built in; there are resnet8",
    f"prune HERE/own.py:missing {PRUNE}": "missing",
    f"prune HERE/own.py:number {PRUNE}": "expected a torch.nn.Module, got int",
    f"prune HERE/own.py:broken {PRUNE}": "ZeroDivisionError",
    f"prune HERE/nowhere.py:build {PRUNE}": "nowhere.py",
    f"prune no.such.package:build {PRUNE}": "no.such",
    f"prune HERE/own.py: {PRUNE}": "own.py",
    f"prune HERE/text.txt:build {PRUNE}": "text.txt",
    "inspect resnet9": "not built in",
    "bench resnet9": "not built in",
    "export resnet9 --to OUT/m.pt2": "not built in",
    "evaluate resnet9 --data digits": "not built in",
    f"prune HERE/own.py:leaves {PRUNE}": "SystemExit",
    f"prune HERE/own.py:few {PRUNE}": "class",
    f"prune : {PRUNE}": "network ':'",
    # method and settings
    f"prune resnet8 --method best {PRUNE}": "method 'best' is not known; there are dhp",
    f"prune resnet8 --set colour=red {PRUNE}": "--set colour=red: dhp takes search",
    f"prune resnet8 --set search {PRUNE}": "--set search",
    f"prune resnet8 --set search= {PRUNE}": "--set search=",
    f"prune resnet8 --set search=much {PRUNE}": "expected a value like 0.4",
    f"prune resnet8 --set search=true {PRUNE}": "expected a value like 0.4",
    f"prune resnet8 --set search=[0.4] {PRUNE}": "expected a value like 0.4",
    f"prune resnet8 --set search=2 {PRUNE}": "search",
    f"prune resnet8 --set search=nan {PRUNE}": "search",
    f"prune resnet8 --set embedding=1.5 {PRUNE}": "expected a value like 8",
    f"prune resnet8 --set form=square {PRUNE}": "form",
    # budget
    f"prune resnet8 --macs 0 {BUDGETLESS}": "macs",
    f"prune resnet8 --macs -1 {BUDGETLESS}": "macs",
    f"prune resnet8 --macs nan {BUDGETLESS}": "macs",
    f"prune resnet8 --macs 1.5 {BUDGETLESS}": "1.5",
    f"prune resnet8 --macs 0.0001 {BUDGETLESS}": "cannot be met",
    f"prune resnet8 --params 2 {BUDGETLESS}": "cannot be met",
    f"prune resnet8 --latency 0 {BUDGETLESS}": "latency",
    f"prune resnet8 --params -0.5 {PRUNE}": "params",
    f"prune resnet8 {BUDGETLESS}": "budget",
    f"prune resnet8 --multiple-of 0 {PRUNE}": "multiple_of",
    f"prune resnet8 --macs inf {BUDGETLESS}": "macs",
    f"prune resnet8 --params nan {BUDGETLESS}": "params",
    f"prune resnet8 --latency nan {BUDGETLESS}": "latency",
    # data
    f"prune resnet8 {PRUNE} --data HERE/nowhere": "nowhere",
    f"prune resnet8 {PRUNE} --data HERE/empty": "empty",
    f"prune resnet8 {PRUNE} --data HERE/text.txt": "text.txt",
    f"prune resnet8 {PRUNE} --batch-size 0": "batch",
    f"prune resnet8 {PRUNE} --batch-size -3": "batch",
    "evaluate resnet8 --data HERE/nowhere": "nowhere",
    "evaluate resnet8 --data digits --batch-size 0": "batch",
    # images
    f"prune resnet8 {PRUNE} --mean 0.5": "expected std beside mean",
    f"prune resnet8 {PRUNE} --std 0.5": "expected mean beside std",
    f"prune resnet8 {PRUNE} --mean mine --std 1": "--mean: expected data, imagenet or numbers",
    f"prune resnet8 {PRUNE} --mean 0.5 --std 0,5": "numbers above 0",
    f"prune resnet8 {PRUNE} --mean 0.5 --std 0": "numbers above 0",
    f"prune resnet8 {PRUNE} --mean 127 --std 60": "divided by 255",
    f"prune resnet8 {PRUNE} --mean 0.5,0.5 --std 1": "one number or 1",
    f"prune resnet8 {PRUNE} --mean imagenet": "one number or 1",
    f"prune resnet8 {PRUNE} --mean nan --std 1": "numbers",
    f"prune resnet8 {PRUNE} --size 16": "leave size out",
    f"prune resnet8 {PRUNE} --size 0": "size",
    f"prune resnet8 {PRUNE} --size wide": "--size",
    f"prune resnet8 {PRUNE} --val-share 0": "val_share",
    f"prune resnet8 {PRUNE} --val-share 1": "val_share",
    f"prune resnet8 {PRUNE} --val-share most": "--val-share",
    f"prune resnet8 {PRUNE} --workers -1": "workers",
    f"prune resnet8 {PRUNE} --workers 100000": "workers",
    "evaluate resnet8 --data digits --mean 0.5": "expected std beside mean",
    "evaluate resnet8 --data digits --val-share 7": "val_share",
    "evaluate dncnn --data HERE/empty --sigma 5 --mean 0.5 --std 0.5": "--mean: belongs to classification",
    "evaluate dncnn --data HERE/empty --sigma 5 --size 32": "--size: belongs to classification",
    "inspect resnet8 --size 32": "--size: belongs to --data",
    # the rest of training
    f"prune resnet8 {PRUNE} --weight-decay -1": "weight_decay",
    f"prune resnet8 {PRUNE} --weight-decay much": "--weight-decay",
    f"prune resnet8 {PRUNE} --schedule cubic": "--schedule",
    f"prune resnet8 {PRUNE} --schedule steps": "milestones",
    f"prune resnet8 {PRUNE} --milestones 0.5": "milestones",
    f"prune resnet8 {PRUNE} --schedule steps --milestones a,b": "--milestones: expected epochs like 5,8",
    f"prune resnet8 {PRUNE} --schedule steps --milestones 2,1": "milestones",
    f"prune resnet8 {PRUNE} --warmup 1": "warmup",
    f"prune resnet8 {PRUNE} --warmup -1": "warmup",
    f"prune resnet8 {PRUNE} --ema 1": "--ema: expected a decay between 0 and 1",
    f"prune resnet8 {PRUNE} --optimizer adam": "--optimizer",
    f"prune resnet8 {PRUNE} --teacher resnt8": "not built in",
    f"prune resnet8 {PRUNE} --teacher resnet20": "knows nothing yet",
    f"prune resnet8 {PRUNE} --teacher dense --teacher-share 2": "--teacher-share: expected a share from 0 to 1",
    f"prune resnet8 {PRUNE} --teacher dense --teacher-weights HERE/text.txt": "--teacher-weights: belong to",
    f"prune resnet8 {PRUNE} --teacher-weights HERE/text.txt": "--teacher-weights: belong to",
    f"prune resnet8 {PRUNE} --teacher resnet8 --teacher-weights HERE/nowhere.pt": "there is no file",
    f"prune resnet8 {PRUNE} --teacher resnet8 --teacher-weights HERE/other.safetensors": "does not fit resnet8",
    f"prune resnet8 {PRUNE} --expect much": "--expect",
    # the line itself
    "nonsense": "No such command",
    "prun resnet8": "No such command",
    "--nonsense": "No such option",
    "prune": "Missing",
    f"prune resnet8 {PRUNE} --nonsense": "No such option",
    f"prune resnet8 resnet20 {PRUNE}": "unexpected extra argument",
    "prune resnet8 --data digits --macs 0.5": "Missing option",
    "prune resnet8 --macs 0.5 --out OUT": "Missing option",
    "export resnet8": "Missing option",
    "report": "Missing argument",
    f"prune resnet8 {PRUNE} --macs": "requires an argument",
    f"prune resnet8 {PRUNE} --epochs 1.5": "--epochs",
    f"prune resnet8 {PRUNE} --seed one": "--seed",
    f"prune resnet8 {PRUNE} --task cooking": "--task",
    "bench resnet8 --precision 7-bit": "--precision",
    f"prune resnet8 --macs 50 {BUDGETLESS}": "--macs 0.5 keeps 50 %",
    f"prune resnet8 --params 99 {BUDGETLESS}": "--params 0.99 keeps 99 %",
    f"prune resnet8 --macs half {BUDGETLESS}": "--macs",
    # weights
    f"prune resnet8 {PRUNE} --weights HERE/nowhere.safetensors": "there is no file",
    f"prune resnet8 {PRUNE} --weights HERE/pickle.pt": "does not fit resnet8",
    f"prune resnet8 {PRUNE} --weights HERE/pickle.bin": "pickles are never opened",
    f"prune resnet8 {PRUNE} --weights HERE/code.pt": "weights_only",
    f"prune resnet8 {PRUNE} --weights HERE/list.pth": "no state dict",
    f"prune resnet8 {PRUNE} --weights HERE/text.pt": "cannot be opened",
    f"prune resnet8 {PRUNE} --weights HERE/empty.pth": "cannot be opened",
    f"prune resnet8 {PRUNE} --weights HERE/whole.pt": "torch.int64",
    f"prune resnet8 {PRUNE} --weights HERE/infinite.safetensors": "not finite",
    "bench resnet8 --input 1x8x8 --weights HERE/whole.pt": "torch.int64",
    f"prune resnet8 {PRUNE} --weights HERE/text.txt": "no safetensors file",
    f"prune resnet8 {PRUNE} --weights HERE/empty": "there is no file",
    f"prune resnet8 {PRUNE} --weights HERE/other.safetensors": "does not fit resnet8",
    "evaluate resnet8 --data digits --weights HERE/code.pt": "weights_only",
    "bench resnet8 --input 1x8x8 --weights HERE/other.safetensors": "does not fit resnet8",
    "evaluate resnet8 --data digits --weights HERE/dense/model.safetensors --pruned HERE/dense": "--weights",
    # training
    f"prune resnet8 {PRUNE} --epochs 0": "epochs",
    f"prune resnet8 {PRUNE} --dense-epochs 0": "epochs",
    f"prune resnet8 {PRUNE} --lr 0": "lr",
    f"prune resnet8 {PRUNE} --lr nan": "lr",
    f"prune resnet8 {PRUNE} --seed -1": "seed",
    f"prune resnet8 {PRUNE} --precision 7-bit": "precision",
    f"prune resnet8 {PRUNE} --device toaster": "toaster",
    f"prune resnet8 {PRUNE} --threads 0": "--threads: expected 1 or more, got 0",
    f"prune resnet8 {PRUNE} --threads -1": "--threads",
    f"prune resnet8 {PRUNE} --seed 99999999999999999999999": "seed",
    f"prune resnet8 {PRUNE} --device cpu:x": "cpu:x",
    "bench resnet8 --input 1x8x8 --threads 0": "--threads",
    # a pruned folder
    "evaluate resnet8 --data digits --pruned HERE/nowhere": "there is no file",
    "bench resnet8 --input 1x8x8 --pruned HERE/empty": "there is no file",
    "export resnet8 --input 1x8x8 --pruned HERE/dense --to OUT/m.pt2": "not written by",
    "report HERE/empty": "holds no report.json",
    "report HERE/nowhere": "holds no report.json",
    "report HERE/damaged": "damaged",
    "report HERE/foreign": "foreign",
    # sizes and files
    "inspect resnet8 --input abc": "--input: expected sizes like 3x32x32, got 'abc'",
    "inspect resnet8 --input 3x0x8": "--input",
    "inspect resnet8 --input ''": "--input",
    "inspect resnet8 --input 1x8x8 --batch 0": "batch",
    "inspect resnet8 --input 8": "ResNet",
    "bench resnet8 --input abc": "--input",
    "bench resnet8 --input 1x8x8 --batch many": "--batch",
    "bench resnet8 --input 1x8x8 --batch 0": "batch",
    "bench resnet8 --input 1x8x8 --batch ''": "batch",
    "bench resnet8 --input 1x8x8 --device toaster": "toaster",
    "bench resnet8 --input 1x8x8 --classes 0": "classes",
    "export resnet8 --input 1x8x8 --to OUT/m.txt": ".txt",
    "export resnet8 --input 1x8x8 --to OUT": ".onnx",
    "export resnet8 --input abc --to OUT/m.pt2": "--input",
    "inspect resnet8 --input ids=int6:3": "expected one of float16",
    "inspect resnet8 --input ids=int64": "--input: expected",
    "inspect resnet8 --input x=1x8x8,x=1x8x8": "each name once",
    "inspect resnet8 --input y=float32:2x1x8x8": "ResNet",
    "inspect resnet8 --input int64:2x1x8x8": "ResNet",
    "export resnet8 --input y=float32:2x1x8x8 --to HERE/m.pt2": "ResNet was not written",
    "bench resnet8 --input y=float32:2x1x8x8": "cannot take the inputs",
    "inspect hf:HERE/empty": "could not be loaded",
    "inspect HERE/own.py:buld": "did you mean",
}


class Runs:
    """What a pickle can do."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "it-ran"

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of things that are not what they should be."""
    folder = tmp_path_factory.mktemp("bad")
    for name in ("empty", "dense", "damaged", "foreign"):
        (folder / name).mkdir()
    (folder / "own.py").write_text(
        "def build():\n    return 1\n\ndef number():\n    return 1\n\ndef broken():\n    return 1 / 0\n"
        "def leaves():\n    raise SystemExit(3)\n"
        "from torch import nn\n\ndef few():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Linear(32, 5))\n"
    )
    (folder / "text.txt").write_text("Call me Ishmael.\n")
    (folder / "damaged" / "report.json").write_text('{"network": "res')
    (folder / "foreign" / "report.json").write_text('{"a": 1}')
    weights = MODELS["resnet8"](classes=10, channels=1).state_dict()
    for name in ("pickle.pt", "pickle.bin"):
        torch.save({"weight": torch.ones(2)}, folder / name)
    torch.save(weights | {"hook": Runs(folder)}, folder / "code.pt")
    torch.save(list(weights.values()), folder / "list.pth")
    (folder / "text.pt").write_text("Call me Ishmael.\n")
    (folder / "empty.pth").touch()
    torch.save({name: tensor.long() for name, tensor in weights.items()}, folder / "whole.pt")
    save_file({name: tensor / 0 for name, tensor in weights.items()}, folder / "infinite.safetensors")
    save_file(MODELS["resnet20"](classes=10, channels=1).state_dict(), folder / "other.safetensors")
    save_file(MODELS["resnet8"](classes=10, channels=1).state_dict(), folder / "dense" / "model.safetensors")
    return folder


def files(folder: Path) -> list[Path]:
    """All there is, but for what Python keeps of modules that it imported."""
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


def refused(command: str) -> str:
    """The one line of a command that must fail."""
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 2, f"exit code {result.exit_code}, {result.exception!r}\n{result.output}"
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("metaprune: ")
    assert "Traceback" not in result.output
    return lines[0]


@pytest.mark.parametrize(("command", "said"), BAD.items(), ids=list(BAD))
def test_bad_command(command: str, said: str, here: Path, tmp_path: Path) -> None:
    before = files(here)
    out = tmp_path / "out"
    assert said in refused(command.replace("OUT", str(out)).replace("HERE", str(here)))
    assert list(tmp_path.rglob("*")) in ([], [out])  # at most an empty folder
    assert files(here) == before


@pytest.mark.parametrize("below", ["", "/below"])
def test_out_is_a_file(tmp_path: Path, below: str) -> None:
    taken = tmp_path / "out"
    taken.write_text("mine")
    assert "--out" in refused(f"prune resnet8 {PRUNE.replace('OUT', f'{taken}{below}')}")
    assert taken.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [taken]


def test_export_to_a_place_that_cannot_be(tmp_path: Path) -> None:
    taken = tmp_path / "out"
    taken.write_text("mine")
    assert "out" in refused(f"export resnet8 --input 1x8x8 --to {taken}/m.pt2")
    assert taken.read_text() == "mine"


def test_the_folder_of_another_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"method": "another"}')
    weights = tmp_path.with_name(f"{tmp_path.name}.safetensors")
    save_file(MODELS["resnet8"](classes=10, channels=1).state_dict(), weights)
    line = refused(f"prune resnet8 {PRUNE.replace('OUT', str(tmp_path))} --weights {weights}")
    assert "another run" in line
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_pruned_folder_of_another_network(here: Path) -> None:
    line = refused(f"evaluate resnet20 --data digits --pruned {here / 'dense'}")
    assert "model.safetensors" in line


def test_debug_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAPRUNE_DEBUG", "1")
    assert "not built in" in str(CliRunner().invoke(app, ["inspect", "resnet9"]).exception)
