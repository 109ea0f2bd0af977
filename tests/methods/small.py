"""A small network and a task that it learns in a second: which of three pictures is under the noise."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import metaprune as mp
from metaprune.train import Recipe, Task

EXAMPLE = (torch.zeros(2, 1, 8, 8),)


class Small(nn.Module):
    """A stem, a residual block and a depthwise layer: axes of 16, 12 and 24 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.inner = nn.Sequential(nn.Conv2d(16, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.back = nn.Conv2d(12, 16, 3, padding=1)
        self.wide = nn.Sequential(nn.Conv2d(16, 24, 1), nn.BatchNorm2d(24), nn.Conv2d(24, 24, 3, groups=24), nn.ReLU())
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = (x + self.back(self.inner(x))).relu()
        return self.head(self.wide(x).mean((2, 3)))


def pictures(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(7)
    shown = torch.randn(3, 1, 8, 8, generator=generator)
    generator.manual_seed(seed)
    labels = torch.arange(count) % 3
    return TensorDataset(shown[labels] + 0.7 * torch.randn(count, 1, 8, 8, generator=generator), labels)


def task() -> Task:
    return mp.Classification(
        DataLoader(pictures(96, 1), batch_size=8, shuffle=True), DataLoader(pictures(48, 2), batch_size=24)
    )


def recipe(epochs: int = 4, **fields: object) -> Recipe:
    return Recipe(epochs=epochs, lr=0.05, precision="32-true", device="cpu", **fields)  # type: ignore[arg-type]


def network() -> Small:
    """Trained for three epochs, the same each time, and a copy of its own."""
    torch.manual_seed(0)
    return copy.deepcopy(_trained(Small()))


def _trained(model: Small) -> Small:
    if not _KNOWN:
        mp.fit(model, task(), recipe(3), progress=False)
        _KNOWN.append(model)
    return _KNOWN[0]


_KNOWN: list[Small] = []
