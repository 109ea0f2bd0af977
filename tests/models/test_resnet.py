"""The networks of the paper, by their published sizes."""

import pytest
import torch
from torch import nn

from metaprune.models import MODELS, ResNet


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet8", 78_042),
        ("resnet20", 272_474),
        ("resnet32", 466_906),
        ("resnet44", 661_338),
        ("resnet56", 855_770),
        ("resnet110", 1_730_714),
    ],
)
def test_sizes(name: str, parameters: int) -> None:
    module = MODELS[name]()
    assert size(module) == parameters
    longest = [m for key, m in module.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in key]
    assert f"resnet{len(longest) + 1}" == name


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (56, 853_018), (110, 1_727_962)])
def test_sizes_with_shortcuts_that_pad(depth: int, parameters: int) -> None:
    assert size(ResNet(depth, shortcut="pad")) == parameters  # option A of the paper


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
@pytest.mark.parametrize(("pixels", "channels", "classes"), [(32, 3, 10), (8, 1, 7), (4, 2, 3)])
def test_shapes(shortcut: str, pixels: int, channels: int, classes: int) -> None:
    module = MODELS["resnet8"](classes=classes, channels=channels, shortcut=shortcut)
    assert module(torch.randn(2, channels, pixels, pixels)).shape == (2, classes)


def test_signals_keep_their_size_at_the_start() -> None:
    module = MODELS["resnet20"]().train()
    assert 0.1 < module(torch.randn(16, 3, 32, 32)).std() < 10


def test_depths_and_shortcuts_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="6n \\+ 2"):
        ResNet(21)
    with pytest.raises(ValueError, match="expected shortcut"):
        ResNet(20, shortcut="zero")  # type: ignore[arg-type]
