"""Generators and discriminators that translate pictures (pix2pix, CycleGAN).

Isola et al. 2017, https://arxiv.org/abs/1611.07004: a U-Net whose levels halve the picture down to one pixel, and a
discriminator that judges patches of 70 pixels (C64-C128-C256-C512). Zhu et al. 2017, https://arxiv.org/abs/1703.10593:
a residual generator (c7s1-64, d128, d256, R256 times 9 or 6, u128, u64, c7s1-3). Weights are drawn from N(0, 0.02).

Departures: pictures are in [0, 1] outside and in [-1, 1] inside; norms are instance norms without affine parameters in
all three by default, which batches of one need, and batch norms where generators are asked for them; the U-Net's
dropout, the noise of pix2pix, is an argument, and is off by default. Where a norm follows, convolutions have no bias.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["BothWays", "PatchDiscriminator", "ResidualGenerator", "UGenerator", "cyclegan"]

Picture = Float[Tensor, " n c h w"]
Made = Float[Tensor, " n c2 h w"]
Norm = Literal["instance", "batch"]
NORMS: dict[Norm, Callable[[int], nn.Module]] = {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d}


def drawn(module: nn.Module) -> None:
    """Weights of convolutions from N(0, 0.02), biases at 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class UGenerator(nn.Module):
    """Translates pictures whose sides are multiples of 2^depth: `depth` halvings, and as many doublings across them."""

    def __init__(
        self,
        inputs: int = 3,
        outputs: int = 3,
        *,
        width: int = 64,
        depth: int = 8,
        dropout: float = 0.0,
        norm: Norm = "instance",
    ) -> None:
        """Build it with fresh weights from torch's global random numbers.

        Args:
            inputs: channels of the given pictures.
            outputs: channels of those that are made.
            width: channels of the first level; they double three times.
            depth: levels: 8 for 256x256.
            dropout: probability, in up to three levels from the second deepest up.
            norm: "instance", or "batch", which keeps how bright and how rich in contrast a picture is.

        Raises:
            ValueError: a number is below 1, or fewer than two levels.
        """
        super().__init__()
        if min(inputs, outputs, width) < 1 or depth < 2:
            raise ValueError(f"UGenerator: expected channels and width from 1 and depth from 2, got depth {depth}")
        widths = [width * min(2**level, 8) for level in range(depth)]
        last = depth - 1
        self.down = nn.ModuleList(
            nn.Conv2d(before, after, 4, 2, 1, bias=level in (0, last))
            for level, (before, after) in enumerate(zip([inputs, *widths], widths, strict=False))
        )
        self.down_norms = nn.ModuleList(NORMS[norm](after) for after in widths[1:-1])
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[level] * (1 if level == last else 2), widths[level - 1], 4, 2, 1, bias=False)
            for level in range(last, 0, -1)
        )
        self.up_norms = nn.ModuleList(NORMS[norm](widths[level - 1]) for level in range(last, 0, -1))
        self.dropout = nn.Dropout(dropout)
        self.noisy = range(1, min(4, last))
        self.tail = nn.ConvTranspose2d(2 * width, outputs, 4, 2, 1)
        drawn(self)

    def forward(self, x: Picture) -> Made:
        """Pictures in [0, 1] to the same."""
        across: list[Tensor] = []
        x = 2 * x - 1
        for level, down in enumerate(self.down):
            x = down(F.leaky_relu(x, 0.2) if level else x)
            if 0 < level < len(self.down) - 1:
                x = self.down_norms[level - 1](x)
            across.append(x)
        x = across.pop()
        for place, (up, norm) in enumerate(zip(self.up, self.up_norms, strict=True)):
            x = norm(up(F.relu(x)))
            if place in self.noisy:
                x = self.dropout(x)
            x = torch.cat([across.pop(), x], 1)
        return (torch.tanh(self.tail(F.relu(x))) + 1) / 2


