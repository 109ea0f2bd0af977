"""Pictures and rows that are not what they should be: named by their row, and nothing outside the folder is opened."""

import builtins
import io
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from metaprune.data import Data, DataError, load, load_images
from metaprune.data.batches import read_ahead


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def png(*shape: int, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, shape or (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def saved(mode: str, kind: str, *, size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return buffer.getvalue()


def header(width: int, height: int) -> bytes:
    """A PNG that claims to be of some size."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (chunk, data, b"IEND")
    )


PICTURES: dict[str, tuple[Any, str]] = {
    "no bytes": (b"", "cannot be read as an image"),
    "text": (b"Call me Ishmael.", "cannot be read as an image"),
    "cut short": (png()[:-40], "cannot be read as an image"),
    "a header alone": (png()[:30], "cannot be read as an image"),
    "flipped bytes": (png()[:60] + bytes(byte ^ 255 for byte in png()[60:]), "cannot be read as an image"),
    "16 bits": (saved("I;16", "PNG"), "pixels of type I;16"),
    "32 bits": (saved("I", "TIFF"), "pixels of type I"),
    "numbers with a point": (saved("F", "TIFF"), "pixels of type F"),
    "a page": (saved("RGB", "PDF"), "cannot be read as an image"),
    "a drawing that a program would read": (saved("RGB", "EPS"), "cannot be read as an image"),
    "huge": (header(30000, 30000), "too large"),
    "large": (header(9000, 9000), "too large"),
    "no size": (header(0, 0), "cannot be read as an image"),
    "nothing": (None, "has no image"),
    "neither bytes nor a path": ({"bytes": None, "path": None}, "has no image"),
    "an empty path": ({"bytes": None, "path": ""}, "has no image"),
    "a path to nowhere": ({"bytes": None, "path": "nowhere.png"}, "there is no file nowhere.png"),
    "a path to the folder": ({"bytes": None, "path": "."}, "there is no file ."),
    "a path out of the folder": ({"bytes": None, "path": "../secret.png"}, "leads out of"),
    "an absolute path": ({"bytes": None, "path": "SECRET"}, "leads out of"),
    "a path of the system": ({"bytes": None, "path": "/etc/passwd"}, "leads out of"),
    "a link out of the folder": ({"bytes": None, "path": "link.png"}, "leads out of"),
    "no text for a path": ({"bytes": None, "path": "a\0b.png"}, "no path of a file"),
    "a path without an end": ({"bytes": None, "path": "a" * 5000}, "no path of a file"),
    "a link to itself": ({"bytes": None, "path": "loop.png"}, "loop.png"),
    "an address": ({"bytes": None, "path": "https://example.org/a.png"}, "there is no file"),
}


def parquet(folder: Path, pictures: list[Any], labels: list[Any] | None = None, split: str = "train") -> Path:
    folder.mkdir(exist_ok=True)
    rows = [picture if isinstance(picture, dict | None) else {"bytes": picture, "path": None} for picture in pictures]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    labels = [row % 2 for row in range(len(rows))] if labels is None else labels
    pq.write_table(pa.table({"image": pa.array(rows, kind), "label": labels}), folder / f"{split}.parquet")
    return folder


@pytest.mark.parametrize("lazy", [False, True], ids=["at once", "when asked for"])
@pytest.mark.parametrize("kind", PICTURES)
def test_an_odd_picture(kind: str, lazy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, words = PICTURES[kind]
    (tmp_path / "secret.png").write_bytes(png())
    folder = tmp_path / "pets"
    folder.mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    if isinstance(picture, dict) and picture["path"] == "SECRET":
        picture = picture | {"path": str(tmp_path / "secret.png")}
    parquet(folder, [png(), png(), png(), png(), picture, png()])
    if lazy:
        monkeypatch.setattr(sys.modules[Data.__module__], "MEMORY", 0)
    opened = watch(monkeypatch, tmp_path / "secret.png")
    with pytest.raises(DataError) as caught:
        read(folder)
    assert "row 4 of train" in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path)) * 2
    assert not opened


def read(folder: Path) -> None:
    """All there is to read."""
    data = load(folder, val_share=0.25, batch_size=2)
    for part in (data.train, data.val):
        list(part)


def watch(monkeypatch: pytest.MonkeyPatch, secret: Path) -> list[str]:
    """The files outside the folder that were opened."""
    found: list[str] = []
    for module, name in ((builtins, "open"), (io, "open")):
        before = getattr(module, name)

        def spy(path: Any, *args: Any, before: Any = before, **kwargs: Any) -> Any:
            if isinstance(path, str | Path) and Path(path).resolve() in (secret, Path("/etc/passwd")):
                found.append(str(path))
            return before(path, *args, **kwargs)

        monkeypatch.setattr(module, name, spy)
    return found


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_worker_finds_is_one_line_too(workers: int) -> None:
    with pytest.raises(DataError, match=r"^row 3$"):
        list(read_ahead(stumble, [1, 2, 3, 4], workers))


def stumble(key: int) -> int:
    if key == 3:
        raise DataError("row 3")
    return key


@pytest.mark.parametrize("save", [lambda p: Image.new("RGB", (8, 8)).save(p)], ids=["png"])
def test_a_picture_that_a_link_leads_to(save: Callable[[Path], None], tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        (tmp_path / "pets" / "train" / kind).mkdir(parents=True)
        for i in range(3):
            save(tmp_path / "pets" / "train" / kind / f"{i}.png")
    save(tmp_path / "outside.png")
    (tmp_path / "pets" / "train" / "dog" / "3.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(DataError, match=r"row 6 of train: .*3.png leads out of"):
        load(tmp_path / "pets", val_share=0.3)
    restored = tmp_path / "pets" / "train" / "dog"
    with pytest.raises(DataError, match=r"3.png leads out of"):
        load_images(restored, scale=2)


def test_a_table_that_a_link_leads_to(tmp_path: Path) -> None:
    parquet(tmp_path / "elsewhere", [png()] * 4)
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "train.parquet").symlink_to(tmp_path / "elsewhere" / "train.parquet")
    with pytest.raises(DataError, match=r"train.parquet leads out of the folder"):
        load(tmp_path / "pets")


def test_a_path_inside_the_folder_is_opened(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "pets", [{"bytes": None, "path": f"{i}.png"} for i in range(4)])
    for i in range(4):
        (folder / f"{i}.png").write_bytes(png())
    assert load(folder, val_share=0.25).shape == (3, 8, 8)


LABELS: dict[str, tuple[list[Any], str]] = {
    "none": ([0, 1, None, 1], "got none in row 2 of train"),
    "below zero": ([0, 1, 0, -1], "got -1 in row 3 of train"),
    "with a point": ([0.0, 1.5, 0.0, 1.0], "got 1.5 in row 1 of train"),
    "infinite": ([0.0, 1.0, float("inf"), 1.0], "got inf in row 2 of train"),
    "words": (["cat", "dog", "cat", "dog"], "got cat in row 0 of train"),
    "lists": ([[0], [1], [0], [1]], "in row 0 of train"),
    "all none": ([None] * 4, "got none in row 0 of train"),
    "far too large": ([0, 1, 2, 10**9], "labels go up to 1000000000 in 4 training examples"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_odd_labels(kind: str, tmp_path: Path) -> None:
    labels, words = LABELS[kind]
    with pytest.raises(DataError) as caught:
        load(parquet(tmp_path / "pets", [png()] * 4, labels), val_share=0.25)
    assert words in str(caught.value)


def test_a_test_label_that_training_does_not_know(tmp_path: Path) -> None:
    parquet(tmp_path / "pets", [png()] * 4, split="test", labels=[0, 1, 2, 3])
    with pytest.raises(DataError, match="2 classes, but the test split has label 3"):
        load(parquet(tmp_path / "pets", [png()] * 4), val_share=0.25)


def test_a_long_picture_is_not_blown_up(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 1 of train is too long: 1x40000"):
        load(parquet(tmp_path / "pets", [png(), saved("L", "PNG", size=(1, 40000)), png(), png()]), size=64)


def test_a_batch_that_no_memory_holds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"give size=… or a smaller batch_size"):
        load(parquet(tmp_path / "pets", [png()] * 4), val_share=0.25, batch_size=100_000_000)


@pytest.mark.parametrize(
    ("modes", "channels"), [(("L", "RGB"), 3), (("L", "1"), 1), (("P", "RGBA"), 3), (("L", "LA"), 1), (("CMYK",), 3)]
)
def test_pictures_of_several_kinds(modes: tuple[str, ...], channels: int, tmp_path: Path) -> None:
    pictures = [saved(modes[i % len(modes)], "TIFF" if "CMYK" in modes else "PNG") for i in range(6)]
    assert load(parquet(tmp_path / "pets", pictures), val_share=0.3).shape[0] == channels


ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"name": ""}, "expected 'digits', a folder"),
    "a long name": ({"name": "x" * 5000}, "expected 'digits', a folder"),
    "a name of a long part": ({"name": "x" * 500}, "no name of a folder"),
    "two lines": ({"name": "a\nb"}, "expected 'digits', a folder"),
    "no text": ({"name": "a\0b"}, "expected 'digits', a folder"),
    "the home of nobody": ({"name": "~nobody-at-all/pictures"}, "no name of a folder"),
    "None": ({"name": None}, "got None"),
    "a number": ({"name": 3}, "got 3"),
    "batches of none": ({"batch_size": 0}, "batch_size >= 1"),
    "batches of halves": ({"batch_size": 2.5}, "batch_size >= 1"),
    "batches in words": ({"batch_size": "many"}, "batch_size >= 1"),
    "nothing held out": ({"val_share": 0.0}, "val_share in (0, 1)"),
    "all held out": ({"val_share": 1.0}, "val_share in (0, 1)"),
    "a share in words": ({"val_share": "a tenth"}, "val_share in (0, 1)"),
    "a share that is none": ({"val_share": float("nan")}, "val_share in (0, 1)"),
    "a seed below zero": ({"seed": -1}, "expected seed"),
    "no seed": ({"seed": None}, "expected seed"),
    "a seed with a point": ({"seed": 0.5}, "expected seed"),
    "digits of another size": ({"size": 16}, "leave size out"),
    "no size": ({"size": 0}, "expected size"),
    "a huge size": ({"size": 100_000}, "expected size"),
    "two sizes": ({"size": (8, 8)}, "expected size"),
    "workers below zero": ({"workers": -1}, "expected workers"),
    "too many workers": ({"workers": 10**6}, "expected workers"),
    "a mean in words": ({"mean": "mine", "std": 1.0}, "'data', 'imagenet' or numbers"),
    "a mean alone": ({"mean": 0.5}, "expected std beside mean"),
    "a std alone": ({"std": 0.5}, "expected mean beside std"),
    "a mean of bytes": ({"mean": 127.5, "std": 127.5}, "divided by 255"),
    "a mean above 1": ({"mean": 2.0, "std": 0.5}, "mean inside [0, 1]"),
    "a mean that is none": ({"mean": float("nan"), "std": 0.5}, "mean as numbers"),
    "a std of zero": ({"mean": 0.5, "std": 0.0}, "numbers above 0"),
    "a std below zero": ({"mean": 0.5, "std": -0.5}, "numbers above 0"),
    "three numbers for one channel": ({"mean": [0.5] * 3, "std": [0.5] * 3}, "one number or 1"),
    "no numbers": ({"mean": [], "std": []}, "numbers, got []"),
    "words for numbers": ({"mean": ["a"], "std": ["b"]}, "numbers, got ['a']"),
    "imagenet for grey": ({"mean": "imagenet"}, "one number or 1"),
}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_arguments_of_load(kind: str) -> None:
    change, words = ARGUMENTS[kind]
    with pytest.raises(DataError) as caught:
        load(**({"name": "digits"} | change))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


RESTORING: dict[str, tuple[dict[str, Any], str]] = {
    "neither": ({"scale": None}, "expected scale"),
    "both": ({"sigma": 5}, "expected scale"),
    "a scale in words": ({"scale": "4"}, "whole scale"),
    "a switch for a scale": ({"scale": True}, "whole scale"),
    "sigma in words": ({"scale": None, "sigma": "much"}, "sigma above 0"),
    "sigma of zero": ({"scale": None, "sigma": 0}, "sigma above 0"),
    "two channels": ({"channels": 2}, "1 channel (grey) or 3"),
    "channels in words": ({"channels": "RGB"}, "1 channel (grey) or 3"),
    "a patch in words": ({"patch": "big"}, "expected patch"),
    "no patches": ({"patches": 0}, "expected patch"),
    "half a patch": ({"patches": 0.5}, "expected patch"),
    "a seed in words": ({"seed": "a"}, "a seed inside"),
    "a share in words": ({"val_share": "a"}, "val_share in"),
    "a number for a test": ({"test": 3}, "test: expected a folder, got 3"),
    "no images to choose by": ({"val_images": 0}, "val_images >= 1"),
    "workers in words": ({"workers": "all"}, "expected workers"),
    "no folder": ({"folder": None}, "expected a folder, got None"),
    "an empty name": ({"folder": " "}, "expected a folder, got ' '"),
    "a long name": ({"folder": "x" * 500}, "there is no such folder"),
    "two lines": ({"folder": "a\nb"}, "expected a folder"),
    "a file": ({"folder": __file__}, "there is no such folder"),
}


@pytest.mark.parametrize("kind", RESTORING)
def test_arguments_of_load_images(kind: str, tmp_path: Path) -> None:
    change, words = RESTORING[kind]
    with pytest.raises(DataError) as caught:
        load_images(**({"folder": tmp_path, "scale": 2} | change))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "kind", [kind for kind in PICTURES if isinstance(PICTURES[kind][0], bytes) and "large" not in kind]
)
def test_an_odd_picture_to_restore(kind: str, tmp_path: Path) -> None:
    for i in range(4):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{i}.png")
    (tmp_path / "4.png").write_bytes(PICTURES[kind][0])
    with pytest.raises(DataError, match=r"4\.png (cannot be read|has pixels|is too)"):
        load_images(tmp_path, scale=2, patch=16)


def test_a_folder_s_own_val_split_chooses(tmp_path: Path) -> None:
    parquet(tmp_path / "pets", [png()] * 4)
    parquet(tmp_path / "pets", [png()] * 3, split="validation")
    data = load(tmp_path / "pets")
    assert [len(data.train.labels), len(data.val.labels), data.test] == [4, 3, None]
    assert data.preprocessing.val == "a split of its own"
    with pytest.raises(DataError, match="leave val_share out"):
        load(tmp_path / "pets", val_share=0.25)
    parquet(tmp_path / "pets", [png()] * 2, split="test")
    data = load(tmp_path / "pets")
    assert data.test is not None
    assert [len(part.labels) for part in (data.train, data.val, data.test)] == [4, 3, 2]


def test_chosen_statistics(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "pets", [png(8, 8, 3)] * 4)
    x = next(iter(load(folder, val_share=0.25, mean=0.5, std=0.5).val))[0]
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(png(8, 8, 3))))).permute(2, 0, 1)
    torch.testing.assert_close(x[0], pixels / 255 * 2 - 1)
    x = next(iter(load(folder, val_share=0.25, mean="imagenet").val))[0]
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(x[0], (pixels / 255 - mean) / std)
    given = load(folder, val_share=0.25, mean=[0.1, 0.2, 0.3], std=(0.5, 0.6, 0.7)).preprocessing
    assert (given.mean, given.std, given.source) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "as given")
    digits = load("digits", mean=0.5, std=0.5, augment=False)  # their pixels go up to 16
    x = torch.cat([images for images, _ in digits.train])
    assert (x.min(), x.max()) == (-1, 1)
    usual = load("digits").preprocessing
    assert digits.preprocessing.own == (usual.mean, usual.std) == usual.own


def test_what_is_done_to_images_is_said() -> None:
    data = load("digits")
    assert "1294 train, 144 val, 359 test; 10 classes; images 1x8x8, as they are" in repr(data)
    assert "shifted by up to 1 pixels; validation: 0.1 of the training split" in str(data.preprocessing)
    assert "training images unchanged" in str(load("digits", augment=False).preprocessing)
    settings = data.preprocessing.settings
    assert {name: settings[f"data.{name}"] for name in ("size", "statistics", "augment", "val")} == {
        "size": "as they are",
        "statistics": "of the training images",
        "augment": "shift 1, mirror False",
        "val": "0.1 of the training split",
    }
    assert data.train.settings == settings
    again = load("digits", mean=[float(settings["data.mean"])], std=[float(settings["data.std"])])
    torch.testing.assert_close(again.train.mean, data.train.mean)
    assert len(repr(data)) < 400


def test_a_mistyped_folder_is_known_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a connection too: datasets would ask five times, for half a minute."""
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    asked: list[str] = []

    def none(self: Any, name: str, **_: Any) -> None:
        asked.append(name)
        raise ConnectionError("Name or service not known")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", none)
    with pytest.raises(DataError, match=r"the Hub cannot be reached .*did you mean 'pictures'"):
        load("picturs")
    with pytest.raises(DataError, match="did you mean 'digits'"):
        load("digit")
    assert asked == ["picturs", "digit"]

    def missing(self: Any, name: str, **_: Any) -> None:
        raise RepositoryNotFoundError("404", response=type("Response", (), {"headers": {}, "request": None})())

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", missing)
    with pytest.raises(DataError, match="no such name on the Hub"):
        load("owner/name")
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(DataError, match="expected a folder, got a file"):
        load("a.txt")
