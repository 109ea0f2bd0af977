"""MobileNets: V1, V2 and V3, large and small, with a width multiplier.

- V1: Howard et al. 2017, https://arxiv.org/abs/1704.04861, table 1.
- V2: Sandler et al. 2018, https://arxiv.org/abs/1801.04381, table 2.
- V3: Howard et al. 2019, https://arxiv.org/abs/1905.02244, tables 1 and 2.

The papers' strides are for images of 224x224 pixels. For smaller ones there are fewer: those with which the DHP paper
(Li et al. 2020, https://arxiv.org/abs/2003.13683) reports V1 and V2 on Tiny-ImageNet, 64x64 pixels, and those of its
code for CIFAR, 32x32:

| `pixels` | V1 | V2 | V3 |
|---|---|---|---|
| 224 | 32 in all | 32 in all | 32 in all |
| 64 | 32, as at 224 | 16: none where 24 channels begin | 16: none in the first layer |
| 32 | 16: none in the first layer | 8: none in either | 16: none in the first layer |

Images may have any size; the strides only suit these. Widths of V1 and V2 are rounded down, as the rows "-0.75" and
"-0.3" of DHP's table 1 have it; those of V3 to a multiple of 8, as its authors do. V1 has ReLUs and V2 has ReLU6,
as in their papers.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from metaprune.models.initialisation import he_normal

__all__ = [
    "InvertedResidual",
    "MobileNetV1",
    "MobileNetV2",
    "MobileNetV3",
    "Pixels",
    "conv_norm",
    "first_stride",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "multiple_of_8",
]

Pixels = Literal[32, 64, 224]
Activation = Callable[[], nn.Module]

V1 = (  # outputs, stride
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)
V2 = (  # expansion, outputs, blocks, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
V3 = {  # kernel, hidden channels, outputs, squeeze and excitation, activation, stride
    "large": (
        (3, 16, 16, False, nn.ReLU, 1),
        (3, 64, 24, False, nn.ReLU, 2),
        (3, 72, 24, False, nn.ReLU, 1),
        (5, 72, 40, True, nn.ReLU, 2),
        (5, 120, 40, True, nn.ReLU, 1),
        (5, 120, 40, True, nn.ReLU, 1),
        (3, 240, 80, False, nn.Hardswish, 2),
        (3, 200, 80, False, nn.Hardswish, 1),
        (3, 184, 80, False, nn.Hardswish, 1),
        (3, 184, 80, False, nn.Hardswish, 1),
        (3, 480, 112, True, nn.Hardswish, 1),
        (3, 672, 112, True, nn.Hardswish, 1),
        (5, 672, 160, True, nn.Hardswish, 2),
        (5, 960, 160, True, nn.Hardswish, 1),
        (5, 960, 160, True, nn.Hardswish, 1),
    ),
    "small": (
        (3, 16, 16, True, nn.ReLU, 2),
        (3, 72, 24, False, nn.ReLU, 2),
        (3, 88, 24, False, nn.ReLU, 1),
        (5, 96, 40, True, nn.Hardswish, 2),
        (5, 240, 40, True, nn.Hardswish, 1),
        (5, 240, 40, True, nn.Hardswish, 1),
        (5, 120, 48, True, nn.Hardswish, 1),
        (5, 144, 48, True, nn.Hardswish, 1),
        (5, 288, 96, True, nn.Hardswish, 2),
        (5, 576, 96, True, nn.Hardswish, 1),
        (5, 576, 96, True, nn.Hardswish, 1),
    ),
}
V3_LAST = {"large": (960, 1280), "small": (576, 1024)}  # before and after the mean


def multiple_of_8(width: float) -> int:
    """The nearest multiple of 8, from 8 up and never less than 90 % of the `width`."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * width else nearest + 8


