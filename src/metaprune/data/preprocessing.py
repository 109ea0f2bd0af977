"""What is done to images before a network sees them: said in words, and chosen."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune.data.pictures import DataError
from metaprune.graph.arguments import is_number

__all__ = ["IMAGENET", "Preprocessing", "Statistics", "chosen"]

Statistics = str | float | Sequence[float]
"""Words ("data", "imagenet"), or a number for all channels, or one for each."""

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""Of the training images of ImageNet, red, green and blue, scaled to [0, 1]."""

LARGEST = 10.0  # that a number may be; larger ones are of pixels up to 255


@dataclass(frozen=True)
class Preprocessing:
    """How images come to a network."""

    shape: tuple[int, int, int]  # (C, H, W)
    size: int | None  # the shorter side is scaled to it, and the square in the middle cut out
    mean: tuple[float, ...]  # taken away from pixels that are scaled to [0, 1]
    std: tuple[float, ...]  # what they are divided by then
    source: str  # where mean and std come from
    pad: int  # training images are shifted by up to so many pixels
    flip: bool  # and mirrored, every other time
    val: str  # where the validation part comes from
    workers: int  # processes that read images
    own: tuple[tuple[float, ...], tuple[float, ...]]  # mean and std of the training images, whatever was chosen
    white: int = 255  # the largest value that a pixel can have, as bytes

    def __str__(self) -> str:
        """In one line."""
        channels, height, width = self.shape
        cut = "as they are" if self.size is None else f"the shorter side scaled to {self.size}, the middle cut out"
        done = [f"shifted by up to {self.pad} pixels"] * bool(self.pad) + ["mirrored"] * self.flip
        return (
            f"images {channels}x{height}x{width}, {cut}; pixels in [0, 1], minus {_words(self.mean)}, divided by "
            f"{_words(self.std)} ({self.source}); training images {' and '.join(done) or 'unchanged'}; "
            f"validation: {self.val}"
        )

    @property
    def settings(self) -> dict[str, str]:
        """What a run and a report remember; `load` takes size, mean and std back."""
        return {
            "data.size": "as they are" if self.size is None else str(self.size),
            "data.mean": ",".join(map(str, self.mean)),
            "data.std": ",".join(map(str, self.std)),
            "data.statistics": self.source,
            "data.augment": f"shift {self.pad}, mirror {self.flip}" if self.pad or self.flip else "none",
            "data.val": self.val,
        }


def chosen(
    mean: Statistics | None, std: Statistics | None, own: tuple[Tensor, Tensor], white: int, who: str
) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"], str]:
    """Mean and standard deviation in the unit of the pixels, and in words where they come from.

    Args:
        mean: "data", "imagenet", or numbers of pixels scaled to [0, 1]; None for what `std` says, or "data".
        std: the same.
        own: those of the data, (C,) each, in the unit of the pixels.
        white: the largest value a pixel can have.
        who: for the error.

    Raises:
        DataError: they are something else, or do not fit the channels.
    """
    words = {"mean": mean if mean is not None else std, "std": std if std is not None else mean}
    for name, given in (("mean", mean), ("std", std)):
        other = {"mean": "std", "std": "mean"}[name]
        if given is None and words[name] is not None and not isinstance(words[name], str):
            raise DataError(f"{who}: expected {name} beside {other}, as both are numbers; give both")
    found, sources = {}, []
    for name, value, mine in (("mean", words["mean"], own[0]), ("std", words["std"], own[1])):
        if value is None or value == "data":
            found[name] = mine
            sources.append("of the training images")
        elif isinstance(value, str) and value != "imagenet":
            raise DataError(f"{who}: expected {name} as 'data', 'imagenet' or numbers, got {value!r}")
        else:
            numbers = IMAGENET[name] if isinstance(value, str) else (value if _several(value) else [value])
            found[name] = _fitting(name, numbers, len(mine), who).float() * white
            sources.append("ImageNet's" if isinstance(value, str) else "as given")
    return found["mean"], found["std"], " and ".join(dict.fromkeys(sources))


def _several(value: object) -> bool:
    return isinstance(value, Sequence) or (isinstance(value, Tensor) and value.dim() == 1)


def _fitting(name: str, given: object, channels: int, who: str) -> Float[Tensor, " c"]:
    """One number a channel, out of one or as many."""
    numbers = [n.item() if isinstance(n, Tensor) else n for n in given] if _several(given) else []  # type: ignore[attr-defined]
    least = "above 0" if name == "std" else "from 0"
    if not numbers or not all(is_number(n) for n in numbers):
        raise DataError(f"{who}: expected {name} as 'data', 'imagenet' or numbers, got {given!r}")
    if not all((n > 0 if name == "std" else n >= 0) and n <= LARGEST for n in numbers):
        raise DataError(
            f"{who}: expected {name} as numbers {least}, of pixels scaled to [0, 1], got {_words(numbers)}; "
            "numbers of pixels up to 255 are divided by 255"
        )
    if name == "mean" and max(numbers) > 1:
        raise DataError(
            f"{who}: expected mean inside [0, 1], of pixels scaled to it, got {_words(numbers)}; numbers of pixels "
            "up to 255 are divided by 255"
        )
    if len(numbers) not in (1, channels):
        raise DataError(f"{who}: expected {name} as one number or {channels}, one a channel, got {len(numbers)}")
    return torch.tensor([float(n) for n in numbers], dtype=torch.double).expand(channels)


def _words(numbers: Sequence[float]) -> str:
    few = list(dict.fromkeys(numbers)) if len(set(numbers)) == 1 else numbers
    return ", ".join(f"{number:.4g}" for number in few)
