"""The data of each task, in reach: what trains, what measures, and what the network and the report must know."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaprune.cli.purpose.look import Cut, Look, label_of

if TYPE_CHECKING:
    from metaprune.data.preprocessing import Preprocessing
    from metaprune.train.task import Task

__all__ = ["Ready", "characters", "labelled", "restored", "restored_to_test", "translated"]

SIDE = 128
"""Pixels of the image that is restored where MACs are counted and time is measured, as in papers."""


@dataclass(frozen=True)
class Ready:
    """A task with its data in reach, and what the network and the report must know of them."""

    task: Task
    label: str  # of the data, in reports
    sizes: tuple[int, ...]  # of one example
    timed: int  # examples in the batch that time is measured at
    builds: dict[str, Any] = field(default_factory=dict)  # for functions that build networks
    inputs: int = 1  # of these sizes, that the network takes
    preprocessing: Preprocessing | None = None  # of images with labels
    said: str = ""  # what was found, and what is done to it


def labelled(data: str, batch_size: int | None, channels: int | None, cut: Cut, look: Look) -> Ready:
    """Images with labels.

    Raises:
        UsageError: options of restoration are given.
        DataError: there are no such data; so for the other tasks.
    """
    from metaprune.cli.errors import UsageError
    from metaprune.data import load
    from metaprune.train.task import Classification

    odd = dict(cut.given, **({} if channels is None else {"channels": channels}))
    if odd:
        raise UsageError(f"prune: {', '.join(odd)} belong to restoration; give --task super-resolution or denoising")
    batch_size = 128 if batch_size is None else batch_size
    images = load(data, batch_size=batch_size, **look.labelled)
    return Ready(
        Classification(images.train, images.val, images.test),
        label_of(data),
        images.shape,
        timed=batch_size,
        builds={"classes": images.classes, "channels": images.shape[0]},
        preprocessing=images.preprocessing,
        said=repr(images).removeprefix("Data(").removesuffix(")"),
    )


def restored(
    data: str,
    batch_size: int | None,
    channels: int | None,
    cut: Cut,
    look: Look,
    *,
    scale: int | None,
    sigma: float | None,
) -> Ready:
    """Images that are enlarged (`scale`) or freed from noise (`sigma`)."""
    from metaprune.data import load_images

    _refuse_labelled(look)
    given = cut.given | look.restoring | ({} if batch_size is None else {"batch_size": batch_size})
    images = load_images(data, scale=scale, sigma=sigma, channels=channels, **given)
    strength = f"σ = {sigma:g}" if scale is None else f"×{scale}"
    tested = f"; tested on {cut.test.name}" if cut.test else ""
    return Ready(
        _restoring(images.train, images.val, images.test, scale, sigma),
        f"{images.name} ({strength}, patches of {images.train.size * (scale or 1)}{tested})",
        (images.channels, SIDE, SIDE),
        timed=1,
        builds={"channels": images.channels, "scale": scale},
        said=f"{len(images.train.source)} training and {len(images.val)} validation images; "
        + ", ".join(f"{name.removeprefix('data.')}: {value}" for name, value in images.train.settings.items()),
    )


def restored_to_test(data: str, channels: int | None, look: Look, *, scale: int | None, sigma: float | None) -> Ready:
    """Whole images alone, to measure on."""
    from metaprune.data import load_test_images

    _refuse_labelled(look)
    images = load_test_images(data, scale=scale, sigma=sigma, channels=channels)
    channels = next(iter(images))[0].shape[1]
    builds = {"channels": channels, "scale": scale}
    task = _restoring(images, images, images, scale, sigma)
    return Ready(task, Path(data).name, (channels, SIDE, SIDE), timed=1, builds=builds)


def translated(
    data: str, batch_size: int | None, channels: int | None, cut: Cut, look: Look, *, unpaired: bool, model: str
) -> Ready:
    """Pictures of two kinds, in pairs or not, and a discriminator."""
    import torch

    from metaprune.cli.errors import UsageError
    from metaprune.data import load_pairs
    from metaprune.models import PatchDiscriminator
    from metaprune.train.randomness import isolated
    from metaprune.train.tasks.adversarial import Adversarial

    _refuse_labelled(look)
    for option, value in (("--val-images", cut.val_images), ("--test", cut.test), ("--workers", look.workers)):
        if value is not None:
            raise UsageError(f"{option}: pairs of pictures have none; leave it out")
    if unpaired and channels not in (None, 3):
        raise UsageError(f"--channels: without pairs, pictures of both kinds are RGB; leave it out, got {channels}")
    given = {"patch": cut.patch, "patches": cut.patches, "batch_size": batch_size, "val_share": look.val_share}
    named: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    enters = 3 if channels is None else channels
    pairs = load_pairs(data, paired=not unpaired, channels=(enters, 3), augment=look.augment, **named)
    for part, there in (("val", pairs.val), ("test", pairs.test)):
        if unpaired and there is not None and (few := min(len(there.first), len(there.second))) < 2:
            raise UsageError(
                f"--unpaired: sets of pictures are compared, which takes two or more of each kind to {part}, got "
                f"{few}; give more{', or a larger --val-share' if part == 'val' else ''}"
            )
    side = pairs.val.size
    builds = {"inputs": enters, "outputs": 3}
    without: dict[str, Any] = {}
    inputs = 1
    if unpaired:
        back, inputs = _way_back(model, builds)
        without = {"back": back, "features": "random"}
    with isolated():
        torch.manual_seed(0)  # the same when a run that was killed is started again
        judge = PatchDiscriminator(3 if unpaired else enters + 3, layers=3 if side >= 64 else 1)
    what = "pictures of the first kind" if unpaired else "pairs"
    return Ready(
        Adversarial(pairs.train, pairs.val, pairs.test, discriminator=judge, **without),
        f"{pairs.name} ({'unpaired' if unpaired else 'pairs'}, patches of {side})",
        (enters, side, side),
        timed=1,
        builds=builds,
        inputs=inputs,
        said=f"{pairs.pictures} {what} to train on; "
        + ", ".join(f"{name.removeprefix('data.')}: {value}" for name, value in pairs.train.settings.items()),
    )


def characters(
    data: str, batch_size: int | None, channels: int | None, cut: Cut, look: Look, *, ways: int, shots: int
) -> Ready:
    """Classes of which few examples are shown; a batch is of tasks."""
    from metaprune.cli.errors import UsageError
    from metaprune.data import load_characters
    from metaprune.train.tasks.few_shot import FewShot

    odd = {"mean": look.mean, "std": look.std, "workers": look.workers, **cut.given}
    if refused := [name for name, value in odd.items() if value is not None]:
        raise UsageError(f"--{refused[0].replace('_', '-')}: --task few-shot has none; leave it out")
    given = {"size": look.size, "channels": channels, "val_share": look.val_share}
    named: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    found = load_characters(data, **named)
    tasks: dict[str, Any] = {} if batch_size is None else {"tasks": batch_size}
    return Ready(
        FewShot(found, ways, shots, train_shots=max(10, shots), **tasks),
        f"{Path(data).name} ({ways}-way {shots}-shot)",
        tuple(found.train[0].shape[1:]),
        timed=ways * shots,
        builds={"classes": ways, "channels": found.train[0].shape[1]},
        said=repr(found).removeprefix("Characters(").removesuffix(")"),
    )


def _restoring(train: Any, val: Any, test: Any, scale: int | None, sigma: float | None) -> Task:
    from metaprune.train.tasks.restoration import Denoising, SuperResolution

    if scale is not None:
        return SuperResolution(train, val, test, scale=scale)
    assert sigma is not None
    return Denoising(train, val, test, sigma=sigma)


def _way_back(model: str, builds: dict[str, Any]) -> tuple[Any, int]:
    """Without pairs: "both" where the network itself leads both ways, and takes two pictures; else a second one."""
    import torch

    from metaprune.cli.inputs import taken_by
    from metaprune.cli.resolve import build
    from metaprune.train.randomness import isolated

    with isolated():
        torch.manual_seed(1)  # the same when a run that was killed is started again
        back = build(model, {"inputs": builds["outputs"], "outputs": builds["inputs"]})
    return ("both", 2) if taken_by(back) == 2 else (back, 1)


def _refuse_labelled(look: Look) -> None:
    """Refuse what belongs to images with labels.

    Raises:
        UsageError: some of it was given.
    """
    from metaprune.cli.errors import UsageError

    for option, value in (("--size", look.size), ("--mean", look.mean), ("--std", look.std)):
        if value is not None:
            raise UsageError(f"{option}: belongs to classification; images that are restored stay as they are")
