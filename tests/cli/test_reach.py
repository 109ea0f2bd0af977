"""Options reach what they are for: what a command asks of the package, word for word, and by default."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import metaprune as mp
from metaprune.cli import app
from metaprune.cost.latency import Latency
from metaprune.graph.errors import MetapruneError
from metaprune.models import MODELS


class Asked(MetapruneError):
    """Enough is known."""


def asked_of(module: str, name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of the first call of a function, which ends the command; those by place are `args`."""
    found: dict[str, Any] = {}

    def spy(*args: Any, **named: Any) -> Any:
        found.update(named, args=args)
        raise Asked("asked")

    monkeypatch.setattr(importlib.import_module(module), name, spy)
    threads = torch.get_num_threads()
    done = CliRunner().invoke(app, line.split())
    torch.set_num_threads(threads)
    assert done.stderr.endswith("metaprune: asked\n"), done.output
    return found


PRUNE = "prune resnet8 --data digits --out OUT --weights WEIGHTS --precision 32-true --batch-size 512 --device cpu "


@pytest.fixture
def prune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `prune` is asked with these options."""
    save_file(MODELS["resnet8"](classes=10, channels=1).state_dict(), tmp_path / "dense.safetensors")
    monkeypatch.setattr("metaprune.cli.doubt.doubt", lambda *_, **__: None)

    def asked(options: str) -> dict[str, Any]:
        line = PRUNE.replace("OUT", f"{tmp_path}/out").replace("WEIGHTS", f"{tmp_path}/dense.safetensors")
        return asked_of("metaprune.session.pruning", "prune", line + options, monkeypatch)

    return asked


def test_prune_by_default(prune: Any, tmp_path: Path) -> None:
    found = prune("--macs 0.5")
    assert found["method"] == mp.DHP()
    assert found["budget"] == mp.Budget(macs=0.5, multiple_of=8)
    assert found["clock"] == mp.Clock(device="cpu")
    usual = {"weight_decay": 5e-4, "precision": "32-true", "device": "cpu"}
    assert found["recipe"] == mp.Recipe(10, lr=0.05, optimizer="sgd", schedule="cosine", **usual)
    assert (found["limits"], found["loggers"], found["calls"]) == (None, [], ())
    assert found["out"] == tmp_path / "out"
    assert (found["network"], found["data"]) == ("resnet8", "digits")
    assert found["task"].train.settings["data.augment"] != "none"
    assert found["args"][1][0].shape == (512, 1, 8, 8)


def test_every_option_of_training_reaches_the_recipe(prune: Any) -> None:
    found = prune(
        "--params 0.7 --macs 0.9 --multiple-of 2 --epochs 4 --optimizer adamw --lr 0.003 --weight-decay 0.2 "
        "--schedule steps --milestones 1,2.5 --warmup 0.5 --accumulate 3 --max-steps 11 --keep-best --seed 6 "
        "--compile --no-augment --method taylor --set batches=3 --log csv"
    )
    assert found["recipe"] == mp.Recipe(
        4,
        lr=0.003,
        optimizer="adamw",
        weight_decay=0.2,
        schedule="steps",
        milestones=(1.0, 2.5),
        warmup=0.5,
        accumulate=3,
        max_steps=11,
        keep="best",
        seed=6,
        precision="32-true",
        device="cpu",
        compile=True,
    )
    assert found["budget"] == mp.Budget(macs=0.9, params=0.7, multiple_of=2)
    assert found["method"] == mp.Taylor(batches=3)
    assert found["task"].train.settings["data.augment"] == "none"
    assert [type(one).__name__ for one in found["loggers"]] == ["CSVLogger"]


def test_the_clock_and_limits_are_as_they_were_typed(prune: Any) -> None:
    found = prune(
        "--latency 3 --speedup 1.5 --clock-precision bf16-mixed --clock-batch 7 --clock-backend compiled "
        "--keep stage1* --least stage3*=0.5 --most stage2.0.conv1=12 --alike stage3* --alike-channels stage2.0.conv2 "
        "--together conv,stage2.0.conv2"
    )
    assert found["budget"] == mp.Budget(latency=3.0, speedup=1.5)
    assert found["budget"].multiple_of is None
    assert found["clock"] == mp.Clock(device="cpu", precision="bf16-mixed", batch=7, backend="compiled")
    assert found["limits"] == mp.Limits(
        keep=("stage1*",),
        least={"stage3*": 0.5},
        most={"stage2.0.conv1": 12},
        alike=("stage3*",),
        alike_channels=("stage2.0.conv2",),
        together=(("conv", "stage2.0.conv2"),),
    )


def test_absolute_budgets_are_whole_numbers(prune: Any) -> None:
    assert prune("--macs 500000 --multiple-of 1")["budget"] == mp.Budget(macs=500_000, multiple_of=1)


def test_a_teacher_counts_as_much_as_it_was_told_to(prune: Any) -> None:
    goal = prune("--macs 0.5 --teacher dense --teacher-share 0.3")["task"]
    assert dict(goal.settings)["teacher.share"] == "0.3"


def test_bench_times_as_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sized: list[Any] = []

    def spy(networks: Any, args: Any, kwargs: Any, **conditions: Any) -> dict[str, Latency]:
        sized.append((list(networks), tuple(args[0].shape), kwargs, conditions))
        return dict.fromkeys(networks, Latency(1.0, 0.1, 9, len(args[0]), "cpu", "32-true", 1))

    monkeypatch.setattr("metaprune.cost.latency.latencies", spy)
    threads = torch.get_num_threads()
    line = "bench resnet8 --input 1x8x8 --batch 3,5 --precision bf16-mixed --backend compiled --device cpu --threads 2"
    done = CliRunner().invoke(app, line.split())
    torch.set_num_threads(threads)
    assert done.exit_code == 0, done.output
    conditions = {"device": "cpu", "precision": "bf16-mixed", "backend": "compiled", "threads": 2}
    assert sized == [(["dense"], (batch, 1, 8, 8), {}, conditions) for batch in (3, 5)]
    rows = [line.split("│")[1:-1] for line in done.stdout.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [["3", "1 ms ± 0.1"], ["5", "1 ms ± 0.1"]]
    CliRunner().invoke(app, ["bench", "resnet8", "--input", "1x8x8"])
    usual = {"device": "auto", "precision": "32-true", "backend": "eager", "threads": None}
    assert sized[2:] == [(["dense"], (batch, 1, 8, 8), {}, usual) for batch in (1, 32)]


def test_export_writes_as_it_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = tmp_path / "m.onnx"
    line = f"export resnet8 --input 1x8x8 --to {to}"
    more = " --open all --input-name a --input-name b --output-name c --opset 19 --half"
    wishes = {"open_sizes": "all", "inputs": ["a", "b"], "outputs": ["c"], "opset": 19, "half": True}
    usual = {"open_sizes": "batch", "inputs": (), "outputs": (), "opset": None, "half": False}
    for options, expected in ((more, wishes), ("", usual)):
        found = asked_of("metaprune.formats.export", "export", line + options, monkeypatch)
        net, args, path, kwargs = found.pop("args")
        assert not net.training
        assert (tuple(args[0].shape), path, kwargs) == ((2, 1, 8, 8), to, {})
        assert found == expected


def test_evaluate_measures_as_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "evaluate resnet8 --data digits --batch-size 50 --device cpu --precision bf16-mixed --val-share 0.5"
    found = asked_of("metaprune.train.scores", "scores", line, monkeypatch)
    _, batches, task, recipe = found["args"]
    assert recipe == mp.Recipe(precision="bf16-mixed", device="cpu")
    assert batches is task.test
    assert batches.batch_size == 50
    assert len(task.val.labels) == 719
