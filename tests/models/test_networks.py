"""What holds for every network: shapes, the start, and that all of its channels can be cut."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Generator, Tensor, nn

import metaprune as mp
from metaprune.models import DENOISING, MODELS, SUPER_RESOLUTION, DenseNet, MobileNetV3, ResNet
from metaprune.models.mobilenet import V3
from metaprune.surgery.slice import carve
from tests.laws import oracle
from tests.zoo import randomise


@dataclass(frozen=True)
class Small:
    """A network at a size that is cut in a second; `pixels` are the height and width of its inputs."""

    build: Callable[..., nn.Module]
    arguments: dict[str, Any]
    pixels: tuple[int, int]
    channels: int = 3
    shuffles: list[int] = field(default_factory=list)  # factors of pixel shuffles, squared


def first_blocks(**arguments: Any) -> nn.Module:
    """A MobileNetV3 of five blocks, which are of all kinds; those behind are like them."""
    with patch.dict(V3, {"small": V3["small"][:5]}):
        return MobileNetV3("small", **arguments)


NARROW = {"width": 0.25, "pixels": 32}
SMALL = {
    "resnet_basic": Small(ResNet, {"depth": 8}, (8, 8)),
    "resnet_bottleneck": Small(ResNet, {"depth": 11, "block": "bottleneck"}, (8, 8)),
    "resnet_bottleneck_pad": Small(ResNet, {"depth": 11, "block": "bottleneck", "shortcut": "pad"}, (8, 8)),
    "densenet": Small(DenseNet, {"depth": 10, "growth": 4, "start": 6}, (8, 8)),
    "mobilenet_v1": Small(MODELS["mobilenet_v1"], NARROW, (16, 16)),
    "mobilenet_v2": Small(MODELS["mobilenet_v2"], NARROW, (16, 16)),
    "mobilenet_v3_large": Small(MODELS["mobilenet_v3_large"], NARROW, (16, 16)),
    "mobilenet_v3_small": Small(first_blocks, NARROW, (16, 16)),
    "mnasnet": Small(MODELS["mnasnet"], NARROW, (16, 16)),
    "srresnet": Small(SUPER_RESOLUTION["srresnet"], {"blocks": 2, "width": 8}, (6, 5), shuffles=[4, 4]),
    "srresnet_3": Small(SUPER_RESOLUTION["srresnet"], {"blocks": 1, "width": 8, "scale": 3}, (6, 5), shuffles=[9]),
    "edsr": Small(SUPER_RESOLUTION["edsr"], {"blocks": 2, "width": 8, "res_scale": 0.1}, (6, 5), shuffles=[4, 4]),
    "dncnn": Small(DENOISING["dncnn"], {"blocks": 3, "width": 8}, (9, 7), channels=1),
    "unet": Small(DENOISING["unet"], {"depth": 3, "width": 4}, (8, 8), channels=1),
    "vit": Small(MODELS["vit"], {"pixels": 8, "width": 12, "depth": 2, "heads": 3, "hidden": 10}, (8, 8)),
    "unet_odd": Small(DENOISING["unet"], {"depth": 3, "width": 4}, (9, 6), channels=1),
}


def test_no_network_is_forgotten() -> None:
    with torch.device("meta"), patch.object(Tensor, "normal_", lambda weights, *_, **__: weights):  # nothing is drawn
        kinds = {type(small.build(**small.arguments)) for small in SMALL.values()}
        built = {type(build()) for registry in (MODELS, SUPER_RESOLUTION, DENOISING) for build in registry.values()}
    assert built == kinds


SLOW = {"resnet_basic", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mnasnet"}  # much as others are


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SMALL])
def test_half_of_every_axis_can_be_cut(name: str) -> None:
    """All axes are free but those of inputs, outputs and pixel shuffles, and a cut computes what the mask does."""
    small = SMALL[name]
    model = small.build(**small.arguments).double().eval()
    randomise(model, Generator().manual_seed(0))
    args = (torch.randn(2, small.channels, *small.pixels, dtype=torch.float64),)
    graph = mp.trace(model, args)

    fixed = [(axis.size, axis.fixed) for axis in graph.axes.values() if axis.fixed is not None]
    tokens = (
        ("example inputs", "by position") if name == "vit" else ()
    )  # patches, and the three of queries, keys, values
    known = ("of the input", "of the output", *tokens)
    others = [(size, why.rpartition(": ")[2]) for size, why in fixed if not any(words in why for words in known)]
    assert others == [(size, "pixel shuffle spreads it over the picture") for size in small.shuffles]
    assert graph.free_share() > 0.99

    plan = oracle.half(graph)
    cut = carve(model, graph, plan)
    assert not cut.undone
    assert mp.params(graph, plan) == oracle.counted_params(cut.model) < 0.5 * oracle.counted_params(model)
    output = oracle.call(cut.model, args, {})
    assert oracle.distance(oracle.call(mp.mask(model, graph, plan), args, {}), output) < 1e-10
    assert oracle.distance(oracle.call(model, args, {}), output) > 1e-3


ANY_SIZE = [name for name in MODELS if name != "vit"]  # whose positions are of one size


@pytest.mark.parametrize(
    ("name", "height", "width"), [*[(name, 32, 32) for name in MODELS], *[(name, 37, 18) for name in ANY_SIZE]]
)
def test_logits(name: str, height: int, width: int) -> None:
    model = MODELS[name](classes=7, channels=2).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 2, height, width)).shape == (1, 7)


@pytest.mark.parametrize("name", SUPER_RESOLUTION)
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_pictures_become_larger(name: str, scale: int) -> None:
    model = SUPER_RESOLUTION[name](scale=scale, channels=2, blocks=1, width=4)
    assert model(torch.rand(2, 2, 7, 5)).shape == (2, 2, 7 * scale, 5 * scale)


@pytest.mark.parametrize("name", DENOISING)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 16, 16), (3, 19, 33), (1, 1, 2)])
def test_pictures_keep_their_size(name: str, channels: int, height: int, width: int) -> None:
    model = DENOISING[name](channels=channels, width=4)
    assert model(torch.rand(2, channels, height, width)).shape == (2, channels, height, width)


@pytest.mark.parametrize("name", ANY_SIZE)
def test_signals_keep_their_size_at_the_start(name: str) -> None:
    with torch.no_grad():
        assert 0.1 < MODELS[name]().train()(torch.randn(8, 3, 32, 32)).std() < 10


@pytest.mark.parametrize("name", [*SUPER_RESOLUTION, *DENOISING])
def test_pictures_stay_small_at_the_start(name: str) -> None:
    build = (SUPER_RESOLUTION | DENOISING)[name]
    with torch.no_grad():
        assert 0.01 < build(channels=3).train()(torch.rand(4, 3, 16, 16)).std() < 2


@pytest.mark.parametrize("name", [*SUPER_RESOLUTION, *DENOISING])
@pytest.mark.parametrize("wrong", ["channels", "width", "blocks or depth"])
def test_numbers_below_one(name: str, wrong: str) -> None:
    wrong = wrong if wrong in ("channels", "width") else "depth" if name == "unet" else "blocks"
    with pytest.raises(ValueError, match=f"expected 1 or more .*{wrong}.*, got .*0"):
        (SUPER_RESOLUTION | DENOISING)[name](**{wrong: 0})