def first_stride(network: str, width: float, pixels: Pixels) -> int:
    """The stride of the first convolution, once the arguments are known to make sense.

    Args:
        network: who asks.
        width: its width multiplier.
        pixels: the images its strides are for.

    Raises:
        ValueError: the width is not positive, or there are no strides for such images.
    """
    if not width > 0:
        raise ValueError(f"{network}: expected a width above 0, such as 0.75, got {width}")
    if pixels not in (32, 64, 224):
        raise ValueError(
            f"{network}: expected strides for images of 32, 64 or 224 pixels, got {pixels}; images of "
            "other sizes can be used, so name the nearest"
        )
    return 1 if pixels == 32 else 2


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: Activation | None = nn.ReLU,
) -> nn.Sequential:
    """A convolution that keeps the size of the picture but for its stride, its norm, and an activation or none."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([] if activation is None else [activation()]))


class SqueezeExcitation(nn.Module):
    """Each channel times what a small network makes of the means of all (Hu et al. 2018)."""

    def __init__(self, width: int) -> None:
        """Squeeze `width` channels to a quarter, a multiple of 8."""
        super().__init__()
        self.squeeze = nn.Conv2d(width, multiple_of_8(width // 4), 1)
        self.excite = nn.Conv2d(multiple_of_8(width // 4), width, 1)
        self.relu = nn.ReLU()
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c h w"]:
        """The gated input."""
        gates: Tensor = self.gate(self.excite(self.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return gates * x


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter by a depthwise one, project by a 1x1; a residual where shapes allow."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        activation: Activation = nn.ReLU,
        squeeze: bool = False,
    ) -> None:
        """Without the expansion where it would not widen, and without an activation at the end."""
        super().__init__()
        self.expand = conv_norm(inputs, hidden, 1, activation=activation) if hidden != inputs else nn.Identity()
        self.depthwise = conv_norm(hidden, hidden, kernel, stride=stride, groups=hidden, activation=activation)
        self.excitation = SqueezeExcitation(hidden) if squeeze else nn.Identity()
        self.project = conv_norm(hidden, outputs, 1, activation=None)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c2 h2 w2"]:
        """F(x), or x + F(x)."""
        y: Tensor = self.project(self.excitation(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class MobileNetV1(nn.Module):
    """Depthwise and 1x1 convolutions in turn."""

    def __init__(self, classes: int = 10, channels: int = 3, width: float = 1.0, pixels: Pixels = 64) -> None:
        """Build it with He's initialisation from torch's global random numbers.

        Args:
            classes: number of logits.
            channels: channels of the images.
            width: what the number of channels of each layer is multiplied by, and rounded down.
            pixels: the images that the strides are for, 32, 64 or 224 pixels wide.

        Raises:
            ValueError: the width is not positive, or there are no strides for such images.
        """
        super().__init__()
        stride = first_stride("MobileNetV1", width, pixels)
        inputs = max(1, int(32 * width))
        layers = [conv_norm(channels, inputs, 3, stride=stride)]
        for size, stride in V1:
            outputs = max(1, int(size * width))
            layers.append(conv_norm(inputs, inputs, 3, stride=stride, groups=inputs))
            layers.append(conv_norm(inputs, outputs, 1))
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(inputs, classes)
        he_normal(self)

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n classes"]:
        """Logits of images."""
        logits: Tensor = self.fc(self.dropout(self.features(x).mean((2, 3))))
        return logits


class MobileNetV2(nn.Module):
    """Inverted residuals of seven widths."""

    def __init__(self, classes: int = 10, channels: int = 3, width: float = 1.0, pixels: Pixels = 64) -> None:
        """Build it with He's initialisation from torch's global random numbers.

        Args:
            classes: number of logits.
            channels: channels of the images.
            width: what the number of channels of each layer is multiplied by, and rounded down; the last too.
            pixels: the images that the strides are for, 32, 64 or 224 pixels wide.

        Raises:
            ValueError: the width is not positive, or there are no strides for such images.
        """
        super().__init__()
        inputs, last = max(1, int(32 * width)), max(1, int(1280 * width))
        stem = conv_norm(channels, inputs, 3, stride=first_stride("MobileNetV2", width, pixels), activation=nn.ReLU6)
        layers: list[nn.Module] = [stem]
        for expansion, size, blocks, first in V2:
            outputs = max(1, int(size * width))
            for block in range(blocks):
                stride = first if block == 0 and (size != 24 or pixels == 224) else 1
                hidden = expansion * inputs
                layers.append(InvertedResidual(inputs, hidden, outputs, stride=stride, activation=nn.ReLU6))
                inputs = outputs
        layers.append(conv_norm(inputs, last, 1, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(last, classes)
        he_normal(self)

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n classes"]:
        """Logits of images."""
        logits: Tensor = self.fc(self.dropout(self.features(x).mean((2, 3))))
        return logits


class MobileNetV3(nn.Module):
    """Inverted residuals found by search, some with squeeze and excitation."""

    def __init__(
        self,
        size: Literal["large", "small"],
        classes: int = 10,
        channels: int = 3,
        width: float = 1.0,
        pixels: Pixels = 64,
    ) -> None:
        """Build it with He's initialisation from torch's global random numbers.

        Args:
            size: which of the paper's two networks.
            classes: number of logits.
            channels: channels of the images.
            width: what the number of channels of each layer is multiplied by, and rounded to a multiple of 8; of the
                layer after the mean only if it is above 1.
            pixels: the images that the strides are for, 32, 64 or 224 pixels wide; there is one network for 32 and 64.

        Raises:
            ValueError: the size is unknown, the width is not positive, or there are no strides for such images.
        """
        super().__init__()
        if size not in V3:
            raise ValueError(f"MobileNetV3: expected size 'large' or 'small', got {size!r}")
        first_stride("MobileNetV3", width, pixels)
        inputs = multiple_of_8(16 * width)
        stem = conv_norm(channels, inputs, 3, stride=2 if pixels == 224 else 1, activation=nn.Hardswish)
        layers: list[nn.Module] = [stem]
        for kernel, wide, narrow, squeeze, activation, stride in V3[size]:
            block = InvertedResidual(
                inputs,
                multiple_of_8(wide * width),
                inputs := multiple_of_8(narrow * width),
                kernel=kernel,
                stride=stride,
                activation=activation,
                squeeze=squeeze,
            )
            layers.append(block)
        before, after = V3_LAST[size]
        layers.append(conv_norm(inputs, multiple_of_8(before * width), 1, activation=nn.Hardswish))
        hidden = multiple_of_8(after * max(1.0, width))
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(multiple_of_8(before * width), hidden)
        self.activation = nn.Hardswish()
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(hidden, classes)
        he_normal(self)

    def forward(self, x: Float[Tensor, " n c h w"]) -> Float[Tensor, " n classes"]:
        """Logits of images."""
        x = self.activation(self.hidden(self.features(x).mean((2, 3))))
        logits: Tensor = self.fc(self.dropout(x))
        return logits


mobilenet_v3_large = partial(MobileNetV3, "large")
mobilenet_v3_small = partial(MobileNetV3, "small")
