"""Super-resolution and denoising networks: residuals, skips, means, padding."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metaprune.models import EDSR, SUPER_RESOLUTION, DnCNN, SRResNet, UNet
from metaprune.models.edsr import ResidualBlock


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(2, 3, 9, 6)


@torch.no_grad()
def silence(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.zero_()


def test_dncnn_adds_its_output_to_the_picture(x: torch.Tensor) -> None:
    model = DnCNN(channels=3, blocks=1, width=4)
    silence(model.tail)
    assert torch.equal(model(x), x)


def test_edsr_takes_the_mean_colour_away_and_adds_it() -> None:
    model = EDSR(blocks=1, width=4)
    grey = torch.tensor([0.4488, 0.4371, 0.4040]).reshape(3, 1, 1).expand(1, 3, 4, 4)
    seen = []
    model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    silence(model.tail)
    assert torch.equal(model(grey), grey[:, :, :1, :1].expand(1, 3, 16, 16))
    assert torch.equal(seen[0], torch.zeros(1, 3, 4, 4))
    for channels in (1, 2):  # the mean of the three
        means = EDSR(channels=channels, blocks=1, width=4).mean.flatten().tolist()
        assert means == pytest.approx([(0.4488 + 0.4371 + 0.4040) / 3] * channels)


def test_edsr_scales_its_residuals(x: torch.Tensor) -> None:
    """With residuals times nothing, blocks do nothing, whatever their weights."""
    block, half = ResidualBlock(4, 1.0), ResidualBlock(4, 0.5)
    half.load_state_dict(block.state_dict())
    inner = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(half(inner) - inner, 0.5 * (block(inner) - inner))
    first, second = EDSR(blocks=2, width=4, res_scale=0.0), EDSR(blocks=1, width=4, res_scale=0.0)
    for name in ("head", "up", "tail"):
        getattr(second, name).load_state_dict(getattr(first, name).state_dict())
    second.body[-1].load_state_dict(first.body[-1].state_dict())
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("build", [SRResNet, EDSR])
def test_the_body_has_a_residual_of_its_own(build: type[SRResNet | EDSR], x: torch.Tensor) -> None:
    model = build(blocks=1, width=4).eval()
    for layer in list(model.body)[1:]:
        silence(layer)
    mean = model.mean if isinstance(model, EDSR) else 0.0
    torch.testing.assert_close(model(x), model.tail(model.up(model.head(x - mean))) + mean)


@pytest.mark.parametrize("name", SUPER_RESOLUTION)
@pytest.mark.parametrize("scale", [0, 1, 5, 6, -2])
def test_scales_that_do_not_exist(name: str, scale: int) -> None:
    with pytest.raises(ValueError, match=f"scale of 2, 3, 4 or 8, got {scale}"):
        SUPER_RESOLUTION[name](scale=scale, blocks=1, width=4)


def test_unet_repeats_the_last_row_and_column(x: torch.Tensor) -> None:
    model = UNet(channels=3, depth=3, width=4)
    padded = F.pad(x, (0, 2, 0, 3), mode="replicate")
    torch.testing.assert_close(model(x), model(padded)[..., :9, :6])


def test_unet_passes_each_level_across_behind_what_comes_up() -> None:
    model = UNet(depth=3, width=4)
    down, up, joined = [], [], []
    for level in model.down:
        level.register_forward_hook(lambda _module, _inputs, output: down.append(output))
    for level in model.up:
        level.up.register_forward_hook(lambda _module, _inputs, output: up.append(output))
        level.level.register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0]))
    model(torch.rand(1, 1, 8, 8))
    assert [tuple(values.shape) for values in down] == [(1, 4, 8, 8), (1, 8, 4, 4), (1, 16, 2, 2)]
    assert torch.equal(joined[0], torch.cat([up[0], down[1]], 1))
    assert torch.equal(joined[1], torch.cat([up[1], down[0]], 1))


def test_unet_of_one_level(x: torch.Tensor) -> None:
    assert UNet(channels=3, depth=1, width=4)(x).shape == x.shape
