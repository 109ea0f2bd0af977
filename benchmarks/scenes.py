"""Pictures to find things in: discs, squares and triangles cut from one photograph and laid on another.

Made once, from a folder of photographs and a seed, in memory; batches are by the contracts of detection (lists of
pictures, boxes and labels) and of segmentation (pictures and maps). Half of the pictures of a pass are mirrored.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from metaprune.data.pictures import opened, pixels

__all__ = ["CLASSES", "SIDE", "Scenes", "scenes"]

KINDS: tuple[int, ...] = (0, 4, 3)
"""Corners of each kind of shape; a disc has none."""

CLASSES = len(KINDS) + 1
"""Of pixels: 0 is the ground."""

SIDE = 64
MOST = 4
"""Shapes in a picture."""

RADII = (5.0, 13.0)
MEAN, STD = 0.45, 0.25


@dataclass(frozen=True, eq=False, repr=False)
class Scenes:
    """Batches of pictures with what is in them, in an order drawn from torch's global random numbers.

    Attributes:
        pictures: uint8 (N, 3, SIDE, SIDE).
        maps: The class of each pixel, uint8 (N, SIDE, SIDE).
        boxes: Of each picture (n, 4), by corners.
        labels: Of each picture (n,), from 1.
        contract: "detection" or "segmentation".
        train: Whether the order is drawn anew in each pass, and half of the pictures are mirrored.
        batch_size: Pictures in a batch.
    """

    pictures: Tensor
    maps: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    contract: Literal["detection", "segmentation"]
    train: bool = False
    batch_size: int = 32

    def __len__(self) -> int:
        """The number of batches; the last one may be small."""
        return -(-len(self.pictures) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """One pass over all pictures."""
        count = len(self.pictures)
        order = torch.randperm(count) if self.train else torch.arange(count)
        mirrored = torch.rand(count) < 0.5 if self.train else torch.zeros(count, dtype=torch.bool)
        for chosen in order.split(self.batch_size):
            turned = mirrored[chosen]
            pictures = (self.pictures[chosen].float() / 255 - MEAN) / STD
            pictures[turned] = pictures[turned].flip(-1)
            if self.contract == "segmentation":
                maps = self.maps[chosen].long()
                maps[turned] = maps[turned].flip(-1)
                yield pictures, maps
            else:
                yield tuple(pictures), tuple(map(self._target, chosen.tolist(), turned.tolist()))

    def _target(self, index: int, mirrored: bool) -> dict[str, Tensor]:
        boxes = self.boxes[index]
        if mirrored:
            boxes = torch.stack([SIDE - boxes[:, 2], boxes[:, 1], SIDE - boxes[:, 0], boxes[:, 3]], 1)
        return {"boxes": boxes, "labels": self.labels[index]}


def scenes(
    folder: Path, count: int, seed: int, contract: Literal["detection", "segmentation"], train: bool = False
) -> Scenes:
    """So many pictures, made of the photographs in a folder.

    Args:
        folder: Pictures in files that Pillow reads, larger than SIDE.
        count: How many are made.
        seed: Of all that is drawn.
        contract: What a batch is.
        train: Whether they are to learn from.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    photographs = [_photograph(path) for path in sorted(folder.iterdir())]

    def crop() -> Tensor:
        photograph = photographs[int(draw(0, len(photographs)))]
        top, left = (int(draw(0, size - SIDE + 1)) for size in photograph.shape[1:])
        return photograph[:, top : top + SIDE, left : left + SIDE].clone()

    made = [_scene(crop, draw) for _ in range(count)]
    return Scenes(
        torch.stack([picture for picture, _, _, _ in made]),
        torch.stack([classes for _, classes, _, _ in made]),
        [boxes for _, _, boxes, _ in made],
        [labels for _, _, _, labels in made],
        contract,
        train,
    )


def _photograph(path: Path) -> Tensor:
    with opened(path, "shapes") as photograph:
        return pixels(photograph, "RGB")


def _scene(crop: Callable[[], Tensor], draw: Callable[[float, float], float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A picture, the classes of its pixels, its boxes and their labels."""
    picture, classes = crop(), torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    boxes: list[list[int]] = []
    labels: list[int] = []
    for _ in range(int(draw(1, MOST + 1))):
        radius, turn, kind = draw(*RADII), draw(0, 2 * math.pi), int(draw(0, len(KINDS)))
        inside = _shape(draw(radius, SIDE - radius), draw(radius, SIDE - radius), radius, turn, KINDS[kind])
        rows, columns = (inside.any(dim).nonzero().flatten() for dim in (1, 0))
        if not len(rows) or (inside & (classes > 0)).any():
            continue  # it would lie on another
        picture = torch.where(inside, crop(), picture)
        classes[inside] = kind + 1
        boxes.append([int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1])
        labels.append(kind + 1)
    return picture, classes, torch.tensor(boxes).float().reshape(-1, 4), torch.tensor(labels).long()


def _shape(x: float, y: float, radius: float, turn: float, corners: int) -> Tensor:
    """Which pixels are inside a disc, or a polygon whose corners lie on it."""
    down, right = torch.meshgrid(torch.arange(SIDE) + 0.5 - y, torch.arange(SIDE) + 0.5 - x, indexing="ij")
    if not corners:
        return down.square() + right.square() <= radius**2
    angles = turn + 2 * math.pi * torch.arange(corners) / corners
    nearest = radius * math.cos(math.pi / corners)
    return (right[..., None] * angles.cos() + down[..., None] * angles.sin() <= nearest).all(-1)
