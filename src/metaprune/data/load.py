"""Finds a data set by its name, splits it, and holds it ready in memory where it fits."""

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from metaprune.data.batches import Batches
from metaprune.data.pictures import DataError, as_bytes, inside, named, opened, pixels, squared
from metaprune.data.preprocessing import Preprocessing, Statistics, chosen
from metaprune.graph.arguments import is_number

__all__ = ["Data", "DataError", "as_bytes", "load", "splits_of", "whole"]

MEMORY = 2 << 30  # bytes of decoded images that are held in memory
BATCH = 8 << 30  # bytes that a batch of images may take, as numbers of 4 bytes
WORKERS = 4  # processes that read images which are not
SAMPLE = 1000  # images that are read at once, and that the statistics are taken from where not all are at hand
AT_ONCE = 1 << 30  # bytes of images that are read for the statistics, at most
VAL_SHARE = 0.1
MOST_WORKERS = 256
LARGEST = 8192  # pixels that images may be scaled to, each way
TABLES = frozenset((".arrow", ".csv", ".gz", ".json", ".jsonl", ".parquet", ".tar", ".txt", ".zip"))
SPARE = 1000  # classes that there may be beyond ten times the examples, where no names say how many there are


@dataclass(frozen=True)
class Data:
    """Images with labels, in three parts that share no example."""

    name: str
    train: Batches
    val: Batches  # held out of the training part, or a part of its own; chooses
    test: Batches | None  # chooses nothing
    classes: int
    shape: tuple[int, int, int]  # (C, H, W)
    preprocessing: Preprocessing

    def __repr__(self) -> str:
        """How many there are of each part, and how they come."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        counts = ", ".join(f"{len(part.labels)} {name}" for name, part in parts.items() if part is not None)
        return f"Data({self.name}: {counts}; {self.classes} classes; {self.preprocessing})"


@dataclass(frozen=True)
class Split:
    """All examples of one split."""

    images: Tensor | Callable[[list[int]], Tensor]  # uint8 (all, C, H, W), or indices -> uint8 (N, C, H, W)
    labels: Tensor  # (all,)

    def __getitem__(self, kept: Tensor) -> "Split":
        """Only some of them: indices (N,)."""
        if isinstance(self.images, Tensor):
            return Split(self.images[kept], self.labels[kept])
        return Split(partial(_read_some, self.images, kept), self.labels[kept])

    def sample(self, most: int) -> Tensor:
        """All images if they are in memory, else the first ones, so many at most, and no more than memory holds."""
        if isinstance(self.images, Tensor):
            return self.images
        one = self.images([0])
        count = max(1, min(most, len(self.labels), AT_ONCE // one.numel()))
        return one if count == 1 else self.images(list(range(count)))


@dataclass(frozen=True)
class Found:
    """What a data set holds."""

    train: Split
    val: Split | None
    test: Split | None
    classes: int
    white: int = 255  # the largest value that a pixel can have


def load(
    name: str | Path,
    *,
    batch_size: int = 128,
    val_share: float | None = None,
    seed: int = 0,
    augment: bool = True,
    flip: bool | None = None,
    size: int | None = None,
    mean: Statistics | None = None,
    std: Statistics | None = None,
    workers: int | None = None,
) -> Data:
    """Loads images with labels: `load("digits")`, `load("path/to/folder")`, `load("uoft-cs/cifar10")`.

    A network that was trained elsewhere needs what it was trained with: `size`, `mean` and `std`. What is done to the
    images is in `Data.preprocessing`, and printed with the data.

    Args:
        name: "digits" (8x8, grey, part of scikit-learn: no download), a folder that Hugging Face datasets can
            read (parquet files such as train.parquet and test.parquet, or pictures as train/cat/1.png), or a
            name on the Hugging Face Hub. A split called val or validation chooses; no file outside the folder is
            opened.
        batch_size: examples in a batch.
        val_share: where there is no such split: the part of the training split that is held out to choose by; 0.1 by
            default.
        seed: which part that is. It has nothing to do with the seed of a training: leave it alone wherever
            numbers are compared.
        augment: shift the training images by up to an eighth of their height, and `flip` them.
        flip: mirror every other one; by default colour images only, for grey ones are mostly glyphs.
        size: scale the shorter side of each image to so many pixels and cut out the square in the middle;
            needed where images differ in size.
        mean: what is taken away from pixels that are scaled to [0, 1]: "data" (the default: the mean of each channel of
            the training images), "imagenet", or numbers. 0.5, with a `std` of 0.5, gives pixels from -1 to 1.
        std: what they are divided by then, in the same way.
        workers: processes that read images which are not in memory; 4 by default.

    Raises:
        DataError: nothing there, no column of images or of labels, a row without them, an image that cannot be read, is
            too large or lies outside the folder, images of different sizes, or arguments out of range.
    """
    named(name, "data", "'digits', a folder or a name on the Hub")
    who = f"data {name}"
    _check(who, batch_size, val_share, seed, size, workers)
    found = _digits(size) if name == "digits" else _found(str(name), size)
    train, val, source = _held_out(who, found, val_share, seed)

    sample = train.sample(SAMPLE)
    _, channels, height, width = sample.shape
    if 4 * batch_size * channels * height * width > BATCH:
        raise DataError(
            f"{who}: a batch of {batch_size} images of {width}x{height} takes more than {BATCH >> 30} GiB; give size=… "
            "or a smaller batch_size"
        )
    own = _statistics(sample)
    *statistics, origin = chosen(mean, std, own, found.white, who)
    in_memory = isinstance(train.images, Tensor)
    workers = (0 if in_memory else WORKERS) if workers is None else workers

    flip = (channels == 3 if flip is None else flip) and augment
    preprocessing = Preprocessing(
        shape=(channels, height, width),
        size=size,
        mean=_shares(statistics[0], found.white),
        std=_shares(statistics[1], found.white),
        source=origin,
        pad=height // 8 if augment else 0,
        flip=flip,
        val=source,
        workers=workers,
        own=(_shares(own[0], found.white), _shares(own[1], found.white)),
        white=found.white,
    )

    def batches(split: Split) -> Batches:
        mean, std = statistics
        return Batches(
            split.images, split.labels, batch_size, mean, std, workers=workers, settings=preprocessing.settings
        )

    return Data(
        name=str(name),
        train=replace(batches(train), shuffle=True, pad=preprocessing.pad, flip=flip),
        val=batches(val),
        test=batches(found.test) if found.test else None,
        classes=found.classes,
        shape=(channels, height, width),
        preprocessing=preprocessing,
    )


def _check(
    who: str,
    batch_size: object,
    val_share: object,
    seed: object,
    size: object,
    workers: object,
) -> None:
    """Refuse arguments out of range.

    Raises:
        DataError: one is.
    """
    share = VAL_SHARE if val_share is None else val_share
    if not whole(batch_size, 1) or not (is_number(share) and 0 < share < 1):  # type: ignore[operator]
        raise DataError(f"data: expected batch_size >= 1 and val_share in (0, 1), got {batch_size!r}, {val_share!r}")
    for word, value, least, most in (
        ("seed", seed, 0, 2**63 - 1),
        ("size", size, 1, LARGEST),
        ("workers", workers, 0, MOST_WORKERS),
    ):
        if not (value is None and word != "seed") and not whole(value, least, most):
            raise DataError(f"{who}: expected {word} as a whole number from {least} to {most}, got {value!r}")


def whole(value: object, least: int, most: int | None = None) -> bool:
    """Whether a value is a whole number in these bounds."""
    return type(value) is int and value >= least and (most is None or value <= most)


def _held_out(who: str, found: Found, val_share: float | None, seed: int) -> tuple[Split, Split, str]:
    """What trains, what chooses, and where that comes from in words."""
    if found.val is not None:
        if val_share is not None:
            raise DataError(f"{who} has a validation split of its own; leave val_share out, or take that split away")
        return found.train, found.val, "a split of its own"
    share = VAL_SHARE if val_share is None else val_share
    order = torch.randperm(len(found.train.labels), generator=torch.Generator().manual_seed(seed))
    count = round(share * len(order))
    if not 0 < count < len(order):
        raise DataError(f"{who}: cannot hold {share:g} of {len(order)} training examples out")
    parts = (found.train[some.sort().values] for some in (order[count:], order[:count]))
    return *parts, f"{share:g} of the training split"  # type: ignore[return-value]


def _shares(values: Float[Tensor, " c"], white: int) -> tuple[float, ...]:
    return tuple(float(f"{value / white:.6g}") for value in values.tolist())


def _statistics(images: UInt8[Tensor, " n c h w"]) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Mean and standard deviation of each channel, in the unit of the pixels."""
    counts = torch.stack([torch.bincount(pixels.flatten(), minlength=256) for pixels in images.unbind(1)])
    share = counts / counts.sum(1, keepdim=True, dtype=torch.double)
    value = torch.arange(256, dtype=torch.double)
    mean = share @ value
    variance = share @ value**2 - mean**2
    return mean.float(), variance.sqrt().float().clamp_min(1.0)  # a constant channel stays finite


