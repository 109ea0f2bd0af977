"""MobileNets and MNASNet: strides, widths, and the parts of their blocks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from metaprune.models import MNASNet, MobileNetV1, MobileNetV2, MobileNetV3, mobilenet_v3_large, mobilenet_v3_small
from metaprune.models.mobilenet import InvertedResidual, SqueezeExcitation, multiple_of_8

NETWORKS = [MobileNetV1, MobileNetV2, mobilenet_v3_large, mobilenet_v3_small, MNASNet]


@pytest.mark.parametrize(
    ("build", "pixels", "side"),
    [
        *[(build, 224, 7) for build in NETWORKS],
        *zip(NETWORKS, [64] * 5, [2, 4, 4, 4, 2], strict=True),
        *zip(NETWORKS, [32] * 5, [2, 4, 2, 2, 2], strict=True),
    ],
)
def test_strides(build: Callable[..., nn.Module], pixels: int, side: int) -> None:
    """The side of the last picture, from a side for which the strides are."""
    features = build(width=0.25, pixels=pixels).eval().get_submodule("features")
    with torch.no_grad():
        assert features(torch.zeros(1, 3, pixels, pixels)).shape[2:] == (side, side)


@pytest.mark.parametrize(
    ("width", "rounded"), [(1, 8), (8, 8), (11.9, 16), (12, 16), (17.6, 16), (17.9, 24), (83, 80), (84, 88)]
)
def test_multiples_of_8(width: float, rounded: int) -> None:
    assert multiple_of_8(width) == rounded


@pytest.mark.parametrize("build", [MobileNetV1, MobileNetV2])
def test_widths_are_rounded_down(build: Callable[..., nn.Module]) -> None:
    with torch.device("meta"):
        first = next(module for module in build(width=0.3).modules() if isinstance(module, nn.Conv2d))
    assert first.out_channels == 9


@pytest.mark.parametrize(("build", "hidden"), [(mobilenet_v3_large, 1280), (mobilenet_v3_small, 1024)])
def test_the_layer_after_the_mean_only_grows(build: Callable[..., nn.Module], hidden: int) -> None:
    with torch.device("meta"):
        assert build(width=0.5).get_submodule("fc").in_features == hidden
        assert build(width=2.0).get_submodule("fc").in_features == 2 * hidden


def test_residuals_only_where_shapes_allow() -> None:
    x = torch.randn(2, 8, 6, 6)
    for outputs, stride, residual in [(8, 1, True), (8, 2, False), (16, 1, False)]:
        block = InvertedResidual(8, 24, outputs, stride=stride).eval()
        nn.init.zeros_(block.project[0].weight)
        y = block(x)
        assert torch.equal(y, x if residual else torch.zeros_like(y))


def test_squeeze_and_excitation_gates_whole_channels() -> None:
    module = SqueezeExcitation(32)
    assert module.squeeze.out_channels == 8
    x = torch.rand(2, 32, 3, 4) + 1
    gates = module(x) / x
    torch.testing.assert_close(gates, gates[:, :, :1, :1].expand_as(gates))
    assert gates.amin() >= 0
    assert gates.amax() <= 1


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"width": 0.0}, "width above 0.*got 0.0"), ({"pixels": 96}, "32, 64 or 224 pixels, got 96")],
)
def test_networks_that_do_not_exist(build: Callable[..., nn.Module], arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(**arguments)


def test_sizes_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="'large' or 'small', got 'medium'"):
        MobileNetV3("medium")  # type: ignore[arg-type]
