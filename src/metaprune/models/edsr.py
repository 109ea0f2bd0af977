"""EDSR (Lim et al. 2017, https://arxiv.org/abs/1707.02921, section 3): super-resolution without norms.

Its defaults, 8 blocks of 128 channels with residuals that are not scaled, are those of the DHP paper (Li et al. 2020,
https://arxiv.org/abs/2003.13683). Lim's baseline is `EDSR(blocks=16, width=64)`, and the large one is
`EDSR(blocks=32, width=256, res_scale=0.1)`. All convolutions have biases. They start as `nn.Conv2d` does, uniform
within ±1/√fan-in, weights and biases alike.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metaprune.models.upsampling import upsampler

__all__ = ["EDSR"]

MEAN = (0.4488, 0.4371, 0.4040)  # red, green and blue of the training pictures of DIV2K, in [0, 1]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a ReLU between them, scaled, and the input."""

    def __init__(self, width: int, scale: float) -> None:
        """Keep `width` channels."""
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.act = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.scale = scale

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c h w"]:
        """x + scale F(x)."""
        y: Tensor = self.conv2(self.act(self.conv1(x)))
        return x + self.scale * y


class EDSR(nn.Module):
    """Enlarges pictures of any size, with values from 0 to 1."""

    mean: Tensor

    def __init__(
        self, scale: int = 4, channels: int = 3, blocks: int = 8, width: int = 128, res_scale: float = 1.0
    ) -> None:
        """Build it with fresh weights from torch's global random numbers.

        Args:
            scale: how many times larger the picture becomes: 2, 3, 4 or 8.
            channels: channels of the pictures. From each, the mean of its colour is taken away, and added in the end;
                the mean of all where there are not three.
            blocks: number of residual blocks.
            width: number of channels inside.
            res_scale: what residuals are multiplied by; 0.1 keeps wide networks stable.

        Raises:
            ValueError: there is no such scale, or a number below 1.
        """
        super().__init__()
        if min(channels, blocks, width) < 1:
            raise ValueError(
                f"EDSR: expected 1 or more channels, blocks and width, got {channels}, {blocks} and {width}"
            )
        mean = torch.tensor(MEAN if channels == 3 else [sum(MEAN) / 3] * channels)
        self.register_buffer("mean", mean.reshape(channels, 1, 1))
        self.head = nn.Conv2d(channels, width, 3, padding=1)
        self.body = nn.Sequential(
            *(ResidualBlock(width, res_scale) for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1)
        )
        self.up = upsampler("EDSR", width, scale)
        self.tail = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c h2 w2"]:
        """The enlarged pictures."""
        x = self.head(x - self.mean)
        picture: Tensor = self.tail(self.up(x + self.body(x)))
        return picture + self.mean
