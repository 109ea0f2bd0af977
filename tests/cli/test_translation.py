"""`--task translation`: what the command line makes of a folder of pairs."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from metaprune.cli.app import app
from metaprune.cli.errors import UsageError
from metaprune.cli.purpose.look import Cut, Look
from metaprune.cli.purpose.purpose import Purpose
from metaprune.cli.purpose.recipes import Optimizer, recipes
from metaprune.cli.purpose.task_name import TaskName
from metaprune.cli.resolve import network, report_in
from metaprune.cli.weights import train_dense
from metaprune.data.pictures import DataError
from metaprune.models import ResidualGenerator
from metaprune.train import Recipe


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for part, kind in (("train", "A"), ("train", "B"), ("test", "A"), ("test", "B")):
        (tmp_path / part / kind).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(np.full((72, 72, 3), 40 * number, np.uint8)).save(tmp_path / part / kind / f"{number}.png")
    return tmp_path


def test_a_folder_of_pairs_is_a_task(pairs: Path) -> None:
    purpose = Purpose.of("residual_generator", None, None, None, {})
    assert purpose.task == TaskName.translation
    assert Purpose.of("unet256", None, None, None, {}) == purpose
    assert Purpose.of("mine.py:net", None, None, None, purpose.settings) == purpose
    ready = purpose.load(str(pairs), 2, 1, Cut(patch=16, patches=6), Look())
    assert ready.sizes == (1, 16, 16)
    given, true = next(iter(ready.task.train))
    assert (given.shape, true.shape) == ((2, 1, 16, 16), (2, 3, 16, 16))
    assert set(ready.task.partners) == {"discriminator"}
    assert ready.task.test is not None
    assert network("residual_generator", **ready.builds)(torch.rand(1, 1, 16, 16)).shape == (1, 3, 16, 16)
    tested, split = purpose.load_test(str(pairs), 2, 1, Look())
    assert split == "test"
    assert tested.task.metric_name == "PSNR (dB)"


def test_without_pairs_a_second_generator_leads_back_or_the_network_itself_does(pairs: Path) -> None:
    for picture in (pairs / "train" / "A").iterdir():
        picture.rename(picture.with_name(f"other-{picture.name}"))
    for name, partners, inputs in (
        ("residual_generator", {"back", "discriminator", "discriminator of the first kind"}, 1),
        ("cyclegan", {"discriminator", "discriminator of the first kind"}, 2),
    ):
        purpose = Purpose.of(name, None, None, None, {}, unpaired=True)
        assert Purpose.of(name, None, None, None, purpose.settings) == purpose
        ready = purpose.load(str(pairs), 2, None, Cut(patch=16, patches=6), Look(val_share=0.5))
        assert set(ready.task.partners) == partners
        assert ready.inputs == inputs
        assert ready.task.metric_name == "feature distance"
        assert ready.label.endswith("(unpaired, patches of 16)")
    with pytest.raises(DataError, match="partner"):
        Purpose.of("cyclegan", None, None, None, {}).load(str(pairs), 2, None, Cut(patch=16, patches=6), Look())
    with pytest.raises(UsageError, match="two or more of each kind to val, got 1"):
        Purpose.of("cyclegan", None, None, None, {}, unpaired=True).load(str(pairs), 2, None, Cut(patch=16), Look())
    with pytest.raises(UsageError, match="--channels"):
        Purpose.of("cyclegan", None, None, None, {}, unpaired=True).load(str(pairs), 2, 1, Cut(patch=16), Look())
    with pytest.raises(UsageError, match="--unpaired"):
        Purpose.of("resnet8", None, None, None, {}, unpaired=True)


@pytest.mark.slow
def test_both_ways_are_pruned_measured_and_exported(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(
        "from metaprune.models import cyclegan\n\n\ndef tiny(inputs, outputs):\n"
        "    return cyclegan(inputs, outputs, width=4, blocks=1)\n"
    )
    monkeypatch.chdir(tmp_path)
    common = ["net.py:tiny", "--data", str(pairs), "--device", "cpu", "--batch-size", "2", "--val-share", "0.5"]
    short = "--patch 16 --patches-per-epoch 4 --dense-epochs 1 --epochs 1 --method magnitude --macs 0.6 --multiple-of 1"
    said = CliRunner().invoke(
        app, ["prune", *common, "--task", "translation", "--unpaired", *short.split(), "--out", "out"]
    )
    assert said.exit_code == 0, said.output
    report = report_in(tmp_path / "out")
    assert report.settings["unpaired"] == "true"
    assert {sample.name.split(", ")[1] for sample in report.samples} == {"A to B", "B to A"}
    for command in (["evaluate", *common], ["export", "net.py:tiny", "--to", "both.pt2"]):
        said = CliRunner().invoke(app, [*command, "--pruned", "out"])
        assert said.exit_code == 0, said.output
    assert (tmp_path / "both.pt2").is_file()


def test_it_is_trained_as_in_the_papers() -> None:
    dense, pruned = recipes(TaskName.translation, 4, 6, None, None)
    assert (pruned.optimizer, pruned.lr, pruned.momentum, pruned.schedule) == ("adamw", 2e-4, 0.5, "linear")
    assert dense.epochs == 6
    _, other = recipes(TaskName.translation, 4, 6, Optimizer.sgd, 0.1, after={"schedule": "constant"})
    assert (other.optimizer, other.lr, other.schedule) == ("sgd", 0.1, "constant")


def test_what_belongs_to_other_tasks_is_refused(pairs: Path) -> None:
    for cut, look, word in (
        (Cut(val_images=3), Look(), "--val-images"),
        (Cut(test=pairs), Look(), "--test"),
        (Cut(), Look(workers=1), "--workers"),
        (Cut(), Look(size=8), "--size"),
    ):
        with pytest.raises(UsageError, match=word):
            Purpose(TaskName.translation).load(str(pairs), 2, 3, cut, look)


def test_a_run_that_starts_again_has_the_same_discriminator(pairs: Path, tmp_path: Path) -> None:
    """Before the dense network is trained, and after."""
    judges = []
    for _ in range(2):
        ready = Purpose(TaskName.translation).load(str(pairs), 2, 1, Cut(patch=16, patches=4), Look())
        torch.manual_seed(0)
        net = ResidualGenerator(1, 3, width=4, blocks=1)
        first = copy.deepcopy(ready.task.partners["discriminator"].module.state_dict())
        train_dense(net, ready.task, Recipe(1, device="cpu", precision="32-true"), tmp_path / "dense", "pairs")
        judges.append((first, ready.task.partners["discriminator"].module.state_dict()))
    for one, other in zip(*judges, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    before, after = judges[0]
    assert any(not torch.equal(before[name], after[name]) for name in before)
