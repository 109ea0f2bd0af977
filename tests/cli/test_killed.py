"""A run that is killed, again and again, ends with the plan and the very bits of one left alone."""

import os
import runpy
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import save_file
from tests.cli.starter import Made, Starter, starting
from tests.forks import Forks

NETWORK = """
from torch import nn


class Small(nn.Module):
    def __init__(self, classes=10, channels=1):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 16, 1))
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.inner(x)).relu().mean((2, 3)))
"""
SEARCH = ["search, after step 2", "search, between the renames 1", "search, evaluating 1"]
TUNING = ["fine-tuning, after step 0", "fine-tuning, between the renames 5", "fine-tuning, after step 3"]
COMMAND = (
    "prune net.py:Small --data digits --method dhp --macs 0.6 --weights dense.safetensors --epochs 4 "
    "--val-share 0.3 --batch-size 144 --seed 1 --precision 32-true --device cpu --threads 1 --out OUT"
)


@pytest.fixture(scope="module")
def starter(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    folder = tmp_path_factory.mktemp("killed")
    (folder / "net.py").write_text(NETWORK)
    torch.manual_seed(0)
    save_file(runpy.run_path(str(folder / "net.py"))["Small"]().state_dict(), folder / "dense.safetensors")
    with starting(forks, folder, COMMAND) as starter:
        yield starter


@pytest.fixture
def alone(starter: Starter) -> Made:
    """What the others are compared with."""
    if not (starter.folder / "alone").exists():
        assert starter.start("alone") == 0, starter.said("alone")
    return starter.made("alone")


def test_left_alone_it_ends(starter: Starter, alone: Made) -> None:
    assert (starter.folder / "alone" / "report.html").exists()


@pytest.mark.parametrize(
    "places",
    [
        pytest.param(SEARCH[1:2], id="search", marks=pytest.mark.slow),  # as the half checkpoint below
        pytest.param(TUNING[2:], id="fine-tuning", marks=pytest.mark.slow),
        pytest.param(SEARCH + TUNING, id="everywhere", marks=pytest.mark.slow),
    ],
)
def test_killed_again_and_again(
    places: list[str], starter: Starter, alone: Made, request: pytest.FixtureRequest
) -> None:
    out = request.node.callspec.id
    for place in places:
        assert starter.start(out, place) == -9, f"{place}: {starter.said(out)}"
        assert not (starter.folder / out / "plan.json").exists()
    assert starter.start(out) == 0, starter.said(out)
    assert starter.made(out) == alone
    assert "going back" not in starter.said(out)


def test_the_newest_checkpoint_is_cut_in_half(starter: Starter, alone: Made) -> None:
    assert starter.start("cut", "search, after step 9") == -9, starter.said("cut")
    newest = starter.folder / "cut" / "checkpoints" / "search" / "checkpoint.safetensors"
    os.truncate(newest, newest.stat().st_size // 2)
    assert starter.start("cut") == 0, starter.said("cut")
    assert starter.said("cut").count("going back to the checkpoint before it") == 1
    assert starter.made("cut") == alone


def test_a_run_that_had_ended_takes_no_step(starter: Starter, alone: Made) -> None:
    assert starter.start("alone", "fine-tuning, after step 0") == 0, starter.said("alone")
    assert starter.made("alone") == alone
