"""Pairs of degraded and true images: patches to learn from, whole images to measure on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from metaprune.data.batches import read_ahead

__all__ = ["Pair", "Patches", "Source", "Whole"]

Pair = tuple[Tensor, Tensor]
"""What is given and what is true: uint8 (C, H, W) and (C, scale·H, scale·W), or batches of such."""


class Source(Protocol):
    """Pairs by their indices."""

    def __len__(self) -> int:
        """The number of pairs."""

    def __getitem__(self, index: int, /) -> Pair:
        """One of them."""


@dataclass(frozen=True, eq=False, repr=False)
class Patches:
    """Iterates over (given, true): float (N, C, size, size) and (N, C, scale·size, scale·size) in [0, 1].

    Images (each as often as the others, but for one), places, turns and noise are drawn anew from torch's global
    random numbers in each pass, so whoever seeds those (`fit` does, at each epoch) gets the same batches again.
    """

    source: Source
    size: int  # pixels of a given patch, each way
    patches: int  # in a pass
    batch_size: int
    sigma: float = 0.0  # of the noise, in grey levels of 255
    augment: bool = True
    workers: int = 0  # processes that read images which are not in memory
    settings: Mapping[str, str] = field(default_factory=dict)  # what is done to the images, for runs and reports

    @property
    def examples(self) -> int:
        """The number of patches in a pass."""
        return self.patches

    def __len__(self) -> int:
        """The number of batches; the last one may be small."""
        return -(-self.patches // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass."""
        rounds = -(-self.patches // len(self.source))
        images = torch.cat([torch.randperm(len(self.source)) for _ in range(rounds)])[: self.patches]
        places = torch.rand(self.patches, 2, dtype=torch.double)
        turns = torch.randint(8 if self.augment else 1, (self.patches,))
        noise = torch.Generator().manual_seed(int(torch.randint(2**32, ())))
        drawn = list(zip(images.tolist(), places.tolist(), turns.tolist(), strict=True))
        keys = [drawn[start : start + self.batch_size] for start in range(0, self.patches, self.batch_size)]
        for given, true in read_ahead(self._cut_out, keys, self.workers):
            yield degraded(given, self.sigma, noise), true.float() / 255

    def _cut_out(self, drawn: list[tuple[int, tuple[float, float], int]]) -> Pair:
        """The patches (image, place as shares of the room there is, turn) of a batch, as bytes."""
        cut = []
        for image, place, turn in drawn:
            given, true = self.source[image]
            scale = true.shape[1] // given.shape[1]
            room = (side - self.size + 1 for side in given.shape[1:])
            top, left = (int(share * count) for share, count in zip(place, room, strict=True))
            windows = window(given, top, left, self.size), window(true, scale * top, scale * left, scale * self.size)
            cut.append([turned(patch, turn) for patch in windows])
        given, true = (torch.stack(some) for some in zip(*cut, strict=True))
        return given, true


@dataclass(frozen=True, eq=False, repr=False)
class Whole:
    """Iterates over (given, true), one whole image each: float (1, C, H, W) and (1, C, scale·H, scale·W) in [0, 1].

    The noise of an image depends on the seed and on its place in the order, and on nothing else.
    """

    source: Source
    sigma: float = 0.0  # of the noise, in grey levels of 255
    seed: int = 0

    def __len__(self) -> int:
        """The number of images."""
        return len(self.source)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass."""
        for index in range(len(self.source)):
            given, true = self.source[index]
            (word,) = np.random.SeedSequence([self.seed, index]).generate_state(1)  # torch's takes 32 bits
            noise = torch.Generator().manual_seed(int(word))
            yield degraded(given[None], self.sigma, noise), true[None].float() / 255


def degraded(given: UInt8[Tensor, " n c h w"], sigma: float, noise: torch.Generator) -> Float[Tensor, " n c h w"]:
    """Scaled to [0, 1], with the noise, which may lead out of it."""
    pictures = given.float() / 255
    return pictures + sigma / 255 * torch.randn(pictures.shape, generator=noise) if sigma else pictures


def window(image: UInt8[Tensor, " c h w"], top: int, left: int, size: int) -> UInt8[Tensor, " c size size"]:
    """A square cut out."""
    return image[:, top : top + size, left : left + size]


def turned(patch: UInt8[Tensor, " c p p"], turn: int) -> UInt8[Tensor, " c p p"]:
    """One of the eight ways to lay a square down: 0 leaves it as it is."""
    if turn & 1:
        patch = patch.flip(2)
    if turn & 2:
        patch = patch.flip(1)
    return patch.transpose(1, 2) if turn & 4 else patch
