"""MNASNet (Tan et al. 2019, https://arxiv.org/abs/1807.11626): the B1 network, without squeeze and excitation.

It is the one that deep-learning libraries call MNASNet 1.0: 4.4 M parameters for 1000 classes. The paper's strides, 32
in all, are for images of 224x224 pixels, and do for 64x64; for 32x32 the first layer has none.
"""

from jaxtyping import Float
from torch import Tensor, nn

from metaprune.models.initialisation import he_normal
from metaprune.models.mobilenet import InvertedResidual, Pixels, conv_norm, first_stride, multiple_of_8

__all__ = ["MNASNet"]

STAGES = (  # kernel, expansion, outputs, blocks, stride of the first
    (3, 3, 24, 3, 2),
    (5, 3, 40, 3, 2),
    (5, 6, 80, 3, 2),
    (3, 6, 96, 2, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)


class MNASNet(nn.Module):
    """Inverted residuals of six widths and two kernel sizes."""

    def __init__(self, classes: int = 10, channels: int = 3, width: float = 1.0, pixels: Pixels = 64) -> None:
        """Build it with He's initialisation from torch's global random numbers.

        Args:
            classes: number of logits.
            channels: channels of the images.
            width: what the number of channels of each layer but the last is multiplied by, and rounded to a multiple
                of 8.
            pixels: the images that the strides are for, 32, 64 or 224 pixels wide.

        Raises:
            ValueError: the width is not positive, or there are no strides for such images.
        """
        super().__init__()
        stride = first_stride("MNASNet", width, pixels)
        start, inputs = multiple_of_8(32 * width), multiple_of_8(16 * width)
        layers: list[nn.Module] = [
            conv_norm(channels, start, 3, stride=stride),
            conv_norm(start, start, 3, groups=start),
            conv_norm(start, inputs, 1, activation=None),
        ]
        for kernel, expansion, size, blocks, first in STAGES:
            outputs = multiple_of_8(size * width)
            for block in range(blocks):
                stride = first if block == 0 else 1
                layers.append(InvertedResidual(inputs, expansion * inputs, outputs, kernel=kernel, stride=stride))
                inputs = outputs
        layers.append(conv_norm(inputs, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1280, classes)
        he_normal(self)

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n classes"]:
        """Logits of images."""
        logits: Tensor = self.fc(self.dropout(self.features(x).mean((2, 3))))
        return logits