def _read_some(read: Callable[[list[int]], Tensor], kept: Tensor, indices: list[int]) -> Tensor:
    return read(kept[indices].tolist())


def _digits(size: int | None) -> Found:
    """The 1,797 digits of scikit-learn (pixels from 0 to 16); every fifth is for the test."""
    if size is not None:
        raise DataError("data digits: they are 8x8, and stay so; leave size out")
    from sklearn.datasets import load_digits

    found = load_digits()
    split = Split(torch.as_tensor(found.images).to(torch.uint8).unsqueeze(1), torch.as_tensor(found.target))
    test = torch.arange(len(split.labels)) % 5 == 4
    return Found(split[(~test).nonzero().flatten()], None, split[test.nonzero().flatten()], 10, white=16)


def _found(name: str, size: int | None) -> Found:
    """A folder or a name on the Hub, by Hugging Face datasets."""
    import datasets

    try:
        folder = Path(name).expanduser()
        folder.exists()
    except (OSError, RuntimeError) as error:  # a part of it is longer than names can be, or a home that is nobody's
        raise DataError(f"data {name[:60]}: it is no name of a folder ({str(error)[:60]})") from error
    splits, roots = _splits(name, folder)
    if "train" not in splits:
        raise DataError(f"data {name}: expected a split named 'train', got {', '.join(splits)}; rename the files")
    features = splits["train"].features
    images = [column for column, kind in features.items() if _is_image(kind)]
    labels = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    labels = labels or [column for column in ("label", "labels") if column in features]
    if not images or not labels:
        missing = "labels (a class label, or a column named 'label')" if images else "images"
        raise DataError(f"data {name}: expected a column of {missing}, got columns {', '.join(features)}")
    splits = {split: rows.cast_column(images[0], datasets.Image(decode=False)) for split, rows in splits.items()}

    def read(split: str) -> Split | None:
        if split not in splits:
            return None
        if missing := [column for column in (images[0], labels[0]) if column not in splits[split].features]:
            raise DataError(f"data {name}: the split {split} has no column {missing[0]}, which train has")
        return _split(splits[split], f"data {name}", split, images[0], labels[0], size, roots)

    train = read("train")
    assert train is not None
    named = getattr(features[labels[0]], "num_classes", None)
    classes = named or int(train.labels.max()) + 1
    if not named and classes > 10 * len(train.labels) + SPARE:
        raise DataError(
            f"data {name}: labels go up to {classes - 1} in {len(train.labels)} training examples; number them from 0"
        )
    held = {split: read(split) for split in ("validation", "test")}
    for split, found in ({"train": train} | held).items():
        if found and (high := int(found.labels.max())) >= classes:
            which = "" if split == "train" else "the training split has "
            raise DataError(f"data {name}: {which}{classes} classes, but the {split} split has label {high}")
    return Found(train, held["validation"], held["test"], classes)


