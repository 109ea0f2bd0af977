"""Killed at any change of a file, or with a full disk at any size: started again, a command makes the very same."""

import random
import shutil
from collections.abc import Iterator

import pytest
from tests.cli.starter import Starter, starting
from tests.forks import Forks

NETWORK = """
from torch import nn

def tiny(classes=10, channels=1):
    inner = [nn.Conv2d(channels, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()]
    return nn.Sequential(*inner, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes))
"""
COMMON = "--data digits --batch-size 512 --device cpu --threads 1"
COMMANDS = {
    "prune": f"prune net.py:tiny {COMMON} --method magnitude --macs 0.6 --dense-epochs 1 --epochs 1 "
    "--precision 32-true --out OUT",
    "meta-train": f"meta-train zoo {COMMON} --epochs 1 --batches 1 --hidden 4 --layers 1 --teacher magnitude "
    "--teacher-epochs 1 --shares 0.5 --out OUT",
    "export": "export net.py:tiny --input 1x8x8 --to OUT/model.onnx",
}
ZOO = f"zoo net.py:tiny {COMMON} --count 2 --epochs 1 --widths 1 --cuts 1 --precision 32-true --out OUT"
slow = pytest.mark.slow


@pytest.fixture(scope="module", params=[pytest.param(name, marks=() if name == "prune" else slow) for name in COMMANDS])
def starter(
    request: pytest.FixtureRequest, forks: Forks, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Starter]:
    folder = tmp_path_factory.mktemp("events")
    (folder / "net.py").write_text(NETWORK)
    if request.param == "meta-train":
        with starting(forks, folder, ZOO) as once:
            assert once.start("zoo") == 0, once.said("zoo")
    with starting(forks, folder, COMMANDS[request.param]) as starter:
        begin(starter, "alone")
        assert starter.start("alone", "event 0") == 0, starter.said("alone")
        yield starter


def begin(starter: Starter, out: str) -> None:
    """A fresh folder, with a README of the user's in it."""
    shutil.rmtree(starter.folder / out, ignore_errors=True)
    (starter.folder / f"{out}.log").unlink(missing_ok=True)
    (starter.folder / out).mkdir()
    (starter.folder / out / "README.md").write_text("my project")


def ends_alike(starter: Starter, out: str) -> None:
    """Started again, the command ends as one that was left alone, and leaves nothing behind."""
    assert starter.start(out) == 0, starter.said(out)
    assert starter.bits(out) == starter.bits("alone")
    assert starter.left(out) == []
    assert (starter.folder / out / "README.md").read_text() == "my project"
    assert "Traceback" not in starter.said(out)


def killed_at(starter: Starter, place: str) -> None:
    begin(starter, "killed")
    assert starter.start("killed", place) in (-9, 0), f"{place}: {starter.said('killed')}"
    ends_alike(starter, "killed")


def full_at(starter: Starter, size: int) -> None:
    begin(starter, "full")
    code = starter.start("full", f"size {size}")
    said = starter.said("full")
    assert code in (0, 2), said
    assert "Traceback" not in said
    assert code == 0 or len([line for line in said.splitlines() if line.startswith("metaprune: ")]) == 1, said
    ends_alike(starter, "full")


def events(starter: Starter) -> int:
    return int(starter.said("alone").rpartition("events: ")[2].split()[0])


def largest(starter: Starter) -> int:
    return max(path.stat().st_size for path in (starter.folder / "alone").rglob("*") if path.is_file())


def test_killed_at_a_change_of_a_file(starter: Starter) -> None:
    count = events(starter)
    assert count > 3
    killed_at(starter, f"event {count - 4}")  # where the result takes its place


def test_the_card_is_beside_the_readme_and_said(starter: Starter) -> None:
    folder, said = starter.folder / "alone", "model card: alone/MODEL_CARD.md" in starter.said("alone")
    assert said == (folder / "MODEL_CARD.md").exists() == (folder / "plan.json").exists()
    assert (folder / "README.md").read_text() == "my project"


def test_a_full_disk(starter: Starter) -> None:
    full_at(starter, largest(starter) // 2)


@slow
def test_killed_at_every_change_of_a_file(starter: Starter) -> None:
    for number in range(1, events(starter) + 1):
        killed_at(starter, f"event {number}")


@slow
def test_killed_at_random(starter: Starter) -> None:
    generator = random.Random(0)
    for _ in range(20):
        killed_at(starter, f"after {generator.uniform(0, 4):.3f}")


@slow
def test_a_disk_that_is_full_at_any_size(starter: Starter) -> None:
    for part in range(20):
        full_at(starter, 2000 + largest(starter) * part // 20)  # the words of a start have room
