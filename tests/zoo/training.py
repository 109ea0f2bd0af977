"""Networks whose training forward runs other operators: heads of its own, noise, statistics of the batch."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.entry import Entry, floats, pictures


class Auxiliary(nn.Module):
    """A second classifier, with a hidden layer, on the trunk; read in training alone (deep supervision)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.body = nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.Conv2d(12, 10, 3)
        self.head = nn.Linear(10, 5)
        self.aux = nn.Sequential(nn.Conv2d(12, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))

    def forward(self, x: Tensor) -> Any:
        u = self.norm(self.stem(x)).relu()
        y = self.head(self.body(u).relu().mean((2, 3)))
        return (y, self.aux(u)) if self.training else y


class Deep(nn.Module):
    """A dictionary of losses' inputs: one head for each of three stages in training, the last alone in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Linear(6, 14), nn.Linear(14, 11), nn.Linear(11, 9)])
        self.heads = nn.ModuleList([nn.Linear(width, 3) for width in (14, 11, 9)])
        self.drop = nn.Dropout(0.4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = {}
        for place, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True)):
            x = self.drop(stage(x).relu())
            if self.training or place == 2:
                found[f"stage {place}"] = head(x)
        return found


class Noisy(nn.Module):
    """Residual branches that are left out at random, and dropout that is asked for by hand (stochastic depth)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 12), nn.Linear(12, 3)
        self.branches = nn.ModuleList(nn.Sequential(nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 12)) for _ in range(2))
        self.heads, self.qkv, self.out = 2, nn.Linear(12, 36), nn.Linear(12, 12)

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.2 if self.training else 0.0)
        return self.out(y.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.attend(x)
        for branch in self.branches:
            y = branch(x)
            if self.training:
                y = y * (torch.rand(len(y), 1, 1, dtype=y.dtype) + 0.8).floor() / 0.8
            x = x + y
        return self.head(F.dropout(x.mean(1), 0.3, self.training))


class Frozen(nn.Module):
    """Batch norms: one as usual, one that `train` leaves in evaluation mode, one without running averages."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10)
        self.second, self.frozen = nn.Conv2d(10, 8, 3), nn.BatchNorm2d(8)
        self.bare, self.head = nn.BatchNorm2d(8, track_running_stats=False), nn.Linear(8, 4)

    def train(self, mode: bool = True) -> "Frozen":
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        y = self.frozen(self.second(self.norm(self.first(x)).relu()))
        return self.head(self.bare(y).relu().mean((2, 3)))


_FAMILY = "other operators in training"
ENTRIES = [
    Entry("auxiliary_head", _FAMILY, Auxiliary, pictures(), (12, 10, 8), {5: "output", 4: "output"}),
    Entry("deep_supervision", _FAMILY, Deep, floats((2, 6)), (14, 11, 9), {3: "output"}),
    Entry("stochastic_depth", _FAMILY, Noisy, floats((2, 5, 6)), (12, 8, 8, 2), {3: "output"}),
    Entry("frozen_norm", _FAMILY, Frozen, pictures(), (10, 8), {4: "output"}, cnn=True),
]
