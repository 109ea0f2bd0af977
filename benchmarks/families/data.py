"""What the networks of families learn: pictures to tell apart, patches to denoise, text to go on with.

Everything is small, in memory, and kept in one file under the folder of the experiment.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

import metaprune as mp
from metaprune.data import Batches, Tokens, load, load_characters
from metaprune.data.images import found_in
from metaprune.data.pictures import opened, pixels
from metaprune.train.task import Task

BATCH = 128
SIGMA = 25.0
"""Of the noise, in grey levels of 255."""

LENGTH = 64
"""Characters of a sequence."""

PATCH = 32
"""Pixels of a patch to denoise."""

Parts = Mapping[str, Tensor]
"""Tensors by names such as train, val.labels."""


@dataclass(frozen=True)
class Data:
    """What a family's networks are trained for.

    Attributes:
        task: With its batches.
        example: Inputs of a network.
        shape: What a network must know of the data: channels, classes, pixels; or classes, length.
        points: What one unit of the metric counts in tables: percent are points, a tenth of a decibel is one.
    """

    task: Task
    example: tuple[Tensor]
    shape: Mapping[str, int]
    points: float = 1.0


@dataclass(frozen=True)
class Sources:
    """Where data lie; those of digits and of the text come with packages."""

    cifar10: str = ""
    omniglot: str = ""
    bsds500: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Noisy:
    """Iterates over (noisy, true): float (N, 1, PATCH, PATCH), true in [0, 1].

    To learn from, order, turns and noise are drawn anew in each pass from torch's global random numbers; else the noise
    is always the same.
    """

    patches: Tensor
    batch_size: int
    training: bool = False

    def __len__(self) -> int:
        """The number of batches."""
        return -(-len(self.patches) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass."""
        count = len(self.patches)
        order = torch.randperm(count) if self.training else torch.arange(count)
        noise = torch.Generator().manual_seed(int(torch.randint(2**31, ())) if self.training else 0)
        for chosen in order.split(self.batch_size):
            true = self.patches[chosen].float() / 255
            if self.training:
                true = true.rot90(int(torch.randint(4, ())), (2, 3))
            yield true + SIGMA / 255 * torch.randn(true.shape, generator=noise), true


def subset(parts: Parts, name: str, counts: Mapping[str, int]) -> dict[str, Tensor]:
    """Some examples of each part, drawn once and for all."""
    found = {}
    for part, count in counts.items():
        order = torch.randperm(len(parts[part]), generator=torch.Generator().manual_seed(0))[:count]
        found[part] = parts[part][order].contiguous()
        found[f"{part}.labels"] = parts[f"{part}.labels"][order].contiguous()
    return found


