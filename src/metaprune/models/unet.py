"""U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597, section 2), as a denoiser.

On the way down, two 3x3 convolutions with ReLUs at each level, and the largest of each 2x2 pixels between levels, where
channels double. On the way up, a transposed 2x2 convolution that halves the channels, what the way down had at this
level behind its outputs, and two 3x3 convolutions with ReLUs. Convolutions are padded, so that nothing is cropped. The
defaults, five levels with 32 channels at the top, are those of the DHP paper (Li et al. 2020,
https://arxiv.org/abs/2003.13683).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metaprune.models.initialisation import he_normal

__all__ = ["UNet"]


class Level(nn.Module):
    """Two 3x3 convolutions with ReLUs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Give `outputs` channels."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c2 h w"]:
        """The same size."""
        return F.relu(self.conv2(F.relu(self.conv1(x))))


class UpLevel(nn.Module):
    """A transposed convolution, what is passed across, and two 3x3 convolutions."""

    def __init__(self, inputs: int) -> None:
        """Give half of the `inputs` channels."""
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, inputs // 2, 2, stride=2)
        self.level = Level(inputs, inputs // 2)

    def forward(
        self, x: Float[Tensor, " n c h w"], across: Float[Tensor, " n c2 h2 w2"]
    ) -> Float[Tensor, " n c3 h2 w2"]:
        """Twice the size."""
        y: Tensor = self.level(torch.cat((self.up(x), across), 1))
        return y


class UNet(nn.Module):
    """Cleans pictures of any size: their last row and column are repeated up to a multiple of 2^(depth - 1)."""

    def __init__(self, channels: int = 1, depth: int = 5, width: int = 32) -> None:
        """Build it with He's initialisation from torch's global random numbers.

        Args:
            channels: channels of the pictures.
            depth: number of levels.
            width: number of channels at the top level; each level below has twice as many.

        Raises:
            ValueError: a number is below 1.
        """
        super().__init__()
        if min(channels, depth, width) < 1:
            raise ValueError(f"UNet: expected 1 or more channels, depth and width, got {channels}, {depth} and {width}")
        widths = [width * 2**level for level in range(depth)]
        self.down = nn.ModuleList(Level(*pair) for pair in zip([channels, *widths], widths, strict=False))
        self.up = nn.ModuleList(UpLevel(inputs) for inputs in widths[:0:-1])
        self.tail = nn.Conv2d(width, channels, 1)
        he_normal(self)

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c2 h w"]:
        """The clean pictures."""
        height, width = x.shape[-2:]
        multiple = 2 ** len(self.up)
        below, right = (multiple - height % multiple) % multiple, (multiple - width % multiple) % multiple
        if below or right:
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        across = []
        for level, down in enumerate(self.down):
            x = down(x if level == 0 else F.max_pool2d(x, 2))
            across.append(x)
        for up, passed in zip(self.up, reversed(across[:-1]), strict=True):
            x = up(x, passed)
        picture: Tensor = self.tail(x)
        return picture[..., :height, :width]
