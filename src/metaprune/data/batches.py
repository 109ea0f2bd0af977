"""Batches of images, augmented and normalised a whole batch at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from metaprune.data.pictures import DataError

__all__ = ["Batches", "read_ahead"]


@dataclass(frozen=True, eq=False, repr=False)
class Batches:
    """Iterates over (images, labels): float (N, C, H, W), whole number (N,).

    Order, crops and flips are drawn anew from torch's global random numbers in each pass, so whoever seeds
    those (`fit` does, at each epoch) gets the same batches again.
    """

    images: Tensor | Callable[[list[int]], Tensor]  # uint8 (all, C, H, W), or indices -> uint8 (N, C, H, W)
    labels: Tensor  # (all,)
    batch_size: int
    mean: Tensor  # (C,), of bytes
    std: Tensor
    shuffle: bool = False
    pad: int = 0  # crop at random from the image with so many black pixels around it
    flip: bool = False  # left and right, every other time
    workers: int = 0  # processes that read images which are not in memory
    settings: Mapping[str, str] = field(default_factory=dict)  # what is done to the images, for runs and reports

    @property
    def examples(self) -> int:
        """The number of examples in a pass."""
        return len(self.labels)

    def __len__(self) -> int:
        """The number of batches; the last one may be small."""
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over all examples."""
        total = len(self.labels)
        order = torch.randperm(total) if self.shuffle else torch.arange(total)
        indices = torch.split(order.to(self.labels.device), self.batch_size)
        for chosen, images in zip(indices, self._read(indices), strict=True):
            yield self.prepare(images), self.labels[chosen]

    def near(self, device: torch.device) -> "Batches":
        """The same, of images that are kept and augmented on a device, where they are in memory and it has room."""
        if not isinstance(self.images, Tensor) or self.images.device == device or not _has_room(device, self.images):
            return self
        there = {name: getattr(self, name).to(device) for name in ("images", "labels", "mean", "std")}
        return replace(self, **there)

    def _read(self, indices: tuple[Tensor, ...]) -> Iterator[Tensor]:
        if isinstance(self.images, Tensor):
            yield from (self.images[chosen] for chosen in indices)
        else:
            yield from read_ahead(self.images, [chosen.tolist() for chosen in indices], self.workers)

    def prepare(self, images: UInt8[Tensor, " n c h w"]) -> Float[Tensor, " n c h w"]:
        """Augments and normalises."""
        if self.pad or self.flip:
            images = shift(images, self.pad, self.flip)
        return (images.float() - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)


def shift(images: UInt8[Tensor, " n c h w"], pad: int, flip: bool) -> UInt8[Tensor, " n c h w"]:
    """Moves each image up to `pad` pixels each way, leaving black, and mirrors half of them if `flip`.

    All of it in one gather, which takes a tenth of the time of slicing windows.
    """
    n, channels, height, width = images.shape
    top, left = torch.randint(2 * pad + 1, (2, n, 1))  # on the CPU, wherever the images are: the same everywhere
    mirrored = torch.rand(n, 1) < (0.5 if flip else 0.0)
    if images.device.type != "cpu":
        top, left, mirrored = torch.stack([top, left, mirrored.long()]).to(images.device, non_blocking=True)
        mirrored = mirrored.bool()
    across = torch.arange(width, device=images.device)
    rows = torch.arange(height, device=images.device) + top  # (N, H)
    columns = torch.where(mirrored, across.flip(0), across) + left  # (N, W)
    pixels = rows.unsqueeze(2) * (width + 2 * pad) + columns.unsqueeze(1)  # (N, H, W), into the padded image
    padded = F.pad(images, (pad,) * 4).flatten(2)
    return padded.gather(2, pixels.view(n, 1, -1).expand(-1, channels, -1)).view_as(images)


def _has_room(device: torch.device, images: Tensor) -> bool:
    """Whether images take no more than a quarter of what a device has left; of others than CUDA's it is not known."""
    return device.type != "cuda" or images.nbytes <= torch.cuda.mem_get_info(device)[0] / 4


def read_ahead(read: Callable[[Any], Any], keys: Iterable[Any], workers: int) -> Iterator[Any]:
    """What `read` gives for each key, in order; so many processes read what is needed next.

    Raises:
        DataError: as `read` does, in one line wherever it was read.
    """
    for found in DataLoader(
        _Reader(read),  # type: ignore[arg-type]
        sampler=keys,
        batch_size=None,
        num_workers=workers,
        generator=torch.Generator(),  # seeds the workers, who draw nothing; the global one stays as it is
    ):
        if isinstance(found, DataError):
            raise found
        yield found


@dataclass(frozen=True)
class _Reader:
    """What a DataLoader asks for its items: here an item is a whole batch."""

    read: Callable[[Any], Any]

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.read(key)
        except DataError as error:  # a DataLoader would make many lines of it
            return error