class Residual(nn.Module):
    """Two mirrored 3x3 convolutions with norms, and the input."""

    def __init__(self, width: int, norm: Norm = "instance") -> None:
        """Keep `width` channels."""
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect", bias=False)
        self.norm1 = NORMS[norm](width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect", bias=False)
        self.norm2 = NORMS[norm](width)

    def forward(self, x: Picture) -> Picture:
        """x + F(x)."""
        y: Tensor = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return x + y


class ResidualGenerator(nn.Module):
    """Translates pictures whose sides are multiples of 4."""

    def __init__(
        self, inputs: int = 3, outputs: int = 3, *, width: int = 64, blocks: int = 9, norm: Norm = "instance"
    ) -> None:
        """Build it with fresh weights from torch's global random numbers.

        Args:
            inputs: channels of the given pictures.
            outputs: channels of those that are made.
            width: channels of the first convolution; they double twice.
            blocks: residual blocks.
            norm: "instance", or "batch", which keeps how bright and how rich in contrast a picture is.

        Raises:
            ValueError: a number is below 1.
        """
        super().__init__()
        if min(inputs, outputs, width, blocks) < 1:
            raise ValueError(f"ResidualGenerator: expected 1 or more of each, got {(inputs, outputs, width, blocks)}")
        self.head = nn.Conv2d(inputs, width, 7, padding=3, padding_mode="reflect", bias=False)
        self.head_norm = NORMS[norm](width)
        self.down1 = nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False)
        self.down1_norm = NORMS[norm](2 * width)
        self.down2 = nn.Conv2d(2 * width, 4 * width, 3, 2, 1, bias=False)
        self.down2_norm = NORMS[norm](4 * width)
        self.body = nn.Sequential(*(Residual(4 * width, norm) for _ in range(blocks)))
        self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, output_padding=1, bias=False)
        self.up1_norm = NORMS[norm](2 * width)
        self.up2 = nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1, bias=False)
        self.up2_norm = NORMS[norm](width)
        self.tail = nn.Conv2d(width, outputs, 7, padding=3, padding_mode="reflect")
        drawn(self)

    def forward(self, x: Picture) -> Made:
        """Pictures in [0, 1] to the same."""
        x = F.relu(self.head_norm(self.head(2 * x - 1)))
        x = F.relu(self.down1_norm(self.down1(x)))
        x = F.relu(self.down2_norm(self.down2(x)))
        x = self.body(x)
        x = F.relu(self.up1_norm(self.up1(x)))
        x = F.relu(self.up2_norm(self.up2(x)))
        return (torch.tanh(self.tail(x)) + 1) / 2


class PatchDiscriminator(nn.Module):
    """One logit for each patch of a picture, or of a pair of pictures whose channels are joined."""

    def __init__(self, channels: int = 3, *, width: int = 64, layers: int = 3) -> None:
        """Build it with fresh weights from torch's global random numbers.

        Args:
            channels: of what is judged: those of both pictures where pairs are.
            width: channels of the first convolution; they double up to eightfold.
            layers: convolutions of stride 2: with 3, patches are 70 pixels wide.

        Raises:
            ValueError: a number is below 1.
        """
        super().__init__()
        if min(channels, width, layers) < 1:
            raise ValueError(f"PatchDiscriminator: expected 1 or more of each, got {(channels, width, layers)}")
        widths = [width * min(2**level, 8) for level in range(layers + 1)]
        parts: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for level in range(1, layers + 1):
            stride = 2 if level < layers else 1
            parts += [
                nn.Conv2d(widths[level - 1], widths[level], 4, stride, 1, bias=False),
                nn.InstanceNorm2d(widths[level]),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*parts, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        drawn(self)

    def forward(self, x: Picture) -> Float[Tensor, " n 1 h2 w2"]:
        """Pictures in [0, 1] to logits (n, 1, h', w')."""
        logits: Tensor = self.layers(2 * x - 1)
        return logits


class BothWays(nn.Module):
    """Two generators as one network, pruned together under one budget: a picture of each kind to the other."""

    def __init__(self, forth: nn.Module, back: nn.Module) -> None:
        """Take over a generator from the first kind to the second, and one back."""
        super().__init__()
        self.forth = forth
        self.back = back

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """(a of the second kind, b of the first)."""
        return self.forth(a), self.back(b)


def cyclegan(inputs: int = 3, outputs: int = 3, *, width: int = 64, blocks: int = 9) -> BothWays:
    """Two residual generators, one for each way, with fresh weights."""
    ends = ((inputs, outputs), (outputs, inputs))
    return BothWays(*(ResidualGenerator(*end, width=width, blocks=blocks) for end in ends))
