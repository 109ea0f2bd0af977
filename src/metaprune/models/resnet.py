"""ResNets for small images (He et al. 2016, https://arxiv.org/abs/1512.03385, section 4.2).

Three stages of 16, 32 and 64 channels, each of n blocks. There are two kinds:

- **basic** blocks, two 3x3 convolutions: depth 6n + 2. `resnet8` to `resnet56` and the usual `resnet110`.
- **bottleneck** blocks, 1x1, 3x3 and 1x1 convolutions, the last four times as wide: depth 9n + 2.
  `resnet110_bottleneck` and `resnet164`. The "ResNet-110" of the DHP paper (Li et al. 2020,
  https://arxiv.org/abs/2003.13683) is the bottleneck one, with 1.15 M parameters where the usual has 1.73 M.

A block whose input has another shape than its output has a shortcut of its own: `"projection"` (option B, a 1x1
convolution and its norm; the default) or `"pad"` (option A, every second pixel, and channels of zeros, without
parameters). Norms and activations follow the convolutions in both kinds of block.
"""

from functools import partial
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = [
    "ResNet",
    "resnet8",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "resnet110_bottleneck",
    "resnet164",
]

Shortcut = Literal["projection", "pad"]
Block = Literal["basic", "bottleneck"]


class PadShortcut(nn.Module):
    """Every so many pixels, between channels of zeros."""

    def __init__(self, more: int, stride: int) -> None:
        """Add `more` channels; the spare one of an odd number comes last."""
        super().__init__()
        self.before, self.after = more // 2, more - more // 2
        self.stride = stride

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n more h2 w2"]:
        """Subsample and pad."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def _shortcut(inputs: int, outputs: int, stride: int, kind: Shortcut) -> nn.Module:
    """What is added to the output of a block: its input, made to fit only where the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if kind == "pad":
        return PadShortcut(outputs - inputs, stride)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Shortcut) -> None:
        """Give `width` channels."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width, stride, shortcut)

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c2 h2 w2"]:
        """relu(F(x) + shortcut(x))."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class BottleneckBlock(nn.Module):
    """A 1x1, a 3x3 (which has the stride) and a 1x1 convolution, and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Shortcut) -> None:
        """Give 4 `width` channels."""
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride, shortcut)

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c2 h2 w2"]:
        """relu(F(x) + shortcut(x))."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """The network of one depth, for images of 4x4 pixels and more."""

    def __init__(
        self,
        depth: int,
        classes: int = 10,
        channels: int = 3,
        shortcut: Shortcut = "projection",
        block: Block = "basic",
    ) -> None:
        """Build it with He's initialisation from torch's global random numbers.

        Args:
            depth: number of weighted layers on the longest path: 8, 14, 20, … (6n + 2) of basic blocks, 11, 20, 29,
                … (9n + 2) of bottleneck blocks.
            classes: number of logits.
            channels: channels of the images.
            shortcut: what a block does whose input has another shape than its output.
            block: the kind of block.

        Raises:
            ValueError: the depth is not of the kind's, or the shortcut or block is unknown.
        """
        super().__init__()
        if shortcut not in ("projection", "pad"):
            raise ValueError(f"ResNet: expected shortcut 'projection' or 'pad', got {shortcut!r}")
        if block not in ("basic", "bottleneck"):
            raise ValueError(f"ResNet: expected block 'basic' or 'bottleneck', got {block!r}")
        if block == "basic" and (depth < 8 or depth % 6 != 2):
            raise ValueError(f"ResNet: expected a depth of 6n + 2 (8, 14, 20, …), got {depth}")
        if block == "bottleneck" and (depth < 11 or depth % 9 != 2):
            raise ValueError(f"ResNet: expected a depth of 9n + 2 (11, 20, 29, …), got {depth}")
        kind = BasicBlock if block == "basic" else BottleneckBlock
        blocks = depth // 6 if block == "basic" else depth // 9
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.stage1 = self._stage(kind, blocks, 16, 16, 1, shortcut)
        self.stage2 = self._stage(kind, blocks, 16 * kind.expansion, 32, 2, shortcut)
        self.stage3 = self._stage(kind, blocks, 32 * kind.expansion, 64, 2, shortcut)
        self.fc = nn.Linear(64 * kind.expansion, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(
        kind: type[BasicBlock | BottleneckBlock], blocks: int, inputs: int, width: int, stride: int, shortcut: Shortcut
    ) -> nn.Sequential:
        first = kind(inputs, width, stride, shortcut)
        return nn.Sequential(first, *(kind(kind.expansion * width, width, 1, shortcut) for _ in range(blocks - 1)))

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
resnet110_bottleneck = partial(ResNet, 110, block="bottleneck")
resnet164 = partial(ResNet, 164, block="bottleneck")
