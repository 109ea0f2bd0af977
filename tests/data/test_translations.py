"""Folders of pictures of two kinds: found, matched by name, cut to patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metaprune.data import DataError, load_pairs
from metaprune.data.translations import Apart


def fill(folder: Path, names: list[str], shade: int, size: tuple[int, int] = (24, 20)) -> None:
    """Pictures of one grey each, which their names and the kind say."""
    folder.mkdir(parents=True)
    for place, name in enumerate(names):
        Image.fromarray(np.full((*size, 3), shade + place, np.uint8)).save(folder / name)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    names = [f"{number}.png" for number in range(5)]
    fill(tmp_path / "train" / "A", names, 10)
    fill(tmp_path / "train" / "B", names, 110)
    fill(tmp_path / "test" / "A", names[:2], 50)
    fill(tmp_path / "test" / "B", names[:2], 150)
    return tmp_path


def levels(pictures: torch.Tensor) -> list[int]:
    return (255 * pictures[:, 0, 0, 0]).round().int().tolist()


def test_partners_come_together(root: Path) -> None:
    pairs = load_pairs(root, patch=16, patches=9, batch_size=4, val_share=0.2)
    batches = list(pairs.train)
    assert [len(a) for a, _ in batches] == [4, 4, 1]
    for a, b in [*batches, *pairs.val, *(pairs.test or ())]:
        assert a.shape[1:] == b.shape[1:] == (3, 16, 16)
        assert [level + 100 for level in levels(a)] == levels(b)
    trained = {level for a, _ in batches for level in levels(a)}
    held = {level for a, _ in pairs.val for level in levels(a)}
    assert len(held) == 1
    assert trained | held == set(range(10, 15))
    assert not trained & held
    assert pairs.test is not None
    assert levels(next(iter(pairs.test))[0]) == [50, 51]
    single = load_pairs(root, patch=16, patches=9, batch_size=1, val_share=0.2)
    assert single.test is not None
    assert [levels(a) for a, _ in single.test] == [[50], [51]]
    assert (len(single.test), len(pairs.test), len(single.train), len(pairs.train)) == (2, 1, 9, 3)
    assert (pairs.pictures, single.pictures) == (4, 4)


@pytest.mark.parametrize("layout", ["train/A", "A", "trainA"])
def test_layouts(tmp_path: Path, layout: str) -> None:
    for kind, shade in (("A", 10), ("B", 110)):
        fill(tmp_path / (layout[:-1] + kind), ["x.png", "y.png"], shade)
    pairs = load_pairs(tmp_path, patch=8, patches=3, channels=(1, 3))
    a, b = next(iter(pairs.train))
    assert a.shape[1:] == (1, 8, 8)
    assert b.shape[1:] == (3, 8, 8)


def test_without_pairs(tmp_path: Path) -> None:
    fill(tmp_path / "trainA", ["a.png", "b.png", "c.png"], 10)
    fill(tmp_path / "trainB", ["x.png", "y.png", "z.png", "w.png"], 110, (30, 18))
    pairs = load_pairs(tmp_path, paired=False, patch=8, patches=40, batch_size=40)
    assert isinstance(pairs.train, Apart)
    torch.manual_seed(0)
    a, b = next(iter(pairs.train))
    assert len({*zip(levels(a), levels(b), strict=True)}) > 3
    assert pairs.train.settings == {
        "data.patch": "8",
        "data.augment": "none",
        "data.val": "0.1 of the training pictures",
        "data.paired": "false",
    }
    ((a, b),) = pairs.val
    assert a.shape == b.shape == (1, 3, 8, 8)
    assert pairs.pictures == 2
    assert (levels(a)[0] in range(10, 13), levels(b)[0] in range(110, 114)) == (True, True)


@pytest.mark.parametrize("augment", [False, True])
def test_partners_are_cut_at_the_same_place(tmp_path: Path, augment: bool) -> None:
    """Of pictures that are larger: patches to learn from anywhere, and turned alike; the middles to measure on."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 20, 27, 3), np.uint8)
    for kind, pictures in (("A", noise), ("B", 255 - noise)):
        (tmp_path / kind).mkdir()
        for place, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / kind / f"{place}.png")
    pairs = load_pairs(tmp_path, patch=16, patches=12, batch_size=12, val_share=0.5, augment=augment)
    ((a, b),) = pairs.train
    torch.testing.assert_close(b, 1 - a)
    assert len({patch.numpy().tobytes() for patch in a}) > 6
    ((a, b),) = pairs.val
    middles = [torch.from_numpy(picture[2:18, 5:21]).permute(2, 0, 1) for picture in noise]
    for one, other in zip(a, b, strict=True):
        assert any(torch.equal((255 * one).round().byte(), middle) for middle in middles)
        torch.testing.assert_close(other, 1 - one)


def partners_missing(root: Path) -> None:
    (root / "train" / "B" / "3.png").unlink()


def other_sizes(root: Path) -> None:
    Image.new("RGB", (40, 40)).save(root / "train" / "B" / "3.png")


def no_b(root: Path) -> None:
    for path in (root / "train" / "B").iterdir():
        path.unlink()
    (root / "train" / "B").rmdir()


@pytest.mark.parametrize(
    ("damage", "word"),
    [(partners_missing, "3.png has no partner"), (other_sizes, "as large as its partner"), (no_b, "found one of them")],
)
def test_what_does_not_fit_is_named(root: Path, damage: Any, word: str) -> None:
    damage(root)
    with pytest.raises(DataError, match=word):
        load_pairs(root, patch=16, patches=9)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"patch": 0}, "patch"),
        ({"channels": (2, 3)}, "channel"),
        ({"channels": (3,)}, "channel"),
        ({"channels": 3}, "1 channel .grey. or 3 .RGB. of A and of B, got 3"),
        ({"val_share": 1.5}, "val_share"),
        ({"patch": 99}, "small"),
    ],
    ids=str,
)
def test_bad_arguments(root: Path, fields: dict[str, Any], word: str) -> None:
    with pytest.raises(DataError, match=word):
        load_pairs(root, **{"patch": 16, "patches": 9, **fields})


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="subfolders A and B"):
        load_pairs(tmp_path)
