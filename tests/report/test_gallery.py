"""Windows of pictures: cut where it matters, small, and shown on the page with what was measured."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from metaprune.report import words
from metaprune.report.card import model_card
from metaprune.report.gallery import SHOWN, SIDE, samples
from metaprune.report.page import render
from metaprune.report.report import Floor, Report, from_json, to_json
from metaprune.train import Classification, Denoising, Recipe, Task

RECIPE = Recipe(precision="32-true", device="cpu")


class Halved(nn.Module):
    """Half of what comes in."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def batches(channels: int = 1, count: int = SHOWN + 2) -> list[tuple[Tensor, Tensor]]:
    """Grey pictures, 200 x 150, that are wrong at one place."""
    true = torch.full((1, channels, 150, 200), 0.5)
    noisy = true.clone()
    noisy[..., 130:140, 150:160] = 1.0
    return [(noisy, true)] * count


def task(channels: int = 1) -> Task:
    return Denoising([], batches(channels), sigma=25)


def pixels(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


@pytest.fixture
def shown(small: Report) -> Report:
    """The report of a network that restores pictures."""
    found = samples({"dense": nn.Identity(), "pruned": Halved()}, batches(), task(), RECIPE)
    return replace(
        small,
        metric_name="PSNR (dB)",
        dense=replace(small.dense, metric=29.034, further={"SSIM": 0.81034}),
        pruned=replace(small.pruned, metric=28.9, further={"SSIM": 0.8019}),
        example="1×128×128",
        floor=Floor("noisy (σ = 25)", 20.49, {"SSIM": 0.4}),
        samples=found,
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_the_window_lies_where_the_error_is(channels: int) -> None:
    found = samples({"halved": Halved()}, batches(channels), task(channels), RECIPE)
    assert len(found) == SHOWN
    names = [shot.name for shot in found[0].shots]
    assert names == ["noisy (σ = 25)", "halved", "true"]
    noisy, halved, true = (pixels(shot.png) for shot in found[0].shots)
    assert noisy.shape[:2] == true.shape[:2] == (found[0].height, found[0].width) == (SIDE, SIDE)
    assert (noisy == 255).sum() == 100 * channels
    assert (true == 128).all()
    assert set(np.unique(halved)) == {64, 128}


def test_figures_are_of_whole_pictures() -> None:
    noisy, true = samples({}, batches(), task(), RECIPE)[0].shots
    error = (255 - 128) ** 2 * 100 / (150 * 200)
    assert noisy.metric == pytest.approx(10 * np.log10(255**2 / error))
    assert noisy.further["SSIM"] < 1
    assert (true.metric, true.further) == (None, {})


def test_small_pictures_are_shown_whole() -> None:
    given = [(torch.zeros(3, 3, 20, 30), torch.ones(3, 3, 20, 30))]
    (found,) = samples({"dense": nn.Identity()}, given, Denoising([], [], sigma=25), RECIPE)
    assert (found.width, found.height) == (30, 20)
    assert len(found.shots) == 3


def test_a_task_without_pictures_shows_none() -> None:
    assert samples({"dense": nn.Identity()}, batches(), Classification([], []), RECIPE) == ()


def test_noise_in_colour_stays_small() -> None:
    """A report with the pictures that compress worst is under a megabyte."""
    noise = [(torch.rand(1, 3, 200, 200), torch.rand(1, 3, 200, 200)) for _ in range(SHOWN)]
    found = samples({"dense": nn.Identity(), "pruned": nn.Identity()}, noise, Denoising([], [], sigma=25), RECIPE)
    assert sum(len(shot.png) for sample in found for shot in sample.shots) < 1_000_000


def test_json_round_trip(shown: Report) -> None:
    assert from_json(to_json(shown)) == shown


def test_the_page_shows_them(shown: Report) -> None:
    html = render(shown)
    for sample in shown.samples:
        for shot in sample.shots:
            assert f'src="data:image/png;base64,{shot.png}"' in html
            assert f'alt="{sample.name}, {shot.name}"' in html
            assert shot.metric is None or words.measures(shown, shot.metric, shot.further) in html
    assert "MACs are multiply-accumulates of one example, here 1×128×128." in html
    assert "inputs of 1×128×128" in html
    assert "Without a network (noisy (σ = 25)): 20.49 dB, SSIM 0.4000." in html
    assert "−0.0084" in html


def test_each_picture_stands_over_its_name_and_figures(shown: Report) -> None:
    """Decoded from the page: what came has the bright place, the pruned network halves, and so on."""
    html = render(shown)
    image, caption = r'<img src="data:image/png;base64,(.*?)" .*? alt="image 1, (.*?)">', r"<b>(.*?)</b><small>(.*?)</"
    figure = f"<figure>{image}<figcaption>{caption}"
    found = {name: (pixels(png), alt, figures) for png, alt, name, figures in re.findall(figure, html)}
    assert {name: alt for name, (_, alt, _) in found.items()} == {name: name for name in found}
    assert {name: int(picture.max()) for name, (picture, _, _) in found.items()} == {
        "noisy (σ = 25)": 255,
        "dense": 255,
        "pruned": 128,
        "true": 128,
    }
    assert {name: int(picture.min()) for name, (picture, _, _) in found.items()}["pruned"] == 64
    measured = {shot.name: words.measures(shown, shot.metric, shot.further) for shot in shown.samples[0].shots[:-1]}
    assert {name: figures for name, (_, _, figures) in found.items()} == {**measured, "true": "image 1"}


def test_a_network_that_is_no_use_is_said_to_be(shown: Report) -> None:
    good, bad = words.floor(shown), words.floor(replace(shown, pruned=replace(shown.pruned, metric=20.0)))
    assert good
    assert bad
    assert (good.tone, bad.tone) == ("plain", "bad")
    assert "no worse than with the pruned one" in bad.text
    assert words.floor(replace(shown, floor=None)) is None


def test_names_of_pictures_are_escaped(shown: Report) -> None:
    hostile = '"><script>'
    sample = replace(shown.samples[0], name=hostile, shots=(replace(shown.samples[0].shots[0], name=hostile),))
    assert hostile not in render(replace(shown, samples=(sample,)))


def test_a_report_without_pictures_has_no_section(shown: Report) -> None:
    assert "What it looks like" in render(shown)
    assert "What it looks like" not in render(replace(shown, samples=()))


def test_the_card_has_the_metrics(shown: Report) -> None:
    card = model_card(shown)
    assert "| PSNR (dB), test split | 29.03 | 28.90 | −0.13 |" in card
    assert "| SSIM, test split | 0.8103 | 0.8019 | −0.0084 |" in card
    assert "| MACs of one example (1×128×128) |" in card
    assert "Without a network (noisy (σ = 25)): 20.49 dB, SSIM 0.4000." in card
    assert '"PSNR"' in card


class Sets:
    """A distance between sets of pictures, as those of torchmetrics are: one picture has none."""

    def __init__(self) -> None:
        self.seen = 0

    def update(self, made: Tensor, true: Tensor) -> None:
        self.seen += len(made)

    def compute(self) -> float:
        if self.seen < 2:
            raise RuntimeError("more than one sample is required")
        return 1.5


def error(output: Tensor, batch: tuple[Tensor, Tensor]) -> tuple[float, int]:
    return float((output - batch[1]).square().mean((1, 2, 3)).sum()), len(output)


@pytest.mark.parametrize("count", [1, 3])
def test_what_only_a_set_has_is_not_said_of_a_picture(shown: Report, count: int) -> None:
    given = [(torch.zeros(count, 3, 20, 30), torch.ones(count, 3, 20, 30))]
    plain = Denoising([], [], sigma=25)
    both = replace(plain, metric=Sets(), metric_name="distance", further={"error": error, "sets": Sets()})
    (found,) = samples({"dense": nn.Identity()}, given, both, RECIPE)
    assert [(shot.metric, shot.further) for shot in found.shots] == [(None, {"error": 1.0})] * 2 + [(None, {})]
    assert render(replace(shown, samples=(found,))).count("<small>error 1.000</small>") == 2


def test_figures_are_of_the_picture_that_is_shown() -> None:
    true = torch.full((2, 1, 20, 30), 0.5)
    given = [(torch.stack([true[0] + 0.1, true[1] + 0.4]), true)]
    task = replace(Denoising([], [], sigma=25), metric=error, metric_name="error", further={})
    (found,) = samples({"dense": nn.Identity()}, given, task, RECIPE)
    assert [shot.metric for shot in found.shots[:2]] == [pytest.approx(0.01, rel=1e-4)] * 2


def test_a_picture_that_is_right_has_no_figure_that_is_finite() -> None:
    given = [(torch.full((1, 1, 20, 30), 0.5),) * 2]

    def infinite(output: Tensor, batch: tuple[Tensor, Tensor]) -> tuple[float, int]:
        return float("inf"), 1

    task = replace(Denoising([], [], sigma=25), metric=infinite, metric_name="PSNR (dB)", further={})
    (found,) = samples({"dense": nn.Identity()}, given, task, RECIPE)
    assert [shot.metric for shot in found.shots] == [None] * 3
