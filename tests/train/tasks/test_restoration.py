"""Super-resolution and denoising: what is measured, what is learned, and what a teacher adds."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from metaprune.train import Denoising, Recipe, SuperResolution, Task, TaskError, distil, evaluate, fit
from metaprune.train.scores import scores, scores_of_outputs
from metaprune.train.tasks.fidelity import luma, psnr, quantized, ssim
from metaprune.train.tasks.restoration import bicubic

RECIPE = Recipe(precision="32-true", device="cpu", optimizer="adamw", lr=0.01, weight_decay=0.0)


def pair(scale: int, channels: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two small pictures and large ones."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(2, channels, 12, 15, generator=generator)
    return small, torch.rand(2, channels, 12 * scale, 15 * scale, generator=generator)


def test_super_resolution_is_measured_on_the_luma_inside_the_border() -> None:
    task = SuperResolution([], [], scale=2)
    batch = pair(2, 3)
    restored = torch.rand(batch[1].shape)
    x, y = (luma(quantized(each))[:, :, 2:-2, 2:-2] for each in (restored, batch[1]))
    for metric, measure in ((task.metric, psnr), (task.further["SSIM"], ssim)):
        total, count = metric(restored, batch)
        torch.testing.assert_close(total, measure(x, y).sum())
        assert count == 2


def test_what_happens_at_the_border_does_not_count() -> None:
    task = SuperResolution([], [], scale=2)
    batch = pair(2, 1)
    restored = (batch[1] + 0.1).clamp(0, 1)
    other = restored.clone()
    other[..., :2], other[..., -2:, :] = 0, 1
    assert torch.equal(task.metric(restored, batch)[0], task.metric(other, batch)[0])
    other[..., 2] = 0
    assert not torch.equal(task.metric(restored, batch)[0], task.metric(other, batch)[0])


def test_denoising_is_measured_on_all_of_the_image() -> None:
    task = Denoising([], [], sigma=25)
    true = torch.full((1, 3, 16, 16), 0.4)
    total, count = task.metric(true + 10 / 255, (true, true))
    assert (float(total), count) == (pytest.approx(20 * math.log10(255 / 10)), 1)


@pytest.mark.parametrize("task", [SuperResolution([], [], scale=2), Denoising([], [], sigma=5)])
def test_the_loss_is_the_absolute_error(task: Task) -> None:
    batch = pair(2 if task.pictures and task.pictures.floor_name == "bicubic" else 1, 1)
    restored = torch.rand(batch[1].shape)
    torch.testing.assert_close(task.loss(restored, batch), (restored - batch[1]).abs().mean())


def test_the_floor_is_the_enlarged_or_the_noisy_input() -> None:
    small, large = pair(3, 3)
    sharp, clean = SuperResolution([], [], scale=3).pictures, Denoising([], [], sigma=5).pictures
    assert sharp is not None
    assert clean is not None
    torch.testing.assert_close(sharp.floor((small, large)), bicubic(small, (36, 45)))
    assert clean.floor((large + 1, large)) is not large
    assert torch.equal(clean.floor((large + 1, large)), large + 1)
    assert sharp.truth((small, large)) is large


@pytest.mark.parametrize("size", [(8, 9), (16, 20), (96, 120)])
def test_bicubic_is_that_of_pillow(size: tuple[int, int]) -> None:
    """In floating point, for Pillow rounds between the two directions where it has bytes."""
    picture = 255 * torch.rand(32, 40)
    theirs = Image.fromarray(picture.numpy()).resize(size[::-1], Image.Resampling.BICUBIC)
    ours = bicubic(picture[None, None], size)[0, 0]
    np.testing.assert_allclose(ours.numpy(), np.asarray(theirs), atol=0.01)


@pytest.mark.parametrize("scale", [1, 2.0, True, -3])
def test_a_scale_that_is_none(scale: int) -> None:
    with pytest.raises(TaskError, match="whole scale of 2 or more"):
        SuperResolution([], [], scale=scale)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_a_sigma_that_is_none(sigma: float) -> None:
    with pytest.raises(TaskError, match="sigma above 0"):
        Denoising([], [], sigma=sigma)


def test_outputs_of_another_scale_are_refused() -> None:
    task = SuperResolution([], [], scale=2)
    small, large = pair(2, 3)
    for output, batch in ((small, (small, large)), (large, (small, small)), (pair(3, 3)[1], (small, pair(3, 3)[1]))):
        for function in (task.loss, task.metric, task.further["SSIM"]):
            with pytest.raises(TaskError, match="2 times the height and width"):
                function(output, batch)


def test_all_metrics_in_one_pass() -> None:
    batches = [pair(1, 1, seed) for seed in range(3)]
    task = Denoising(batches, batches, sigma=5)
    network = nn.Conv2d(1, 1, 3, padding=1)
    looked: list[Tensor] = []
    found = scores(network, batches, task, RECIPE, look=looked.append)
    assert found.metric == evaluate(network, batches, task, RECIPE)
    ssims = [task.further["SSIM"](network(x).detach(), (x, y))[0] / 2 for x, y in batches]
    assert found.further["SSIM"] == pytest.approx(float(sum(ssims)) / 3)
    assert [x.shape for x in looked] == [x.shape for x, _ in batches]
    assert task.pictures
    floor = scores_of_outputs(task.pictures.floor, batches, task)
    assert floor == scores(nn.Identity(), batches, task, RECIPE)


def test_a_teacher_alone_is_imitated() -> None:
    """The truth is all wrong, but only the teacher counts."""
    teacher, student = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
    batches = [(x, torch.zeros_like(x)) for x, _ in (pair(1, 1, seed) for seed in range(4))]
    task = distil(Denoising(batches, batches[:1], sigma=5), teacher, share=1.0)
    how = Recipe(epochs=50, lr=0.1, optimizer="adamw", weight_decay=0.0, precision="32-true", device="cpu")
    fit(student, task, how, progress=False)
    x = batches[0][0]
    assert F.l1_loss(student(x), teacher(x)) < 0.02
    assert teacher(x).abs().mean() > 0.05


def test_half_a_teacher() -> None:
    batch = pair(1, 1)
    task = Denoising([], [], sigma=5)
    teacher = nn.Conv2d(1, 1, 1)
    output = torch.rand(batch[1].shape)
    expected = 0.75 * F.l1_loss(output, batch[1]) + 0.25 * F.l1_loss(output, teacher(batch[0]))
    torch.testing.assert_close(distil(task, teacher, share=0.25).loss(output, batch), expected)
