"""The networks of the paper, by their published sizes."""

import pytest
import torch
from torch import nn

from metaprune.models import MODELS, ResNet
from metaprune.models.resnet import PadShortcut


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [child for child in module.modules() if isinstance(child, nn.Conv2d)]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet8", 78_042),
        ("resnet20", 272_474),
        ("resnet32", 466_906),
        ("resnet44", 661_338),
        ("resnet56", 855_770),
        ("resnet110", 1_730_714),
        ("resnet110_bottleneck", 1_147_738),
        ("resnet164", 1_704_154),
    ],
)
def test_sizes(name: str, parameters: int) -> None:
    module = MODELS[name]()
    assert size(module) == parameters
    longest = [m for key, m in module.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in key]
    assert f"resnet{len(longest) + 1}" == name.removesuffix("_bottleneck")


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (56, 853_018), (110, 1_727_962)])
def test_sizes_with_shortcuts_that_pad(depth: int, parameters: int) -> None:
    assert size(ResNet(depth, shortcut="pad")) == parameters  # option A of the paper


@pytest.mark.parametrize(("depth", "block"), [(8, "basic"), (11, "bottleneck")])
@pytest.mark.parametrize("shortcut", ["projection", "pad"])
@pytest.mark.parametrize(("pixels", "channels", "classes"), [(32, 3, 10), (8, 1, 7), (4, 2, 3)])
def test_shapes(depth: int, block: str, shortcut: str, pixels: int, channels: int, classes: int) -> None:
    module = ResNet(depth, classes, channels, shortcut, block)  # type: ignore[arg-type]
    assert module(torch.randn(2, channels, pixels, pixels)).shape == (2, classes)


def test_bottlenecks_are_four_times_as_wide_at_the_end() -> None:
    block = ResNet(11, block="bottleneck").stage2[0]
    sizes = [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in convolutions(block)]
    assert sizes == [(64, 32, 1, 1), (32, 32, 3, 2), (32, 128, 1, 1), (64, 128, 1, 2)]  # the last is the shortcut


def test_a_shortcut_that_pads_keeps_the_pixels_where_the_block_does() -> None:
    x = torch.randn(2, 16, 6, 6)
    y = ResNet(11, block="bottleneck", shortcut="pad").stage1[0].shortcut(x)
    assert torch.equal(y[:, 24:40], x)
    assert not y[:, :24].any()
    assert not y[:, 40:].any()


def test_a_shortcut_that_pads_takes_every_second_pixel() -> None:
    """From the first on; of an odd number of channels of zeros, more come last."""
    x = torch.arange(1.0, 31.0).reshape(1, 1, 5, 6)
    y = PadShortcut(3, 2)(x)
    assert y[0, 1].tolist() == [[1, 3, 5], [13, 15, 17], [25, 27, 29]]
    assert y.shape == (1, 4, 3, 3)
    assert not y[:, [0, 2, 3]].any()


def test_signals_keep_their_size_at_the_start() -> None:
    module = MODELS["resnet20"]().train()
    assert 0.1 < module(torch.randn(16, 3, 32, 32)).std() < 10


def test_depths_and_shortcuts_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="6n \\+ 2"):
        ResNet(21)
    with pytest.raises(ValueError, match="9n \\+ 2"):
        ResNet(56 + 1, block="bottleneck")
    with pytest.raises(ValueError, match="expected block"):
        ResNet(20, block="wide")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected shortcut"):
        ResNet(20, shortcut="zero")  # type: ignore[arg-type]
