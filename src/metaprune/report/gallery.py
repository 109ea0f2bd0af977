"""Windows of pictures that networks made, side by side, small enough to travel inside a report."""

import base64
import io
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from metaprune.report.report import Sample, Shot
from metaprune.train.checks import TrainError
from metaprune.train.engine import measured
from metaprune.train.recipe import Recipe
from metaprune.train.scores import scores_of_few
from metaprune.train.several.dividing import examples_in, rows_of
from metaprune.train.task import Batch, Pictures, Task, on

__all__ = ["samples"]

SHOWN = 4  # pictures
SIDE = 96  # pixels of a window, at most: PNG files of noise have a byte a pixel and channel, and there are many
STRIDE = 12  # pixels between the windows to choose from


def samples(
    networks: Mapping[str, nn.Module], batches: Iterable[Batch], task: Task, recipe: Recipe
) -> tuple[Sample, ...]:
    """The first picture of each of the first batches: as it came, as each network made it, as it should be.

    All versions are cut to the window where the picture as it came is farthest from the truth; where nobody knows that,
    from what the first network made of it.

    Args:
        networks: By the names that the report calls them; given back as they were.
        batches: What to show some of.
        task: What the networks are for; where its outputs are no pictures, nothing is shown.
        recipe: The device and the precision.
    """
    if task.pictures is None:
        return ()
    ways = [task.pictures] if task.pictures.other is None else [task.pictures, task.pictures.other]
    shown = []
    for number, batch in enumerate(islice(batches, SHOWN // len(ways)), start=1):
        for way in ways:
            name = f"image {number}, {way.way}" if way.way else f"image {number}"
            shown.append(_sample(name, networks, batch, way, task, recipe))
    return tuple(shown)


def _sample(
    name: str, networks: Mapping[str, nn.Module], batch: Batch, way: Pictures, task: Task, recipe: Recipe
) -> Sample:
    """One picture; each version is measured where the truth is known."""
    batch = _first_of(batch, task)
    came = way.floor(batch)
    made: dict[str, Any] = {way.floor_name: came}
    versions = {way.floor_name: came}
    for known, network in networks.items():
        outputs: list[Any] = []
        measured(network, [batch], task, recipe, [], outputs.append)
        made[known] = on(torch.device("cpu"), outputs[0])
        versions[known] = way.made(made[known]).float()
    said = {} if way.truth is None else {known: scores_of_few(output, batch, task) for known, output in made.items()}
    if way.truth is not None:
        versions["true"] = way.truth(batch)
    far = list(versions)[-1 if way.truth is not None else min(1, len(versions) - 1)]
    window = _farthest(came[0], versions[far][0])
    shots = []
    for known, pictures in versions.items():
        further = said.get(known, {})
        shots.append(Shot(known, _png(pictures[0], window), further.pop(task.metric_name, None), further))
    return Sample(name, window.width, window.height, tuple(shots))


def _first_of(batch: Batch, task: Task) -> Batch:
    """The first example of a batch; the whole batch where its examples cannot be told apart."""
    try:
        return rows_of(batch, 0, 1, examples_in(batch, task), task)
    except TrainError:
        return batch


class _Window(NamedTuple):
    top: int
    left: int
    height: int
    width: int


def _farthest(picture: Float[Tensor, " c h w"], truth: Float[Tensor, " c h w"]) -> _Window:
    """The window with the largest error."""
    error = (picture.clamp(0, 1) - truth.clamp(0, 1)).square().mean(0, keepdim=True)
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