def _is_image(kind: Any) -> bool:
    """Whether a feature is an image, or one that was not marked as one."""
    import datasets

    return isinstance(kind, datasets.Image) or (isinstance(kind, dict) and {"bytes", "path"} <= set(kind))


def _splits(name: str, folder: Path) -> tuple[Mapping[str, Any], tuple[Path, ...]]:
    """The splits of a folder or of a name on the Hub, and the folders that their files may lie in."""
    import datasets

    caches = datasets.config.HF_DATASETS_CACHE, datasets.config.EXTRACTED_DATASETS_PATH
    roots = [Path(place).expanduser().resolve() for place in caches]
    if folder.is_dir():
        roots.insert(0, folder.resolve())
        _no_way_out(name, folder)
    else:
        import huggingface_hub

        _on_the_hub(name, folder)
        roots.append(Path(huggingface_hub.constants.HF_HUB_CACHE).expanduser().resolve())
    try:
        splits = datasets.load_dataset(str(folder) if folder.is_dir() else name)
    except Exception as error:
        cause = error.__cause__ or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0][:200]
        raise DataError(
            f"data {name}: not 'digits', and not a folder or Hub name that can be read ({reason})"
        ) from error
    return splits, tuple(roots)


def splits_of(name: str) -> Mapping[str, Any]:
    """The splits of a folder or of a name on the Hub, as Hugging Face datasets gives them.

    Raises:
        DataError: it is neither, or cannot be read.
    """
    named(name, "data", "a folder or a name on the Hub")
    return _splits(name, Path(name).expanduser())[0]


