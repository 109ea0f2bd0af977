"""Vision transformers for small images (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929).

Pre-norm blocks over patches; the mean of all patches is classified instead of a class token (Beyer et al. 2022,
https://arxiv.org/abs/2205.01580).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["VisionTransformer"]


class Attention(nn.Module):
    """Multi-head attention of all patches to all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, " n t c"]) -> Float[Tensor, " n t c"]:
        """Attend."""
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention, then a perceptron, each around a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Float[Tensor, " n t c"]) -> Float[Tensor, " n t c"]:
        """Two residual steps."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """The network, for square images of one size."""

    def __init__(
        self,
        classes: int = 10,
        channels: int = 3,
        *,
        pixels: int = 32,
        patch: int = 4,
        width: int = 96,
        depth: int = 6,
        heads: int = 4,
        hidden: int = 192,
    ) -> None:
        """Build it with truncated normal weights (standard deviation 0.02) from torch's global random numbers.

        Args:
            classes: number of logits.
            channels: channels of the images.
            pixels: height and width of the images.
            patch: height and width of a patch.
            width: channels of the trunk.
            depth: number of blocks.
            heads: heads of each attention; they share the width.
            hidden: channels inside the perceptrons.

        Raises:
            ValueError: patches do not tile the image, or heads do not share the width.
        """
        super().__init__()
        if pixels % patch or width % heads:
            raise ValueError(
                f"VisionTransformer: expected pixels as a multiple of patch and width of heads, got {pixels}, {patch}, "
                f"{width}, {heads}"
            )
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (pixels // patch) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n classes"]:
        """Logits of images."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return logits
