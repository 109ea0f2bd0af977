"""How far restored pictures are from the true ones: PSNR and SSIM, as papers on restoration measure them.

Pictures are float64 (N, C, H, W) with values from 0 to 255, as `quantized` gives them.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metaprune.graph.errors import MetapruneError
from metaprune.graph.tensors import in_double

__all__ = ["WINDOW", "luma", "psnr", "quantized", "ssim"]

PEAK = 255.0
WINDOW = 11  # pixels that SSIM's window is wide and high
SPREAD = 1.5  # its standard deviation, in pixels
K1, K2 = 0.01, 0.03


def quantized(pictures: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c h w"]:
    """Values in [0, 1] as a file of 8 bits would hold them: whole numbers from 0 to 255, what is outside clamped."""
    return (in_double(pictures) * PEAK).round().clamp(0, PEAK)


def luma(pictures: Float[Tensor, " n c h w"]) -> Float[Tensor, " n 1 h w"]:
    """Y of ITU-R BT.601, from 16 to 235, as MATLAB's rgb2ycbcr has it before rounding; one channel is Y already."""
    if pictures.shape[1] == 1:
        return pictures
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=pictures.dtype).to(pictures.device) / PEAK
    return 16 + (pictures * weights.view(-1, 1, 1)).sum(1, keepdim=True)


def psnr(restored: Float[Tensor, " n c h w"], true: Float[Tensor, " n c h w"]) -> Float[Tensor, " n"]:
    """10 log10(255² / mean squared error) of each picture, in dB; infinite where the two are equal."""
    return 10 * torch.log10(PEAK**2 / (restored - true).square().mean((1, 2, 3)))


def ssim(restored: Float[Tensor, " n c h w"], true: Float[Tensor, " n c h w"]) -> Float[Tensor, " n"]:
    """Structural similarity of each picture, at most 1: the mean over channels and all whole windows.

    Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861, equation 13, with the paper's Gaussian window of
    11 x 11 pixels and a standard deviation of 1.5.

    Raises:
        MetapruneError: no whole window fits into the pictures.
    """
    height, width = true.shape[2:]
    if min(height, width) < WINDOW:
        raise MetapruneError(f"ssim: expected pictures of {WINDOW}x{WINDOW} pixels or more, got {width}x{height}")
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    mean_x, mean_y = _windowed(restored), _windowed(true)
    var_x = _windowed(restored.square()) - mean_x.square()
    var_y = _windowed(true.square()) - mean_y.square()
    covariance = _windowed(restored * true) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    bound = (mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2)
    return (likeness / bound).mean((1, 2, 3))


def _windowed(pictures: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c p q"]:
    """The weighted mean inside each whole window."""
    places = torch.arange(WINDOW, dtype=pictures.dtype, device=pictures.device) - WINDOW // 2
    weights = torch.exp(-places.square() / (2 * SPREAD**2))
    weights = weights / weights.sum()
    channels = pictures.shape[1]
    rows = F.conv2d(pictures, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(rows, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
