"""DenseNets for small images (Huang et al. 2017, https://arxiv.org/abs/1608.06993, section 3).

Three dense blocks of n layers: depth 3n + 4. A layer is norm, ReLU and a 3x3 convolution with `growth` outputs, which
are appended to the layer's inputs. Between blocks, a transition keeps the channels and halves the picture. This is the
paper's plain DenseNet: no bottleneck layers, no compression. DenseNet-12-40, of growth 12 and depth 40, has 1.02 M
parameters and 265 M MACs, because it starts with 16 channels, as the paper says. The network of 283 M MACs in papers on
pruning, such as GAL (Lin et al. 2019, https://arxiv.org/abs/1903.09291), starts with 24: `densenet40(start=24)`.
"""

from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metaprune.models.initialisation import he_normal

__all__ = ["DenseNet", "densenet40"]


class DenseLayer(nn.Module):
    """Norm, ReLU and a 3x3 convolution, whose outputs join the inputs."""

    def __init__(self, inputs: int, growth: int) -> None:
        """Append `growth` channels to those that come in."""
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c2 h w"]:
        """The inputs, then what is new."""
        return torch.cat((x, self.conv(F.relu(self.bn(x)))), 1)


class Transition(nn.Module):
    """Norm, ReLU, a 1x1 convolution and the mean of each 2x2 pixels."""

    def __init__(self, width: int) -> None:
        """Keep `width` channels."""
        super().__init__()
        self.bn = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c2 h2 w2"]:
        """Half the size; an odd row or column at the end is dropped."""
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class DenseNet(nn.Module):
    """The network of one depth, for images of 4x4 pixels and more."""

    def __init__(self, depth: int, classes: int = 10, channels: int = 3, growth: int = 12, start: int = 16) -> None:
        """Build it with He's initialisation from torch's global random numbers.

        Args:
            depth: number of weighted layers on the longest path: 7, 10, 13, … (3n + 4).
            classes: number of logits.
            channels: channels of the images.
            growth: channels that each dense layer adds.
            start: channels of the first convolution.

        Raises:
            ValueError: the depth is not 3n + 4, or there is no growth or start.
        """
        super().__init__()
        if depth < 7 or depth % 3 != 1:
            raise ValueError(f"DenseNet: expected a depth of 3n + 4 (7, 10, 13, …), got {depth}")
        if growth < 1 or start < 1:
            raise ValueError(f"DenseNet: expected a growth and a start of 1 or more, got {growth} and {start}")
        layers = (depth - 4) // 3
        second, third, last = (start + block * layers * growth for block in (1, 2, 3))
        self.conv = nn.Conv2d(channels, start, 3, padding=1, bias=False)
        self.block1 = self._block(layers, start, growth)
        self.transition1 = Transition(second)
        self.block2 = self._block(layers, second, growth)
        self.transition2 = Transition(third)
        self.block3 = self._block(layers, third, growth)
        self.bn = nn.BatchNorm2d(last)
        self.fc = nn.Linear(last, classes)
        he_normal(self)

    @staticmethod
    def _block(layers: int, inputs: int, growth: int) -> nn.Sequential:
        return nn.Sequential(*(DenseLayer(inputs + layer * growth, growth) for layer in range(layers)))

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n classes"]:
        """Logits of images."""
        x = self.transition1(self.block1(self.conv(x)))
        x = self.transition2(self.block2(x))
        x = F.relu(self.bn(self.block3(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


densenet40 = partial(DenseNet, 40)
