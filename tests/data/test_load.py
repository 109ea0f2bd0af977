"""Data sets: found by name, split for good, and refused in one clear line."""

import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from metaprune.data import Batches, Data, DataError, load
from metaprune.data.load import Split

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def noise(seed: int, *shape: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_images(folder: Path, *, total: int = 6, shape: tuple[int, ...] = (8, 8, 3)) -> Path:
    for split in ("train", "test"):
        for kind in ("cat", "dog"):
            (folder / split / kind).mkdir(parents=True)
            for i in range(total):
                Image.fromarray(noise(i, *shape)).save(folder / split / kind / f"{i}.png")
    return folder


def write_parquet(folder: Path, *, labels: object = None, column: str = "label") -> Path:
    folder.mkdir()
    images = [Image.fromarray(noise(i, 8, 8)) for i in range(12)]
    content = {"img": images, column: [i % 3 for i in range(12)] if labels is None else labels}
    for split in ("train", "test"):
        datasets.Dataset.from_dict(
            content,
            features=None
            if labels is not None
            else datasets.Features({"img": datasets.Image(), column: datasets.Value("int64")}),
        ).to_parquet(folder / f"{split}.parquet")
    return folder


def images_of(batches: Batches) -> Tensor:
    assert isinstance(batches.images, Tensor)
    return batches.images


def test_digits() -> None:
    data = load("digits", batch_size=100)
    assert (data.classes, data.shape, data.name) == (10, (1, 8, 8), "digits")
    assert data.test is not None
    sizes = [len(part.labels) for part in (data.train, data.val, data.test)]
    assert sizes == [1294, 144, 359]
    assert torch.equal(data.test.labels, torch.as_tensor(load_digits().target[4::5]))  # every fifth, always
    assert not data.train.flip
    assert data.train.pad == 1
    assert data.train.shuffle
    for part in (data.val, data.test):
        assert (part.pad, part.flip, part.shuffle) == (0, False, False)
    mirrored = load("digits", flip=True)
    assert (mirrored.train.flip, mirrored.val.flip) == (True, False)
    plain = load("digits", augment=False, flip=True)
    assert (plain.train.pad, plain.train.flip) == (0, False)
    x, y = next(iter(plain.train))
    assert x.dtype == torch.float32
    assert x.shape == (128, 1, 8, 8)
    assert y.dtype == torch.int64


def test_the_training_part_is_normalised() -> None:
    data = load("digits", augment=False)
    x = torch.cat([images for images, _ in data.train])
    assert abs(x.mean().item()) < 1e-4
    assert x.std().item() == pytest.approx(1, abs=1e-3)


def test_parts_share_no_example_and_never_change() -> None:
    def key(data: Data) -> list[set[bytes]]:
        assert data.test is not None
        return [{image.numpy().tobytes() for image in images_of(part)} for part in (data.train, data.val, data.test)]

    train, val, test = key(load("digits"))
    assert not train & val
    assert not train & test
    assert not val & test
    torch.manual_seed(99)
    assert key(load("digits", batch_size=7, augment=False)) == [train, val, test]
    assert key(load("digits", seed=1))[1] != val
    assert key(load("digits", seed=1))[2] == test


def test_a_folder_of_images(tmp_path: Path) -> None:
    data = load(write_images(tmp_path / "pets"), val_share=0.25)
    assert (data.classes, data.shape) == (2, (3, 8, 8))
    assert data.test is not None
    assert [len(part.labels) for part in (data.train, data.val, data.test)] == [9, 3, 12]
    assert data.train.flip
    assert not load(tmp_path / "pets", val_share=0.25, flip=False).train.flip
    expected = torch.from_numpy(noise(0, 8, 8, 3)).permute(2, 0, 1)
    assert any(torch.equal(image, expected) for image in images_of(data.test))


def test_a_folder_of_parquet_files(tmp_path: Path) -> None:
    data = load(write_parquet(tmp_path / "glyphs"), val_share=0.25)
    assert (data.classes, data.shape) == (3, (1, 8, 8))
    assert data.test is not None
    assert data.test.labels.tolist() == [i % 3 for i in range(12)]
    assert torch.equal(images_of(data.test)[5, 0], torch.from_numpy(noise(5, 8, 8)))


def test_images_that_do_not_fit_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_images(tmp_path / "pets")
    held = load(folder, val_share=0.25, augment=False)
    module = sys.modules[Data.__module__]
    monkeypatch.setattr(module, "MEMORY", 0)
    monkeypatch.setattr(module, "WORKERS", 0)
    lazy = load(folder, val_share=0.25, augment=False)
    assert callable(lazy.train.images)
    for part in ("train", "val", "test"):
        torch.manual_seed(0)
        expected = list(getattr(held, part))
        torch.manual_seed(0)
        for (x, y), (a, b) in zip(getattr(lazy, part), expected, strict=True):
            torch.testing.assert_close(x, a)
            assert torch.equal(y, b)


def test_the_first_images_stand_for_those_that_are_not_in_memory() -> None:
    images = torch.randint(256, (5, 1, 2, 2), dtype=torch.uint8)
    assert torch.equal(Split(images, torch.arange(5)).sample(2), images)
    for most, count in ((1, 1), (2, 2), (9, 5)):
        assert torch.equal(Split(images.__getitem__, torch.arange(5)).sample(most), images[:count])


def test_images_of_different_sizes(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets")
    Image.fromarray(noise(0, 12, 10, 3)).save(folder / "train" / "cat" / "0.png")
    with pytest.raises(DataError, match=r"images differ in size \(10x12, 8x8, …\); give size="):
        load(folder, val_share=0.25)
    assert load(folder, val_share=0.25, size=6).shape == (3, 6, 6)


def test_folders_that_are_not_there() -> None:
    for name in ("/no/such/folder", "./nothing", "a/b/c"):
        with pytest.raises(DataError, match="there is no such folder"):
            load(name)
    with pytest.raises(DataError, match=r"data no-such/name: not 'digits', and not a folder or Hub name"):
        load("no-such/name")


def test_folders_without_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder or Hub name that can be read"):
        load(tmp_path)


def test_columns_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a column of labels .*got columns img, kind"):
        load(write_parquet(tmp_path / "one", column="kind"))
    (tmp_path / "two").mkdir()
    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).to_parquet(tmp_path / "two" / "train.parquet")
    with pytest.raises(DataError, match=r"expected a column of images, got columns text, label"):
        load(tmp_path / "two")


@pytest.mark.parametrize("labels", [["a"] * 12, [0.5] * 12, [-1] * 12])
def test_labels_that_are_none(tmp_path: Path, labels: list[object]) -> None:
    with pytest.raises(DataError, match=r"expected whole numbers >= 0 in column 'label', got"):
        load(write_parquet(tmp_path / "glyphs", labels=labels))


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"val_share": 0.0}, {"val_share": 1.0}])
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(DataError, match="expected batch_size >= 1 and val_share in"):
        load("digits", **options)  # type: ignore[arg-type]


def test_too_few_to_hold_out() -> None:
    with pytest.raises(DataError, match="cannot hold"):
        load("digits", val_share=1e-6)


def test_pictures_that_are_no_squares(tmp_path: Path) -> None:
    """Ten wide and six high: height comes first, and no picture is turned."""
    for part in ("train", "test"):
        for label in ("cats", "dogs"):
            (tmp_path / part / label).mkdir(parents=True)
            for i in range(6):
                Image.fromarray(noise(i, 6, 10, 3)).save(tmp_path / part / label / f"{i}.png")
    data = load(tmp_path, val_share=0.5, augment=False)
    assert data.shape == (3, 6, 10)
    assert load(tmp_path, val_share=0.5).train.pad == 0  # an eighth of the height
    assert data.test is not None
    expected = torch.from_numpy(noise(3, 6, 10, 3)).permute(2, 0, 1)
    assert any(torch.equal(image, expected) for image in images_of(data.test))
    assert next(iter(data.train))[0].shape[1:] == (3, 6, 10)
