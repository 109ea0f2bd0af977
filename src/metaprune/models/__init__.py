"""The papers' networks, as plain modules that know nothing of pruning."""

from collections.abc import Callable

from torch import nn

from metaprune.models.densenet import DenseNet, densenet40
from metaprune.models.dncnn import DnCNN
from metaprune.models.edsr import EDSR
from metaprune.models.mnasnet import MNASNet
from metaprune.models.mobilenet import MobileNetV1, MobileNetV2, MobileNetV3, mobilenet_v3_large, mobilenet_v3_small
from metaprune.models.resnet import (
    ResNet,
    resnet8,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
    resnet110_bottleneck,
    resnet164,
)
from metaprune.models.srresnet import SRResNet
from metaprune.models.translation import BothWays, PatchDiscriminator, ResidualGenerator, UGenerator, cyclegan
from metaprune.models.unet import UNet
from metaprune.models.vit import VisionTransformer

__all__ = [
    "DENOISING",
    "EDSR",
    "MODELS",
    "SUPER_RESOLUTION",
    "TRANSLATION",
    "BothWays",
    "DenseNet",
    "DnCNN",
    "MNASNet",
    "MobileNetV1",
    "MobileNetV2",
    "MobileNetV3",
    "PatchDiscriminator",
    "ResNet",
    "ResidualGenerator",
    "SRResNet",
    "UGenerator",
    "UNet",
    "VisionTransformer",
    "cyclegan",
    "densenet40",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnet8",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "resnet110_bottleneck",
    "resnet164",
]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet44": resnet44,
    "resnet56": resnet56,
    "resnet110": resnet110,
    "resnet110_bottleneck": resnet110_bottleneck,
    "resnet164": resnet164,
    "densenet40": densenet40,
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_large": mobilenet_v3_large,
    "mobilenet_v3_small": mobilenet_v3_small,
    "mnasnet": MNASNet,
    "vit": VisionTransformer,
}
"""Name -> function of `(classes=10, channels=3)` that returns the network with fresh weights."""

SUPER_RESOLUTION: dict[str, Callable[..., nn.Module]] = {"srresnet": SRResNet, "edsr": EDSR}
"""Name -> function of `(scale=4, channels=3, blocks, width)` that returns the network with fresh weights."""

DENOISING: dict[str, Callable[..., nn.Module]] = {"dncnn": DnCNN, "unet": UNet}
"""Name -> function of `(channels=1, width)`, and `blocks` or `depth`, that returns it with fresh weights."""

TRANSLATION: dict[str, Callable[..., nn.Module]] = {
    "unet256": UGenerator,
    "residual_generator": ResidualGenerator,
    "cyclegan": cyclegan,
}
"""Name -> function of `(inputs=3, outputs=3, width=64)`, and `depth` or `blocks`; it returns fresh weights."""
