"""`--task translation`: what the command line makes of a folder of pairs."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metaprune.cli.errors import UsageError
from metaprune.cli.purpose import Cut, Look, Optimizer, Purpose, TaskName
from metaprune.cli.resolve import network
from metaprune.cli.weights import train_dense
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


def test_it_is_trained_as_in_the_papers() -> None:
    dense, pruned = Purpose(TaskName.translation).recipes(4, 6, None, None)
    assert (pruned.optimizer, pruned.lr, pruned.momentum, pruned.schedule) == ("adamw", 2e-4, 0.5, "linear")
    assert dense.epochs == 6
    _, other = Purpose(TaskName.translation).recipes(4, 6, Optimizer.sgd, 0.1, after={"schedule": "constant"})
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