def _no_way_out(name: str, folder: Path) -> None:
    """Refuse links that lead from a folder to other places; those of pictures are known by their rows, later."""
    root = folder.resolve()
    for place, _, files in os.walk(folder):
        for file in files:
            path = Path(place, file)
            known = path.suffix.lower() in TABLES and path.is_symlink()
            if known and not Path(os.path.realpath(path)).is_relative_to(root):
                raise DataError(
                    f"data {name}: {path.relative_to(folder)} leads out of the folder, so it is not opened; copy the "
                    "file into it"
                )


def _on_the_hub(name: str, folder: Path) -> None:
    """Refuse at once what is no folder and not on the Hub either; datasets would ask again and again.

    Raises:
        DataError: it is neither.
    """
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    near = _near(folder)
    hint = f"; did you mean {near!r}?" if near else "; give a folder, 'digits', or a name on the Hub"
    if folder.exists():
        raise DataError(f"data {name}: expected a folder, got a file; give the folder that it lies in")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise DataError(f"data {name}: there is no such folder{hint}")
    if datasets.config.HF_HUB_OFFLINE:
        return  # it looks at what was loaded before, and nowhere else
    cached = Path(datasets.config.HF_DATASETS_CACHE).expanduser() / name.replace("/", "___")
    try:
        HfApi().dataset_info(name, timeout=10)
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise DataError(f"data {name}: there is no such folder, and no such name on the Hub{hint}") from error
    except HfHubHTTPError:
        return  # it is there, but not for this question
    except Exception as error:
        if not cached.is_dir():
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:100]
            raise DataError(
                f"data {name}: there is no such folder, and the Hub cannot be reached ({reason}){hint}"
            ) from error


def _near(folder: Path) -> str | None:
    """A folder that the name may be a slip of."""
    try:
        beside = [str(path) for path in folder.parent.iterdir() if path.is_dir()]
    except OSError:
        beside = []
    return next(iter(difflib.get_close_matches(str(folder), [*beside, "digits"], 1, 0.7)), None)


