"""PSNR against its closed form, SSIM against scikit-image, luma against the values of the standard."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from metaprune.graph.errors import MetapruneError
from metaprune.train.tasks.fidelity import luma, psnr, quantized, ssim


def pictures(channels: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two smooth pictures of 40 x 33, and both with noise, from 0 to 255."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, channels, 5, 5, generator=generator)
    true = torch.nn.functional.interpolate(coarse, (40, 33), mode="bicubic").clamp(0, 1)
    return quantized(true + 0.1 * torch.randn(true.shape, generator=generator)), quantized(true)


def test_psnr_of_a_known_error() -> None:
    true = torch.full((2, 3, 4, 5), 100.0, dtype=torch.double)
    off = torch.tensor([5.0, 10.0], dtype=torch.double).view(2, 1, 1, 1)
    expected = [20 * math.log10(255 / error) for error in (5, 10)]
    torch.testing.assert_close(psnr(true + off, true), torch.tensor(expected, dtype=torch.double))


def test_psnr_takes_the_mean_error_of_each_picture() -> None:
    true = torch.zeros(1, 1, 2, 2, dtype=torch.double)
    one_pixel = true.clone()
    one_pixel[..., 0, 0] = 255.0
    assert float(psnr(one_pixel, true)) == pytest.approx(10 * math.log10(4))
    assert psnr(true, true).isinf().all()


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_scikit_image(channels: int) -> None:
    from skimage import metrics

    restored, true = pictures(channels)
    expected = [
        metrics.structural_similarity(
            x.numpy(),
            y.numpy(),
            channel_axis=0,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for x, y in zip(restored, true, strict=True)
    ]
    assert 0.2 < expected[0] < 0.95
    np.testing.assert_allclose(ssim(restored, true).numpy(), expected, atol=1e-9)
    torch.testing.assert_close(ssim(true, true), torch.ones(2, dtype=torch.double))


def test_ssim_needs_room_for_its_window() -> None:
    small = torch.zeros(1, 1, 10, 30, dtype=torch.double)
    with pytest.raises(MetapruneError, match="11x11 pixels or more, got 30x10"):
        ssim(small, small)


def test_luma_of_known_colours() -> None:
    """Black, white, and the primaries, as the table of ITU-R BT.601 has them."""
    colours = {(0, 0, 0): 16.0, (255, 255, 255): 235.0, (255, 0, 0): 81.481, (0, 255, 0): 144.553, (0, 0, 255): 40.966}
    given = torch.tensor(list(colours), dtype=torch.double).view(-1, 3, 1, 1)
    expected = torch.tensor(list(colours.values()), dtype=torch.double)
    torch.testing.assert_close(luma(given).flatten(), expected)


def test_luma_of_grey_is_itself() -> None:
    grey = torch.rand(2, 1, 3, 3, dtype=torch.double)
    assert torch.equal(luma(grey), grey)


def test_values_are_rounded_and_clamped() -> None:
    given = torch.tensor([-0.2, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 1.7]).view(1, 1, 1, -1)
    assert quantized(given).flatten().tolist() == [0, 0, 0, 1, 255, 255]
