"""Generators and discriminators: patches, ways, noise, ranges, norms (sizes: tests/train/tasks/test_adversarial.py)."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from metaprune.models import PatchDiscriminator, ResidualGenerator, UGenerator, cyclegan

GENERATORS: list[Callable[..., nn.Module]] = [
    lambda **more: UGenerator(2, 3, width=4, depth=3, **more),
    lambda **more: ResidualGenerator(2, 3, width=4, blocks=1, **more),
]


@pytest.mark.parametrize(("layers", "pixels"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_a_patch(layers: int, pixels: int) -> None:
    """But for norms, which see all: a box of so many pixels each way."""
    model = PatchDiscriminator(1, width=2, layers=layers).double()
    for place, layer in enumerate(model.layers):
        if isinstance(layer, nn.InstanceNorm2d):
            model.layers[place] = nn.Identity()
        elif isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
    x = torch.rand(1, 1, 128, 128, dtype=torch.float64, requires_grad=True)
    logits = model(x)
    middle = logits.shape[-1] // 2
    [slope] = torch.autograd.grad(logits[0, 0, middle, middle], x)
    rows, columns = slope[0, 0].nonzero().T
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == pixels
    assert (slope[0, 0] != 0).sum() == pixels**2


def test_both_ways_have_their_channels() -> None:
    forth, back = cyclegan(1, 3, width=2, blocks=1)(torch.rand(2, 1, 8, 8), torch.rand(2, 3, 8, 8))
    assert (forth.shape, back.shape) == ((2, 3, 8, 8), (2, 1, 8, 8))


@pytest.mark.parametrize("build", GENERATORS)
@pytest.mark.parametrize(("norm", "kind"), [("instance", nn.InstanceNorm2d), ("batch", nn.BatchNorm2d)])
def test_pictures_are_from_0_to_1_outside_and_from_minus_1_to_1_inside(
    build: Callable[..., nn.Module], norm: str, kind: type[nn.Module]
) -> None:
    model = build(norm=norm)
    norms = [type(each) for each in model.modules() if isinstance(each, nn.InstanceNorm2d | nn.BatchNorm2d)]
    assert set(norms) == {kind}
    seen = []
    first = model.down[0] if isinstance(model, UGenerator) else model.head
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr, operator]
    x = torch.rand(2, 2, 16, 16)
    assert model(x).shape == (2, 3, 16, 16)
    assert torch.equal(seen[0], 2 * x - 1)
    for value, made in ((0.0, 0.5), (50.0, 1.0), (-50.0, 0.0)):
        nn.init.zeros_(model.tail.weight)  # type: ignore[union-attr, arg-type]
        nn.init.constant_(model.tail.bias, value)  # type: ignore[union-attr, arg-type]
        assert (model(x) == made).all()


@pytest.mark.parametrize(("depth", "levels"), [(2, 0), (3, 1), (4, 2), (5, 3), (7, 3)])
def test_the_noise_is_in_up_to_three_levels(depth: int, levels: int) -> None:
    model, called = UGenerator(width=1, depth=depth, dropout=0.5, norm="batch"), []
    model.dropout.register_forward_hook(lambda *_: called.append(1))
    x = torch.rand(2, 3, 2**depth, 2**depth)
    first, again = model(x), model(x)
    assert len(called) == 2 * levels
    assert torch.equal(first, again) == (levels == 0)


def test_weights_are_drawn_narrowly() -> None:
    for model in (UGenerator(width=8, depth=3), ResidualGenerator(width=8, blocks=1), PatchDiscriminator(width=8)):
        layers = [each for each in model.modules() if isinstance(each, nn.Conv2d | nn.ConvTranspose2d)]
        weights = torch.cat([layer.weight.detach().flatten() for layer in layers])
        assert weights.std().item() == pytest.approx(0.02, rel=0.05)
        assert not any(layer.bias.any() for layer in layers if layer.bias is not None)


@pytest.mark.parametrize(
    "build",
    [
        lambda: UGenerator(depth=1),
        lambda: UGenerator(outputs=0),
        lambda: ResidualGenerator(blocks=0),
        lambda: PatchDiscriminator(layers=0),
    ],
)
def test_numbers_that_are_too_small(build: Callable[[], nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"from 1 and depth from 2|expected 1 or more of each"):
        build()
