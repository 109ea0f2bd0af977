"""The papers' networks, as plain modules that know nothing of pruning."""

from collections.abc import Callable

from torch import nn

from metaprune.models.resnet import ResNet, resnet8, resnet20, resnet32, resnet44, resnet56, resnet110

__all__ = ["MODELS", "ResNet", "resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet44": resnet44,
    "resnet56": resnet56,
    "resnet110": resnet110,
}
"""Name -> function of `(classes=10, channels=3)` that returns the network with fresh weights."""