def pictures(name: str, size: int | None, counts: Mapping[str, int]) -> dict[str, Tensor]:
    """Pictures with labels that `metaprune.data.load` reads, scaled."""
    whole = load(name, size=None if name == "digits" else 32, augment=False, val_share=0.1)
    parts: dict[str, Tensor] = {}
    for part in ("train", "val", "test"):
        batches = getattr(whole, part)
        seen, labels = (torch.cat(each) for each in zip(*batches, strict=True))  # in one pass: each is in another order
        given = seen * batches.std[:, None, None] + batches.mean[:, None, None]
        if size is not None:
            given = F.avg_pool2d(given, given.shape[-1] // size)
        parts[part] = given.round().clamp(0, 255).to(torch.uint8)
        parts[f"{part}.labels"] = labels
    return subset(parts, name, counts)


def characters(path: str) -> dict[str, Tensor]:
    """Drawings of characters, each a class: of twenty, 14 to learn from, three to choose by, three to report."""
    read = load_characters(path, size=24)
    classes = [*read.train, *read.val, *read.test]
    parts = {}
    for part, place in (("train", slice(0, 14)), ("val", slice(14, 17)), ("test", slice(17, 20))):
        some = [drawings[place] for drawings in classes]
        parts[part] = (torch.cat(some) * 255).round().to(torch.uint8)
        parts[f"{part}.labels"] = torch.cat([torch.full((len(each),), label) for label, each in enumerate(some)])
    return parts


def patches(folder: str) -> dict[str, Tensor]:
    """Grey patches, every picture in one part only."""
    counts = {"train": 3000, "val": 500, "test": 1000}
    parts = {}
    for number, (part, count) in enumerate(counts.items()):
        drawn = torch.Generator().manual_seed(number)
        images = [pixels(picture, "L") for path in found_in(Path(folder) / part) for picture in opened_one(path)]
        cut = []
        for place in range(count):
            image = images[place % len(images)]
            top, left = (int(torch.randint(side - PATCH + 1, (), generator=drawn)) for side in image.shape[1:])
            cut.append(image[:, top : top + PATCH, left : left + PATCH])
        parts[part] = torch.stack(cut)
    return parts


def opened_one(path: Path) -> Iterator[object]:
    """The picture in a file."""
    with opened(path, path.name) as picture:
        yield picture


def text() -> dict[str, Tensor]:
    """What Python's own help says, as characters; the least frequent are one."""
    from pydoc_data.topics import topics

    whole = "\n".join(topics[name] for name in sorted(topics))
    counts: dict[str, int] = {}
    for letter in whole:
        counts[letter] = counts.get(letter, 0) + 1
    known = {letter: place for place, letter in enumerate(sorted(letter for letter, n in counts.items() if n > 20), 1)}
    numbers = torch.tensor([known.get(letter, 0) for letter in whole], dtype=torch.int64)
    rows = numbers[: len(numbers) // LENGTH * LENGTH].view(-1, LENGTH)
    first, second = round(0.86 * len(rows)), round(0.92 * len(rows))
    return {"train": rows[:first][:5000].clone(), "val": rows[first:second].clone(), "test": rows[second:].clone()}


def kept(path: Path, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors in a file, made where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            save_file(dict(make()), path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
    return load_file(path)


def telling_apart(parts: Parts, flip: bool) -> Data:
    """Classification of pictures."""
    values = parts["train"].float()
    mean, std = values.mean((0, 2, 3)), values.std((0, 2, 3))
    pixels_each_way = values.shape[-1]

    def batches(part: str, training: bool = False) -> Batches:
        size = min(BATCH, len(parts[part]) // 8) if training else 2 * BATCH
        pad = pixels_each_way // 8 if training else 0
        return Batches(
            parts[part], parts[f"{part}.labels"], size, mean, std, shuffle=training, pad=pad, flip=flip and training
        )

    task = mp.Classification(batches("train", training=True), batches("val"), batches("test"))
    classes = int(parts["train.labels"].max()) + 1
    shape = {"channels": values.shape[1], "classes": classes, "pixels": pixels_each_way}
    return Data(task, (torch.zeros(2, *values.shape[1:]),), shape)


def restoring(parts: Parts) -> Data:
    """Denoising of patches."""
    train, val, test = (Noisy(parts[part], BATCH // 2, part == "train") for part in ("train", "val", "test"))
    task = mp.Denoising(train, val, test, sigma=SIGMA)
    return Data(task, (torch.zeros(2, 1, PATCH, PATCH),), {"channels": 1}, points=10.0)


def going_on(parts: Parts) -> Data:
    """The next character; measured by how often the likeliest is right."""
    train, val, test = (Tokens(parts[part], BATCH // 2, part == "train") for part in ("train", "val", "test"))

    def right(logits: Tensor, batch: Tensor) -> tuple[Tensor, int]:
        hits = logits[:, :-1].argmax(-1) == batch[:, 1:]
        return 100 * hits.float().mean(1).sum(), len(batch)

    like = mp.LanguageModelling(train, val, test)
    task = Task(train, val, test, loss=like.loss, metric=right, metric_name="accuracy (%)", inputs=like.inputs)
    shape = {"classes": int(parts["train"].max()) + 1, "length": LENGTH}
    return Data(task, (parts["train"][:2],), shape)


def prepared(name: str, sources: Sources, home: Path) -> Data:
    """Data by their name, read from the file that is kept of them.

    Args:
        name: cifar10, digits, omniglot, bsds500 or text.
        sources: Where they are from.
        home: The folder of the files.
    """
    path = home / f"{name}.safetensors"
    if name == "cifar10":
        counts = {"train": 6000, "val": 3000, "test": 6000}
        return telling_apart(kept(path, lambda: pictures(sources.cifar10, 16, counts)), flip=True)
    if name == "digits":
        counts = {"train": 1200, "val": 300, "test": 400}
        return telling_apart(kept(path, lambda: pictures("digits", None, counts)), flip=False)
    if name == "omniglot":
        return telling_apart(kept(path, lambda: characters(sources.omniglot)), flip=False)
    if name == "bsds500":
        return restoring(kept(path, lambda: patches(sources.bsds500)))
    if name == "text":
        return going_on(kept(path, text))
    raise KeyError(name)
