"""DnCNN (Zhang et al. 2017, https://arxiv.org/abs/1608.03981, section III): denoising by what has to be taken away.

A first convolution with a ReLU, a body of convolutions with norms and ReLUs, and a last convolution, all 3x3 with
biases. The whole predicts the noise, with a minus: its output is added to the picture.
"""

from jaxtyping import Float
from torch import Tensor, nn

from metaprune.models.initialisation import he_normal

__all__ = ["DnCNN"]


class DnCNN(nn.Module):
    """Cleans pictures of any size."""

    def __init__(self, channels: int = 1, blocks: int = 15, width: int = 64) -> None:
        """Build it with He's initialisation from torch's global random numbers.

        Args:
            channels: channels of the pictures.
            blocks: number of layers between the first and the last.
            width: number of channels inside.

        Raises:
            ValueError: a number is below 1.
        """
        super().__init__()
        if min(channels, blocks, width) < 1:
            raise ValueError(
                f"DnCNN: expected 1 or more channels, blocks and width, got {channels}, {blocks} and {width}"
            )
        self.head = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
        self.body = nn.Sequential(*(self._layer(width) for _ in range(blocks)))
        self.tail = nn.Conv2d(width, channels, 3, padding=1)
        he_normal(self)

    @staticmethod
    def _layer(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c h w"]:
        """The clean pictures."""
        noise: Tensor = self.tail(self.body(self.head(x)))
        return x + noise
