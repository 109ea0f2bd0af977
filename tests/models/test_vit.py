"""The vision transformer: its attention against PyTorch's, its patches, and what it refuses."""

import pytest
import torch
from torch import nn

from metaprune.models import VisionTransformer
from metaprune.models.vit import Attention


def test_attention_is_pytorchs() -> None:
    ours, theirs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias.normal_())
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


def test_parameters_by_hand() -> None:
    """Patches of 4x4, 64 positions, six blocks of width 96 with 192 units inside, a norm, ten classes."""
    block = 2 * 2 * 96 + 4 * (96 * 96 + 96) + 2 * 96 * 192 + 192 + 96
    whole = 3 * 16 * 96 + 96 + 64 * 96 + 6 * block + 2 * 96 + 96 * 10 + 10
    assert sum(parameter.numel() for parameter in VisionTransformer().parameters()) == whole


def test_patches_that_change_places_are_told_apart_by_position_alone() -> None:
    """Pixels go by patches; without positions, their order does not count, since the mean of all is classified."""
    model = VisionTransformer(pixels=8, patch=4, width=12, depth=1, heads=3, hidden=10).eval()
    x = torch.randn(2, 3, 8, 8)
    moved = x.roll(4, 3)  # the left patches are the right ones
    assert (model(x) - model(moved)).abs().max() > 1e-4
    with torch.no_grad():
        model.positions.zero_()
    torch.testing.assert_close(model(x), model(moved))
    assert (model(x) - model(x.roll(1, 3))).abs().max() > 1e-4


@pytest.mark.parametrize("sizes", [{"pixels": 30}, {"width": 97}, {"heads": 5}])
def test_sizes_that_do_not_fit(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="pixels as a multiple of patch and width of heads"):
        VisionTransformer(**sizes)  # type: ignore[arg-type]
