"""The table of other tasks: run by run, to the page, on few pictures and short texts; what is drawn is what is said."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import metaprune as mp
from metaprune.cost.latency import latencies

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


class Overlap:
    """In place of average precision, which needs torchvision."""

    higher_is_better = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.values: list[float] = []

    def update(self, found: list[Any], targets: list[Any]) -> None:
        self.values += [float(each["scores"].max()) for each in found]

    def compute(self) -> float:
        return sum(self.values) / len(self.values)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import tasks

        brief = {
            name: replace(
                kind,
                setting=replace(
                    kind.setting,
                    dense=replace(kind.setting.dense, epochs=2, max_steps=2, precision="32-true", device="cpu"),
                    pruned=replace(kind.setting.pruned, epochs=2, max_steps=2, precision="32-true", device="cpu"),
                ),
            )
            for name, kind in tasks.KINDS.items()
        }
        patch.setattr(tasks, "KINDS", brief)
        patch.setattr(tasks, "PICTURES", {"train": 4, "val": 2, "test": 2})
        patch.setattr(tasks, "topics", {"one": "what help says of the language. " * 200})
        patch.setattr(tasks.mp, "Detection", partial(mp.Detection, metric=Overlap(), metric_name="overlap"))
        patch.setattr(tasks, "PAGE", tmp_path_factory.mktemp("page") / "tasks.md")
        patch.setattr("metaprune.session.measuring.latencies", partial(latencies, seconds=0.005))
        yield tasks


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    numbers = torch.Generator().manual_seed(0)
    for part in ("train", "val", "test"):
        (folder / part).mkdir()
        for place in range(2):
            pixels = torch.randint(0, 256, (70, 80, 3), generator=numbers, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / part / f"{place}.png")
    return folder


def call(tasks: Any, monkeypatch: pytest.MonkeyPatch, photographs: Path, out: Path, *options: str) -> str:
    monkeypatch.setattr(sys, "argv", ["tasks.py", "--photographs", str(photographs), "--out", str(out), *options])
    tasks.main()
    return tasks.PAGE.read_text()  # type: ignore[no-any-return]


@pytest.mark.slow
def test_from_runs_to_the_page(tasks, photographs, monkeypatch, tmp_path) -> None:
    options = ("--seeds", "0")
    page = call(tasks, monkeypatch, photographs, tmp_path, *options)
    rows = [json.loads(path.read_text()) for path in tmp_path.glob("*/*/row.json")]
    assert {(row["task"], row["arm"]) for row in rows} == {
        (name, arm) for name in tasks.KINDS for arm in (*tasks.METHODS, tasks.TRAINED_ON)
    }
    assert all(row["macs"] <= 0.5 for row in rows if row["arm"] in tasks.METHODS)
    assert all(row["macs"] == 1 for row in rows if row["arm"] == tasks.TRAINED_ON)
    assert page.count("| DHP |") == page.count("| uniform |") == len(tasks.KINDS)
    assert tasks.PAGE.with_suffix(".svg").is_file()
    monkeypatch.setattr(tasks.mp, "prune", lambda *args, **kwargs: pytest.fail("a finished run was run again"))
    assert call(tasks, monkeypatch, photographs, tmp_path, *options) == page


def test_boxes_and_maps_are_of_the_same_shapes(tasks, photographs) -> None:
    """Also where a picture is mirrored; and no two shapes lie on one another."""
    from scenes import CLASSES, SIDE, scenes

    made = {kind: scenes(photographs / "train", 6, 3, kind, train=True) for kind in ("detection", "segmentation")}
    torch.manual_seed(0)
    ((images, targets),) = made["detection"]
    torch.manual_seed(0)
    ((pictures, maps),) = made["segmentation"]
    assert torch.equal(torch.stack(images), pictures)
    assert maps.shape == (6, SIDE, SIDE)
    assert not torch.equal(pictures, next(iter(scenes(photographs / "train", 6, 3, "segmentation")))[0])
    for seen, target in zip(maps, targets, strict=True):
        assert 1 <= len(target["boxes"]) == len(target["labels"])
        inside = torch.zeros_like(seen)
        for (left, top, right, bottom), label in zip(target["boxes"].int(), target["labels"], strict=True):
            part = seen[top:bottom, left:right]
            assert 0 < int(label) < CLASSES
            assert (part == label).float().mean() > 0.3
            for edge in (part[0], part[-1], part[:, 0], part[:, -1]):
                assert (edge == label).any(), "the box is as small as it may be"
            inside[top:bottom, left:right] = 1
        assert not seen[inside == 0].any()


def test_the_detector_finds_what_it_is_told(tasks, monkeypatch) -> None:
    """Losses fall to what is right: heads that say the truth have no loss of boxes, and find each box."""
    import finder

    boxes = torch.tensor([[8.0, 12.0, 28.0, 24.0], [36.0, 36.0, 60.0, 56.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([3, 1])}]
    heat, sides = torch.full((1, 3, 16, 16), -9.0), torch.ones(1, 4, 16, 16)
    for (left, top, right, bottom), label in zip(boxes / finder.STRIDE, (3, 1), strict=True):
        row, column = int((top + bottom) / 2), int((left + right) / 2)
        heat[0, label - 1, row, column] = 9.0
        x, y = torch.arange(16) + 0.5, (torch.arange(16) + 0.5)[:, None]
        near = (x - (left + right) / 2).square() + (y - (top + bottom) / 2).square() < 4
        true = torch.stack(torch.broadcast_tensors(x - left, y - top, right - x, bottom - y))
        sides[0] = torch.where(near, true, sides[0])
    got = finder.losses(heat, sides, targets)
    assert float(got["sides"]) == pytest.approx(0.0, abs=1e-6)
    wrong = finder.losses(-heat, sides + 1, targets)
    assert float(wrong["heat"]) > 10 * float(got["heat"])
    assert float(wrong["sides"]) > 0.1
    (first,) = finder.found(heat.sigmoid(), finder.STRIDE * sides)
    order = first["labels"][:2].argsort(descending=True)
    torch.testing.assert_close(first["boxes"][:2][order], boxes)
    assert first["scores"][2] < 0.01
