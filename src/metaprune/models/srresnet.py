"""SRResNet (Ledig et al. 2017, https://arxiv.org/abs/1609.04802, figure 4): super-resolution with norms.

The last convolution is 3x3, as in the network that the DHP paper (Li et al. 2020, https://arxiv.org/abs/2003.13683)
counts and prunes; Ledig's is 9x9. All convolutions have biases. They start as `nn.Conv2d` does, uniform within
±1/√fan-in, weights and biases alike.
"""

from jaxtyping import Float
from torch import Tensor, nn

from metaprune.models.upsampling import upsampler

__all__ = ["SRResNet"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with norms, a PReLU of one slope between them, and the input."""

    def __init__(self, width: int) -> None:
        """Keep `width` channels."""
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.act = nn.PReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c h w"]:
        """x + F(x)."""
        y: Tensor = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return x + y


class SRResNet(nn.Module):
    """Enlarges pictures of any size."""

    def __init__(self, scale: int = 4, channels: int = 3, blocks: int = 16, width: int = 64) -> None:
        """Build it with fresh weights from torch's global random numbers.

        Args:
            scale: how many times larger the picture becomes: 2, 3, 4 or 8.
            channels: channels of the pictures.
            blocks: number of residual blocks.
            width: number of channels inside.

        Raises:
            ValueError: there is no such scale, or a number below 1.
        """
        super().__init__()
        if min(channels, blocks, width) < 1:
            raise ValueError(
                f"SRResNet: expected 1 or more channels, blocks and width, got {channels}, {blocks} and {width}"
            )
        self.head = nn.Sequential(nn.Conv2d(channels, width, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(
            *(ResidualBlock(width) for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        )
        self.up = upsampler("SRResNet", width, scale, nn.PReLU)
        self.tail = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c h2 w2"]:
        """The enlarged pictures."""
        x = self.head(x)
        picture: Tensor = self.tail(self.up(x + self.body(x)))
        return picture
