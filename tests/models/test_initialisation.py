"""Fresh weights, by layer."""

import pytest
import torch
from torch import nn

from metaprune.models.initialisation import he_normal


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (nn.Conv2d(40, 60, 5), 40 * 25),
        (nn.Conv2d(600, 600, 3, groups=600, bias=False), 9),
        (nn.Linear(200, 300), 200),
        (nn.ConvTranspose2d(80, 50, 2, stride=2), 80),  # each pixel is made of one pixel
    ],
    ids=["convolution", "depthwise", "linear", "transposed"],
)
def test_weights_have_a_variance_of_two_over_the_fan_in(layer: nn.Module, fan_in: int) -> None:
    norm = nn.BatchNorm2d(4)
    nn.init.constant_(norm.weight, 3.0)
    nn.init.constant_(norm.bias, 2.0)
    he_normal(nn.Sequential(layer, norm))
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    assert weight.var().item() == pytest.approx(2 / fan_in, rel=0.08)
    assert abs(weight.mean().item()) < 0.05 * weight.std().item()
    assert layer.bias is None or not layer.bias.any()
    assert (norm.weight == 3.0).all()
    assert (norm.bias == 2.0).all()
