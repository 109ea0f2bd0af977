"""The tasks of restoring images: super-resolution and denoising."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metaprune.graph.arguments import is_number
from metaprune.train.task import Batch, Loader, Pictures, Task, TaskError
from metaprune.train.tasks import fidelity

__all__ = ["Denoising", "SuperResolution", "bicubic"]

FLAWLESS = 100.0  # dB, what a picture counts that is restored without any error


def SuperResolution(train: Loader, val: Loader, test: Loader | None = None, *, scale: int) -> Task:
    """The task of enlarging images: L1 loss; PSNR in dB and SSIM of the luma, as means over the images.

    Batches are `(small, true)`: float (N, C, H, W) and (N, C, scale·H, scale·W) in [0, 1], RGB or grey. The
    output of the network has the shape of `true`. `metaprune.data.load_images` makes such batches.

    Before measuring, values are rounded to 8 bits and clamped, Y of BT.601 is taken from RGB (unrounded), and
    `scale` pixels are cut off at each border, as papers have done since EDSR (Lim et al. 2017,
    https://arxiv.org/abs/1707.02921). Reports compare with bicubic enlargement.

    Args:
        train: batches to learn from.
        val: batches to choose by, held out of the training set.
        test: batches to report.
        scale: how many times as wide and high the result is; 2 or more.

    Raises:
        TaskError: a scale that is none.
    """
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 2:
        raise TaskError(f"super-resolution: expected a whole scale of 2 or more, got {scale!r}")
    return _restoration(train, val, test, scale, partial(_luma_inside, border=scale), "bicubic")


def Denoising(train: Loader, val: Loader, test: Loader | None = None, *, sigma: float) -> Task:
    """The task of taking white Gaussian noise away: L1 loss; PSNR in dB and SSIM, as means over the images.

    Batches are `(noisy, true)`: float (N, C, H, W) both, grey or RGB, `true` in [0, 1] and `noisy` what it is with
    the noise, unclamped. The output of the network has their shape. `metaprune.data.load_images` makes such batches.

    Before measuring, values are rounded to 8 bits and clamped, those of the noisy image too, with which reports
    compare; the whole image and all its channels count.

    Args:
        train: batches to learn from.
        val: batches to choose by, held out of the training set.
        test: batches to report; their noise must be the same in each pass.
        sigma: standard deviation of the noise in the batches, in grey levels of 255; above 0.

    Raises:
        TaskError: a sigma that is none.
    """
    if not (is_number(sigma) and 0 < sigma < float("inf")):
        raise TaskError(f"denoising: expected a sigma above 0, in grey levels of 255, got {sigma!r}")
    return _restoration(train, val, test, 1, fidelity.quantized, f"noisy (σ = {sigma:g})")


def bicubic(pictures: Float[Tensor, " n c h w"], size: tuple[int, int]) -> Float[Tensor, " n c p q"]:
    """Resizes pictures to `size`, (height, width), with Keys's cubic kernel (a = -0.5), widened to shrink.

    The same as Pillow's BICUBIC, and as MATLAB's imresize but for the borders: Pillow leaves out what lies outside,
    MATLAB mirrors.
    """
    return F.interpolate(pictures, size, mode="bicubic", antialias=True)


Measure = Callable[[Tensor, Tensor], Tensor]  # two (N, C, H, W), from 0 to 255 -> (N,)


def _restoration(
    train: Loader, val: Loader, test: Loader | None, scale: int, view: Callable[[Tensor], Tensor], floor: str
) -> Task:
    return Task(
        train,
        val,
        test,
        loss=partial(_absolute_error, scale=scale),
        metric=partial(_measured, measure=_decibels, view=view, scale=scale),
        metric_name="PSNR (dB)",
        distance=F.l1_loss,
        further={"SSIM": partial(_measured, measure=fidelity.ssim, view=view, scale=scale)},
        pictures=Pictures(floor, _as_large, truth=_true),
    )


def _absolute_error(restored: Tensor, batch: Batch, scale: int) -> Tensor:
    return F.l1_loss(restored, _fitting(restored, batch, scale))


def _measured(
    restored: Tensor, batch: Batch, measure: Measure, view: Callable[[Tensor], Tensor], scale: int
) -> tuple[Tensor, int]:
    """The sum of a measure over the pictures that the metric looks at, and their number."""
    true = _fitting(restored, batch, scale)
    return measure(view(restored), view(true)).sum(), len(true)


def _fitting(restored: Tensor, batch: Batch, scale: int) -> Tensor:
    """The true pictures of a batch, once all shapes are known to fit."""
    given: Tensor = batch[0]
    true: Tensor = batch[1]
    large = (*given.shape[:2], *(scale * side for side in given.shape[2:]))
    if true.dim() != 4 or tuple(true.shape) != large or restored.shape != true.shape:
        raise TaskError(
            f"restoration: expected an output and true images of shape {large}, {scale} times the height and width "
            f"of the input, got {tuple(restored.shape)} and {tuple(true.shape)}; do network and data have this scale?"
        )
    return true


def _decibels(restored: Tensor, true: Tensor) -> Tensor:
    """PSNR where a picture without an error counts as `FLAWLESS`, so that means stay finite."""
    return fidelity.psnr(restored, true).clamp(max=FLAWLESS)


def _luma_inside(pictures: Tensor, border: int) -> Tensor:
    return fidelity.luma(fidelity.quantized(pictures))[..., border:-border, border:-border]


def _as_large(batch: Batch) -> Tensor:
    """The input at the size of the output: without a network, this is what one would look at."""
    given: Tensor = batch[0]
    true: Tensor = batch[1]
    return given if given.shape == true.shape else bicubic(given, (true.shape[2], true.shape[3]))


def _true(batch: Batch) -> Tensor:
    true: Tensor = batch[1]
    return true
