"""Windows of restored pictures, side by side, small enough to travel inside a report."""

import base64
import io
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from metaprune.report.report import Sample, Shot
from metaprune.train.recipe import Recipe
from metaprune.train.scores import scores, scores_of_outputs
from metaprune.train.task import Batch, Task

__all__ = ["samples"]

SHOWN = 4  # pictures
SIDE = 96  # pixels of a window, at most: PNG files of noise have a byte a pixel and channel, and there are many
STRIDE = 12  # pixels between the windows to choose from


def samples(
    networks: Mapping[str, nn.Module], batches: Iterable[Batch], task: Task, recipe: Recipe
) -> tuple[Sample, ...]:
    """The first picture of each of the first batches: as it came, as each network restored it, as it should be.

    All versions are cut to the window where the picture as it came is farthest from the truth.

    Args:
        networks: By the names that the report calls them; given back as they were.
        batches: What to show some of.
        task: What the networks are for; where its outputs are no pictures, nothing is shown.
        recipe: The device and the precision.
    """
    if task.pictures is None:
        return ()
    shown = []
    for number, batch in enumerate(islice(batches, SHOWN), start=1):
        came, true = task.pictures.floor(batch), task.pictures.truth(batch)
        versions = {task.pictures.floor_name: (came, scores_of_outputs(task.pictures.floor, [batch], task))}
        for name, network in networks.items():
            outputs: list[Tensor] = []
            found = scores(network, [batch], task, recipe, look=outputs.append)
            versions[name] = (outputs[0].float().cpu(), found)
        window = _farthest(came[0], true[0])
        shots = [Shot(name, _png(x[0], window), s.metric, s.further) for name, (x, s) in versions.items()]
        truth = Shot("true", _png(true[0], window), None)
        shown.append(Sample(f"image {number}", window.width, window.height, (*shots, truth)))
    return tuple(shown)


class _Window(NamedTuple):
    top: int
    left: int
    height: int
    width: int


def _farthest(picture: Float[Tensor, " c h w"], truth: Float[Tensor, " c h w"]) -> _Window:
    """The window with the largest error."""
    error = (picture.clamp(0, 1) - truth).square().mean(0, keepdim=True)
    height, width = (min(SIDE, side) for side in error.shape[1:])
    means = F.avg_pool2d(error[None], (height, width), STRIDE)[0, 0]
    row, column = divmod(int(means.argmax()), means.shape[1])
    return _Window(row * STRIDE, column * STRIDE, height, width)


def _png(picture: Float[Tensor, " c h w"], window: _Window) -> str:
    """A window of a picture as an 8-bit PNG file, in base64."""
    top, left, height, width = window
    picture = picture[:, top : top + height, left : left + width]
    values = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    mode = "L" if values.shape[2] == 1 else "RGB"
    image = Image.frombytes(mode, (values.shape[1], values.shape[0]), values.numpy().tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
