"""A small detector by torchvision's contract: losses in training mode, boxes in evaluation mode.

As Zhou et al. 2019 (https://arxiv.org/abs/1904.07850): a map of centres for each class, and in each cell how far the
sides of the box are. Their losses of the map; of the boxes 1 - IoU, as is usual since.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Finder"]

STRIDE = 4
"""Pixels of a cell."""

FOUND = 12
"""Boxes given for a picture."""

NEAR = 2.0
"""Squared distance from the centre up to which a cell learns the sides, in cells."""


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """The same size."""
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


def convolved(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution with norm and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Finder(nn.Module):
    """Two levels of features, the coarse one laid on the fine one, and two heads on their sum."""

    def __init__(self, classes: int, width: int = 16) -> None:
        """Labels are from 1 to `classes`; `width` is the number of channels at half the size."""
        super().__init__()
        self.fine = nn.Sequential(convolved(3, width, 2), convolved(width, 2 * width, 2), Block(2 * width))
        self.coarse = nn.Sequential(convolved(2 * width, 4 * width, 2), Block(4 * width), Block(4 * width))
        self.across = nn.Conv2d(4 * width, 2 * width, 1)
        self.mix = convolved(2 * width, 2 * width)
        self.heat = nn.Sequential(convolved(2 * width, 2 * width), nn.Conv2d(2 * width, classes, 1))
        self.sides = nn.Sequential(convolved(2 * width, 2 * width), nn.Conv2d(2 * width, 4, 1))
        nn.init.constant_(self.heat[1].bias, -3.0)  # few cells hold a centre

    def forward(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        """Of pictures (3, h, w) of one size: losses of them and their targets, or what is found in each."""
        if self.training and targets is None:
            raise ValueError("Finder: expected targets in training mode, got none")
        fine = self.fine(torch.stack(list(images)))
        coarse = F.interpolate(self.across(self.coarse(fine)), scale_factor=2.0, mode="nearest")
        seen = self.mix(fine + coarse)
        heat, sides = self.heat(seen).float(), F.softplus(self.sides(seen).float())
        return losses(heat, sides, targets or ()) if self.training else found(heat.sigmoid(), STRIDE * sides)


def found(heat: Tensor, sides: Tensor) -> list[dict[str, Tensor]]:
    """The boxes around the highest peaks of each picture, with scores and labels.

    Args:
        heat: How likely the centre of a thing of each class is in each cell, (N, classes, h, w).
        sides: How far the left, upper, right and lower side of its box are, in pixels, (N, 4, h, w).
    """
    count, _, rows, columns = heat.shape
    peaks = torch.where(heat == F.max_pool2d(heat, 3, 1, 1), heat, 0.0)
    scores, places = peaks.flatten(1).topk(FOUND)
    cells = places % (rows * columns)
    x, y = (STRIDE * (each + 0.5) for each in (cells % columns, cells // columns))
    left, up, right, down = sides.flatten(2).gather(2, cells[:, None].expand(count, 4, FOUND)).unbind(1)
    boxes = torch.stack([x - left, y - up, x + right, y + down], 2)
    labels = places // (rows * columns) + 1
    return [{"boxes": boxes[i], "scores": scores[i], "labels": labels[i]} for i in range(count)]


def losses(heat: Tensor, sides: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What is learned from.

    Args:
        heat: Logits of the map of centres, (N, classes, h, w).
        sides: As `found`, in cells.
        targets: Of each picture its boxes (n, 4), by corners in pixels, and labels (n,).
    """
    (count, classes, rows, columns), device = heat.shape, heat.device
    boxes = torch.cat([target["boxes"] for target in targets]).to(device) / STRIDE
    labels = torch.cat([target["labels"] for target in targets]).to(device) - 1
    many = torch.tensor([len(target["labels"]) for target in targets], device=device)
    owner = torch.arange(count, device=device).repeat_interleave(many)
    x, y = torch.arange(columns, device=device) + 0.5, (torch.arange(rows, device=device) + 0.5)[:, None]
    left, up, right, down = (side[:, None, None] for side in boxes.unbind(1))
    away = (x - (left + right) / 2).square() + (y - (up + down) / 2).square()

    spread = torch.minimum(right - left, down - up) / 6
    centre = away == away.amin((1, 2), keepdim=True)
    bumps = torch.where(centre, 1.0, torch.exp(-away / (2 * spread.square())))
    place = (owner * classes + labels)[:, None].expand(-1, rows * columns)
    true = torch.zeros(count * classes, rows * columns, device=device)
    true = true.scatter_reduce(0, place, bumps.flatten(1), "amax").view_as(heat)
    hit = -F.logsigmoid(heat) * (1 - heat.sigmoid()).square()
    miss = -F.logsigmoid(-heat) * heat.sigmoid().square() * (1 - true) ** 4
    focal = torch.where(true == 1, hit, miss).sum() / len(boxes)

    wanted = torch.stack(torch.broadcast_tensors(x - left, y - up, right - x, down - y), 1).clamp(min=0.1)
    near = away < NEAR
    overlap = _overlap(sides[owner].movedim(1, -1)[near], wanted.movedim(1, -1)[near])
    return {"heat": focal, "sides": (1 - overlap).mean()}


def _overlap(one: Tensor, other: Tensor) -> Tensor:
    """The intersection over the union of boxes around the same point, given by how far their sides are, (n, 4)."""

    def area(sides: Tensor) -> Tensor:
        return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])

    both = area(torch.minimum(one, other))
    return both / (area(one) + area(other) - both)
