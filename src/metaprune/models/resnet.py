"""ResNets for small images (He et al. 2016, https://arxiv.org/abs/1512.03385, section 4.2).

Three stages of 16, 32 and 64 channels, each of n basic blocks: depth 6n + 2. Where a stage begins, the
shortcut is either `"projection"` (option B, a 1x1 convolution and its norm; the default) or `"pad"` (option
A, every second pixel, and channels of zeros, without parameters).
"""

from functools import partial
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["ResNet", "resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"]

Shortcut = Literal["projection", "pad"]


class PadShortcut(nn.Module):
    """Every second pixel, between channels of zeros."""

    def __init__(self, more: int) -> None:
        """Add `more` channels; the spare one of an odd number comes last."""
        super().__init__()
        self.before, self.after = more // 2, more - more // 2

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n more h2 w2"]:
        """Subsample and pad."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        """Use a `shortcut` only where the shape changes."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = (
                PadShortcut(outputs - inputs)
                if shortcut == "pad"
                else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
            )

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c2 h2 w2"]:
        """relu(F(x) + shortcut(x))."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """The network of one depth, for images of 4x4 pixels and more."""

    def __init__(self, depth: int, classes: int = 10, channels: int = 3, shortcut: Shortcut = "projection") -> None:
        """Build it with He's initialisation from torch's global random numbers.

        Args:
            depth: number of weighted layers on the longest path: 8, 14, 20, … (6n + 2).
            classes: number of logits.
            channels: channels of the images.
            shortcut: what a block does whose input has another shape than its output.

        Raises:
            ValueError: the depth is not 6n + 2, or the shortcut is unknown.
        """
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"ResNet: expected a depth of 6n + 2 (8, 14, 20, …), got {depth}")
        if shortcut not in ("projection", "pad"):
            raise ValueError(f"ResNet: expected shortcut 'projection' or 'pad', got {shortcut!r}")
        blocks = depth // 6
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.stage1 = self._stage(blocks, 16, 16, 1, shortcut)
        self.stage2 = self._stage(blocks, 16, 32, 2, shortcut)
        self.stage3 = self._stage(blocks, 32, 64, 2, shortcut)
        self.fc = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(blocks: int, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, stride, shortcut)
        return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, shortcut) for _ in range(blocks - 1)))

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n classes"]:
        """Logits of images."""
        x = F.relu(self.bn(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


resnet8 = partial(ResNet, 8)
resnet20 = partial(ResNet, 20)
resnet32 = partial(ResNet, 32)
resnet44 = partial(ResNet, 44)
resnet56 = partial(ResNet, 56)
resnet110 = partial(ResNet, 110)