def _split(rows: Any, who: str, split: str, image: str, label: str, size: int | None, roots: tuple[Path, ...]) -> Split:
    """One split; its images are decoded now if they fit in memory, else whenever they are asked for."""
    if not len(rows):
        raise DataError(f"{who}: the split {split} has no examples")
    labels = _labels(rows.with_format("numpy")[label][:], who, split, label)
    read = Decoder(who, split, rows.select_columns([image]), image, "RGB", size, roots)
    few = range(0, len(rows), -(-len(rows) // SAMPLE))
    if all(read.is_grey(row) for row in few):
        read = replace(read, mode="L")
    if len(rows) * read([0]).numel() > MEMORY:
        return Split(read, labels)
    chunks = torch.split(torch.arange(len(rows)), SAMPLE)
    try:
        return Split(torch.cat([read(chunk.tolist()) for chunk in chunks]), labels)
    except RuntimeError:
        raise DataError(f"{who}: images differ in size; give size=…") from None


def _labels(found: Any, who: str, split: str, column: str) -> Tensor:
    """The labels of all rows.

    Raises:
        DataError: one is missing, or no whole number from 0; with its row.
    """
    fits = (found >= 0) if found.ndim == 1 and found.dtype.kind in "iub" else [_is_label(label) for label in found]
    for row, fit in enumerate(fits):
        if not fit:
            label = found[row]
            shown = "none" if label is None or (is_number(label) and label != label) else f"{label!s:.60}"
            raise DataError(
                f"{who}: expected whole numbers >= 0 in column '{column}', got {shown} in row {row} of {split}; "
                "number the classes from 0, and take rows without a label away"
            )
    return torch.from_numpy(found.astype("int64"))


def _is_label(label: object) -> bool:
    """Whether it is a whole number; a column with an empty row holds its whole numbers as floats."""
    return is_number(label) and 0 <= label < 2**62 and label == int(label)  # type: ignore[operator, call-overload]


@dataclass(frozen=True)
class Decoder:
    """Reads images by their indices: list of N -> uint8 (N, C, H, W)."""

    who: str
    split: str
    rows: Any  # a datasets.Dataset
    column: str
    mode: str  # "L" or "RGB", as Pillow calls them
    size: int | None
    roots: tuple[Path, ...]  # files lie in them or are not opened

    def __call__(self, indices: list[int]) -> Tensor:
        """Decode some.

        Raises:
            DataError: one cannot be, or they are of different sizes.
        """
        found = zip(indices, self.rows[indices][self.column], strict=True)
        pictures = [self._decode(row, held) for row, held in found]
        if len({picture.shape for picture in pictures}) > 1:
            few = sorted({f"{picture.shape[2]}x{picture.shape[1]}" for picture in pictures})[:3]
            raise DataError(f"{self.who}: images differ in size ({', '.join(few)}, …); give size=…")
        return torch.stack(pictures)

    def is_grey(self, row: int) -> bool:
        """Whether an image has no colours, as its header says."""
        source, who = self._source(row, self.rows[row][self.column])
        with opened(source, who) as picture:
            return picture.mode in ("1", "L", "LA", "La")

    def _decode(self, row: int, held: Any) -> Tensor:
        source, who = self._source(row, held)
        with opened(source, who) as picture:
            return pixels(picture, self.mode) if self.size is None else squared(picture, self.mode, self.size, who)

    def _source(self, row: int, held: Any) -> tuple[bytes | Path, str]:
        """The bytes of an image or its file, and what it is called in errors."""
        who = f"{self.who}: row {row} of {self.split}"
        held = held or {}
        if held.get("bytes") is not None:
            return held["bytes"], who
        if not held.get("path"):
            raise DataError(f"{who} has no image; take the row away")
        return inside(held["path"], self.roots, who), f"{who} ({Path(held['path']).name})"
