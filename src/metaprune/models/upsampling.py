"""Upsampling by pixel shuffles (Shi et al. 2016, https://arxiv.org/abs/1609.05158)."""

from collections.abc import Callable

from torch import nn

__all__ = ["upsampler"]


def upsampler(network: str, width: int, scale: int, activation: Callable[[], nn.Module] | None = None) -> nn.Sequential:
    """Convolutions and pixel shuffles that make pictures (n, width, h, w) into (n, width, scale h, scale w).

    Args:
        network: whose upsampler it is.
        width: number of channels, in and out.
        scale: 3, or a power of two from 2 up, which takes a convolution and a shuffle for each factor of two.
        activation: what follows each shuffle; nothing if None.

    Raises:
        ValueError: the scale is another.
    """
    if scale != 3 and (scale < 2 or scale & (scale - 1)):
        raise ValueError(f"{network}: expected a scale of 2, 3, 4 or 8, got {scale}")
    layers: list[nn.Module] = []
    for factor in [3] if scale == 3 else [2] * (scale.bit_length() - 1):
        layers += [nn.Conv2d(width, factor**2 * width, 3, padding=1), nn.PixelShuffle(factor)]
        layers += [] if activation is None else [activation()]
    return nn.Sequential(*layers)
