"""Finds a data set by its name, splits it, and holds it ready in memory where it fits."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from metaprune.data.batches import Batches
from metaprune.graph.errors import MetapruneError

__all__ = ["Data", "DataError", "as_bytes", "load"]

MEMORY = 2 << 30  # bytes of decoded images that are held in memory
WORKERS = 4  # processes that read images which are not
SAMPLE = 1000  # images that are read at once, and that the statistics are taken from where not all are at hand


class DataError(MetapruneError):
    """Data that cannot be found or read."""


@dataclass(frozen=True)
class Data:
    """Images with labels, in three parts that share no example."""

    name: str
    train: Batches
    val: Batches  # held out of the training part; chooses
    test: Batches | None  # chooses nothing
    classes: int
    shape: tuple[int, int, int]  # (C, H, W)


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

    def sample(self) -> Tensor:
        """All images if they are in memory, else the first ones."""
        if isinstance(self.images, Tensor):
            return self.images
        return self.images(list(range(min(SAMPLE, len(self.labels)))))


def load(
    name: str | Path,
    *,
    batch_size: int = 128,
    val_share: float = 0.1,
    seed: int = 0,
    augment: bool = True,
    flip: bool | None = None,
    size: int | None = None,
) -> Data:
    """Loads images with labels: `load("digits")`, `load("path/to/folder")`, `load("uoft-cs/cifar10")`.

    Args:
        name: "digits" (8x8, grey, part of scikit-learn: no download), a folder that Hugging Face datasets can
            read (parquet files such as train.parquet and test.parquet, or pictures as train/cat/1.png), or a
            name on the Hugging Face Hub.
        batch_size: examples in a batch.
        val_share: the part of the training split that is held out to choose by.
        seed: which part that is. It has nothing to do with the seed of a training: leave it alone wherever
            numbers are compared.
        augment: shift the training images by up to an eighth of their height, and `flip` them.
        flip: mirror every other one; by default colour images only, for grey ones are mostly glyphs.
        size: scale the shorter side of each image to so many pixels and cut out the square in the middle;
            needed where images differ in size.

    Raises:
        DataError: nothing there, no column of images or of labels, or images of different sizes.
    """
    if batch_size < 1 or not 0 < val_share < 1:
        raise DataError(f"data: expected batch_size >= 1 and val_share in (0, 1), got {batch_size}, {val_share}")
    train, test, classes = _digits() if name == "digits" else _found(str(name), size)
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(seed))
    held_out = round(val_share * len(order))
    if not 0 < held_out < len(order):
        raise DataError(f"data {name}: cannot hold {val_share:g} of {len(order)} training examples out")
    val, train = train[order[:held_out].sort().values], train[order[held_out:].sort().values]

    sample = train.sample()
    _, channels, height, width = sample.shape
    mean, std = _statistics(sample)
    workers = 0 if isinstance(train.images, Tensor) else WORKERS

    def batches(split: Split) -> Batches:
        return Batches(split.images, split.labels, batch_size, mean, std, workers=workers)

    flip = channels == 3 if flip is None else flip
    return Data(
        name=str(name),
        train=replace(batches(train), shuffle=True, pad=height // 8 * augment, flip=flip and augment),
        val=batches(val),
        test=batches(test) if test else None,
        classes=classes,
        shape=(channels, height, width),
    )


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


def _digits() -> tuple[Split, Split, int]:
    """The 1,797 digits of scikit-learn (pixels from 0 to 16); every fifth is for the test."""
    from sklearn.datasets import load_digits

    found = load_digits()
    split = Split(torch.as_tensor(found.images).to(torch.uint8).unsqueeze(1), torch.as_tensor(found.target))
    test = torch.arange(len(split.labels)) % 5 == 4
    return split[(~test).nonzero().flatten()], split[test.nonzero().flatten()], 10


def _found(name: str, size: int | None) -> tuple[Split, Split | None, int]:
    """A folder or a name on the Hub, by Hugging Face datasets: training split, test split, classes."""
    import datasets

    folder = Path(name).expanduser()
    if not folder.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise DataError(f"data {name}: there is no such folder; give a folder, 'digits', or a name on the Hub")
    try:
        splits = datasets.load_dataset(str(folder) if folder.is_dir() else name)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"data {name}: not 'digits', and not a folder or Hub name that can be read ({reason})"
        ) from error
    if "train" not in splits:
        raise DataError(f"data {name}: expected a split named 'train', got {', '.join(splits)}; rename the files")
    for column, kind in splits["train"].features.items():
        if isinstance(kind, dict) and {"bytes", "path"} <= set(kind):  # an image that was not marked as one
            splits = splits.cast_column(column, datasets.Image())
    features = splits["train"].features
    images = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    labels = labels or [column for column in ("label", "labels") if column in features]
    if not images or not labels:
        missing = "labels (a class label, or a column named 'label')" if images else "images"
        raise DataError(f"data {name}: expected a column of {missing}, got columns {', '.join(features)}")

    columns = (name, images[0], labels[0], size)
    train = _split(splits["train"], *columns)
    held = next((splits[split] for split in ("test", "validation") if split in splits), None)
    test = None if held is None else _split(held, *columns)
    classes = getattr(features[labels[0]], "num_classes", None) or int(train.labels.max()) + 1
    if test and (high := int(test.labels.max())) >= classes:
        raise DataError(f"data {name}: the training split has {classes} classes, but the test split has label {high}")
    return train, test, classes


def _split(rows: Any, name: str, image: str, label: str, size: int | None) -> Split:
    """One split; its images are decoded now if they fit in memory, else whenever they are asked for."""
    if not len(rows):
        raise DataError(f"data {name}: a split has no examples")
    found = rows.with_format("numpy")[label][:]
    bad = found[found < 0] if found.dtype.kind in "iu" else found
    if len(bad):
        raise DataError(f"data {name}: expected whole numbers >= 0 in column '{label}', got {bad[0]}")
    labels = torch.from_numpy(found).long()
    mode = "L" if rows[0][image].mode in ("1", "L") else "RGB"
    read = Decoder(name, rows.select_columns([image]), image, mode, size)
    if len(rows) * read([0]).numel() > MEMORY:
        return Split(read, labels)
    chunks = torch.split(torch.arange(len(rows)), SAMPLE)
    try:
        return Split(torch.cat([read(chunk.tolist()) for chunk in chunks]), labels)
    except RuntimeError:
        raise DataError(f"data {name}: images differ in size; give size=…") from None


@dataclass(frozen=True)
class Decoder:
    """Reads images by their indices: list of N -> uint8 (N, C, H, W)."""

    name: str
    rows: Any  # a datasets.Dataset
    column: str
    mode: str  # "L" or "RGB", as Pillow calls them
    size: int | None

    def __call__(self, indices: list[int]) -> Tensor:
        """Decode some.

        Raises:
            DataError: they are of different sizes.
        """
        pictures = [self._decode(picture) for picture in self.rows[indices][self.column]]
        if len({picture.shape for picture in pictures}) > 1:
            few = sorted({f"{picture.shape[2]}x{picture.shape[1]}" for picture in pictures})[:3]
            raise DataError(f"data {self.name}: images differ in size ({', '.join(few)}, …); give size=…")
        return torch.stack(pictures)

    def _decode(self, picture: Any) -> Tensor:
        picture = picture.convert(self.mode)
        if self.size:
            scale = self.size / min(picture.size)
            width, height = (max(self.size, round(side * scale)) for side in picture.size)
            left, top = (width - self.size) // 2, (height - self.size) // 2
            picture = picture.resize((width, height)).crop((left, top, left + self.size, top + self.size))
        return as_bytes(picture)


def as_bytes(picture: Any) -> UInt8[Tensor, " c h w"]:
    """A picture of Pillow's, grey or RGB."""
    raw = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return raw.view(picture.height, picture.width, -1).permute(2, 0, 1).contiguous()
