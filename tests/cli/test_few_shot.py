"""`--task few-shot`: what the command line makes of a folder or zip of characters."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from metaprune.cli.app import app
from metaprune.cli.errors import UsageError
from metaprune.cli.purpose.look import Cut, Look
from metaprune.cli.purpose.purpose import Purpose
from metaprune.cli.purpose.recipes import Optimizer, recipes
from metaprune.cli.purpose.task_name import TaskName
from metaprune.cli.resolve import report_in
from metaprune.train.tasks import few_shot

NET = """
from torch import nn


def tiny(classes, channels):
    layers = [nn.Conv2d(channels, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
"""


@pytest.fixture
def characters(tmp_path: Path) -> Path:
    numbers = np.random.default_rng(0)
    for place in range(20):
        folder = tmp_path / "characters" / "alphabet" / f"{place:02}"
        folder.mkdir(parents=True)
        shape = numbers.integers(0, 2, (4, 4)) * 255
        for drawing in range(12):
            pixels = np.kron(shape, np.ones((3, 3))) * numbers.uniform(0.7, 1)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{drawing}.png")
    return tmp_path / "characters"


def test_a_folder_or_zip_of_characters_is_a_task(characters: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in characters.rglob("*.png"):
            archive.write(path, path.relative_to(characters.parent))
    purpose = Purpose.of("net.py:tiny", TaskName.few_shot, None, None, {}, ways=2, shots=3)
    assert Purpose.of("net.py:tiny", None, None, None, purpose.settings) == purpose
    for data in (characters, tmp_path / "all.zip"):
        ready = purpose.load(str(data), 4, None, Cut(), Look(size=12))
        assert ready.sizes == (1, 12, 12)
        assert ready.builds == {"classes": 2, "channels": 1}
        examples = next(iter(ready.task.train))[0]
        assert examples.shape == (4, 2 * 10, 1, 12, 12)
        tested, split = purpose.load_test(str(data), None, None, Look(size=12))
        assert split == "test"
        assert len(next(iter(tested.task.test))[0][0]) == 2 * 3  # type: ignore[arg-type]
    assert Purpose.of("resnet8", TaskName.few_shot, None, None, {}).ways == 5


def test_it_is_trained_by_reptile() -> None:
    purpose = Purpose.of("resnet8", TaskName.few_shot, None, None, {})
    for recipe in recipes(purpose.task, 4, 6, None, None, precision="auto"):
        assert (recipe.lr, recipe.momentum, recipe.weight_decay, recipe.schedule) == (1.0, 0.0, 0.0, "linear")
        assert recipe.precision == "32-true"
    _, tuned = recipes(purpose.task, 4, 6, None, 0.3, 1e-4, after={"schedule": "cosine"}, precision="auto")
    assert (tuned.lr, tuned.weight_decay, tuned.schedule) == (0.3, 1e-4, "cosine")
    _, other = recipes(purpose.task, 4, 6, Optimizer.adamw, None, precision="auto")
    assert (other.optimizer, other.lr) == ("adamw", 1e-3)


def test_what_belongs_to_other_tasks_is_refused(characters: Path) -> None:
    purpose = Purpose.of("resnet8", TaskName.few_shot, None, None, {})
    for cut, look, word in ((Cut(patch=8), Look(), "--patch"), (Cut(), Look(mean="data"), "--mean")):
        with pytest.raises(UsageError, match=word):
            purpose.load(str(characters), None, None, cut, look)
    with pytest.raises(UsageError, match="--ways"):
        Purpose.of("resnet8", None, None, None, {}, ways=3)


@pytest.mark.slow
def test_pruned_and_measured(characters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    short_of = partial(few_shot.FewShot, episodes=4, val_episodes=2)  # 600 of them take minutes
    monkeypatch.setattr(few_shot, "FewShot", short_of)
    common = ["net.py:tiny", "--data", str(characters), "--device", "cpu", "--size", "12", "--batch-size", "2"]
    short = "--ways 2 --dense-epochs 1 --epochs 1 --max-steps 3 --method magnitude --macs 0.6 --multiple-of 1"
    said = CliRunner().invoke(app, ["prune", *common, "--task", "few-shot", *short.split(), "--out", "out"])
    assert said.exit_code == 0, said.output
    report = report_in(tmp_path / "out")
    assert report.settings["few_shot"] == "2-way 1-shot, not transductive"
    assert set(report.pruned.further) == {"± (95 %)"}
    for command in (["evaluate", *common], ["export", "net.py:tiny", "--to", "net.pt2"]):
        said = CliRunner().invoke(app, [*command, "--pruned", "out"])
        assert said.exit_code == 0, said.output
