"""What a network is for, as the command line says it: the task, its data, and the recipes that suit it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaprune.data.preprocessing import Preprocessing
    from metaprune.train.recipe import Recipe
    from metaprune.train.task import Task

__all__ = ["Cut", "Look", "Optimizer", "Purpose", "Ready", "Schedule", "TaskName", "label_of", "scheduled"]

SIDE = 128  # pixels of the image that is restored where MACs are counted and time is measured, as in papers


class TaskName(StrEnum):
    """Tasks."""

    classification = "classification"
    super_resolution = "super-resolution"
    denoising = "denoising"
    translation = "translation"
    few_shot = "few-shot"


class Optimizer(StrEnum):
    """Optimizers of a recipe."""

    sgd = "sgd"
    adamw = "adamw"


class Schedule(StrEnum):
    """Schedules of a recipe."""

    cosine = "cosine"
    linear = "linear"
    constant = "constant"
    steps = "steps"


def scheduled(schedule: Schedule | None, milestones: str | None, warmup: float | None, **fields: Any) -> dict[str, Any]:
    """The fields of a recipe that say how the learning rate rises and falls, and others, as far as they were given.

    Raises:
        UsageError: the milestones are no numbers.
    """
    from metaprune.cli.errors import UsageError

    fields = {name: value for name, value in fields.items() if value is not None}
    if schedule is not None:
        fields["schedule"] = schedule.value
    if milestones is not None:
        try:
            fields["milestones"] = tuple(float(word) for word in milestones.split(","))
        except ValueError as error:
            raise UsageError(f"--milestones: expected epochs like 5,8, got {milestones!r}") from error
    return fields | ({} if warmup is None else {"warmup": warmup})


RATES = {
    (False, Optimizer.sgd): (0.05, 5e-4),
    (False, Optimizer.adamw): (1e-3, 0.05),
    (True, Optimizer.adamw): (5e-4, 0.0),
    (True, Optimizer.sgd): (0.01, 0.0),
}
"""(Whether images are restored, optimizer) -> learning rate and weight decay; a dense network starts at twice it."""


TRANSLATING = 2e-4
"""The learning rate of generators and discriminators, as their papers have it; Adam's first beta is 0.5 then."""


REPTILE = {"lr": 1.0, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "schedule": "linear"}
"""How networks learn to learn: the rate is how far weights move to the mean of those that have adapted."""


@dataclass(frozen=True)
class Cut:
    """How training images are cut for restoration; None for what `load_images` takes by itself."""

    patch: int | None = None
    patches: int | None = None
    val_images: int | None = None
    test: Path | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What is not None, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Look:
    """How images come to a network; None for what `load` and `load_images` take by themselves."""

    size: int | None = None
    mean: str | None = None  # "data", "imagenet", or numbers with commas
    std: str | None = None
    augment: bool = True
    val_share: float | None = None
    workers: int | None = None

    @property
    def chosen(self) -> bool:
        """Whether the normalisation was."""
        return self.mean is not None or self.std is not None

    def filled(self, settings: dict[str, str], *, same: bool) -> Look:
        """What was not chosen, as a network was pruned with it (the settings of its report); `same`: on these data."""
        known = {name: settings.get(f"data.{name}") for name in ("size", "mean", "std")}
        size = known["size"] if (known["size"] or "").isdecimal() else None
        if self.chosen or known["mean"] is None or known["std"] is None:
            known["mean"] = known["std"] = None
        share = (settings.get("data.val") or "").removesuffix(" of the training split")
        return replace(
            self,
            val_share=float(share) if same and self.val_share is None and _is_share(share) else self.val_share,
            size=int(size) if self.size is None and size else self.size,
            mean=known["mean"] or self.mean,
            std=known["std"] or self.std,
        )

    @property
    def labelled(self) -> dict[str, Any]:
        """For `load`."""
        return {
            "size": self.size,
            "mean": _statistic("--mean", self.mean),
            "std": _statistic("--std", self.std),
            **self.restoring,
        }

    @property
    def restoring(self) -> dict[str, Any]:
        """For `load_images`."""
        return {"augment": self.augment, "val_share": self.val_share, "workers": self.workers}


def label_of(data: str) -> str:
    """What data are called in reports."""
    return Path(data).name if Path(data).exists() else data


def _is_share(words: str) -> bool:
    """Whether it is a number in (0, 1), as `load` writes it."""
    try:
        return 0 < float(words) < 1
    except ValueError:
        return False


def _statistic(option: str, words: str | None) -> Any:
    """Words that `load` knows, or numbers."""
    from metaprune.cli.errors import UsageError

    if words in (None, "data", "imagenet"):
        return words
    assert words is not None
    try:
        return [float(word) for word in words.split(",")]
    except ValueError as error:
        raise UsageError(f"{option}: expected data, imagenet or numbers, as 0.4,0.5,0.6, got {words!r}") from error


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


@dataclass(frozen=True)
class Purpose:
    """A task, how strongly its images are degraded, whether they come in pairs, and how few examples there are."""

    task: TaskName
    scale: int | None = None
    sigma: float | None = None
    unpaired: bool = False
    ways: int | None = None
    shots: int | None = None
    model: str = field(default="", compare=False)  # as named; without pairs, another one leads back

    def __post_init__(self) -> None:
        """Refuse what does not belong together.

        Raises:
            UsageError: a degradation that the task needs is missing, or one that it does not know is given.
        """
        from metaprune.cli.errors import UsageError

        for option, value, owner in (
            ("--scale", self.scale, TaskName.super_resolution),
            ("--sigma", self.sigma, TaskName.denoising),
        ):
            if (value is None) == (self.task == owner):
                raise UsageError(
                    f"{option}: needed for --task {owner}"
                    if value is None
                    else f"{option}: --task {self.task} has none; it belongs to --task {owner}"
                )
        if self.unpaired and not self.translates:
            raise UsageError(f"--unpaired: belongs to --task {TaskName.translation}, got --task {self.task}")
        for option, value in (("--ways", self.ways), ("--shots", self.shots)):
            if value is not None and self.task != TaskName.few_shot:
                raise UsageError(f"{option}: belongs to --task {TaskName.few_shot}, got --task {self.task}")

    @classmethod
    def of(
        cls,
        model: str,
        task: TaskName | None,
        scale: int | None,
        sigma: float | None,
        settings: dict[str, str],
        unpaired: bool = False,
        ways: int | None = None,
        shots: int | None = None,
    ) -> Purpose:
        """As given; else as it was pruned for (`settings` of its report); else what the built-in network is for.

        Raises:
            UsageError: the degradation is not known, or a built-in network is for another task.
        """
        from metaprune.cli.resolve import UsageError, task_of

        own = task_of(model)
        if task == TaskName.few_shot and own == TaskName.classification:
            own = None  # they tell classes apart all the same
        if task is not None and own not in (None, task):
            raise UsageError(
                f"--task: network {model!r} is for {own}, not for {task}; leave it out, or name another network"
            )
        task = task or TaskName(settings.get("task") or own or TaskName.classification)
        if scale is None and task == TaskName.super_resolution and "scale" in settings:
            scale = int(settings["scale"])
        if sigma is None and task == TaskName.denoising and "sigma" in settings:
            sigma = float(settings["sigma"])
        unpaired = unpaired or (task == TaskName.translation and settings.get("unpaired") == "true")
        if task == TaskName.few_shot:
            ways = int(settings.get("ways", 5)) if ways is None else ways
            shots = int(settings.get("shots", 1)) if shots is None else shots
        return cls(task, scale, sigma, unpaired, ways, shots, model)

    @property
    def restores(self) -> bool:
        """Whether the outputs are images."""
        return self.task not in (TaskName.classification, TaskName.few_shot)

    @property
    def translates(self) -> bool:
        """Whether pictures are of two kinds, and a discriminator trains beside the network."""
        return self.task == TaskName.translation

    @property
    def settings(self) -> dict[str, str]:
        """What a report must remember."""
        unpaired = "true" if self.unpaired else None
        known = {"task": self.task.value, "scale": self.scale, "sigma": self.sigma, "unpaired": unpaired}
        known |= {"ways": self.ways, "shots": self.shots}
        return {name: str(value) for name, value in known.items() if value is not None}

    def load(self, data: str, batch_size: int | None, channels: int | None, cut: Cut, look: Look) -> Ready:
        """The data, as batches to train and to measure on.

        Raises:
            UsageError: options of restoration are given for classification.
            DataError: there are no such data.
        """
        if (read := self._reader) is not None:
            return read(data, batch_size, channels, cut, look)
        from metaprune.data import load_images

        _refuse_labelled(look)
        given = cut.given | look.restoring | ({} if batch_size is None else {"batch_size": batch_size})
        images = load_images(data, scale=self.scale, sigma=self.sigma, channels=channels, **given)
        scale = self.scale or 1
        strength = f"σ = {self.sigma:g}" if self.scale is None else f"×{self.scale}"
        tested = f"; tested on {cut.test.name}" if cut.test else ""
        return Ready(
            self._task(images.train, images.val, images.test),
            f"{images.name} ({strength}, patches of {images.train.size * scale}{tested})",
            (images.channels, SIDE, SIDE),
            timed=1,
            builds={"channels": images.channels, "scale": self.scale},
            said=f"{len(images.train.source)} training and {len(images.val)} validation images; "
            + ", ".join(f"{name.removeprefix('data.')}: {value}" for name, value in images.train.settings.items()),
        )

    @property
    def _reader(self) -> Callable[[str, int | None, int | None, Cut, Look], Ready] | None:
        """Who reads the data; None for restoration."""
        readers = {
            TaskName.classification: _classified,
            TaskName.translation: self._translated,
            TaskName.few_shot: self._few_shot,
        }
        return readers.get(self.task)

    def load_test(self, data: str, batch_size: int | None, channels: int | None, look: Look) -> tuple[Ready, str]:
        """The data to measure on, and the name of their split."""
        if (read := self._reader) is not None:
            ready = read(data, batch_size, channels, Cut(), look)
            return ready, "val" if ready.task.test is None else "test"
        from metaprune.data import load_test_images

        _refuse_labelled(look)
        images = load_test_images(data, scale=self.scale, sigma=self.sigma, channels=channels)
        channels = next(iter(images))[0].shape[1]
        builds = {"channels": channels, "scale": self.scale}
        name = Path(data).name
        return Ready(self._task(images, images, images), name, (channels, SIDE, SIDE), timed=1, builds=builds), name

    def recipes(
        self,
        epochs: int,
        dense_epochs: int,
        optimizer: Optimizer | None,
        lr: float | None,
        weight_decay: float | None = None,
        *,
        after: dict[str, Any] | None = None,
        **fields: Any,
    ) -> tuple[Recipe, Recipe]:
        """How to train the dense network, and how to search and fine-tune after it (`after` is for that alone)."""
        from metaprune.train.recipe import Recipe

        optimizer = optimizer or (Optimizer.adamw if self.restores else Optimizer.sgd)
        usual, decay = RATES[self.restores, optimizer]
        common = {
            "optimizer": optimizer.value,
            "weight_decay": decay if weight_decay is None else weight_decay,
        } | fields
        if self.translates and optimizer == Optimizer.adamw:
            usual, common = TRANSLATING, {"momentum": 0.5, "schedule": "linear"} | common
        if self.task == TaskName.few_shot and common.get("precision") == "auto":
            common["precision"] = "32-true"  # a step of Reptile is a difference of weights
        if self.task == TaskName.few_shot and optimizer == Optimizer.sgd:
            given = {} if weight_decay is None else {"weight_decay": weight_decay}
            common = common | REPTILE | given
            tuned = Recipe(epochs, **common | ({} if lr is None else {"lr": lr}) | (after or {}))
            return Recipe(dense_epochs, **common), tuned
        tuned = Recipe(epochs, lr=usual if lr is None else lr, **common, **(after or {}))
        return Recipe(dense_epochs, lr=2 * usual, warmup=min(1.0, dense_epochs / 2), **common), tuned

    def _translated(self, data: str, batch_size: int | None, channels: int | None, cut: Cut, look: Look) -> Ready:
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
        if self.unpaired and channels not in (None, 3):
            raise UsageError(f"--channels: without pairs, pictures of both kinds are RGB; leave it out, got {channels}")
        given = {"patch": cut.patch, "patches": cut.patches, "batch_size": batch_size, "val_share": look.val_share}
        named: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        enters = 3 if channels is None else channels
        pairs = load_pairs(data, paired=not self.unpaired, channels=(enters, 3), augment=look.augment, **named)
        for part, there in (("val", pairs.val), ("test", pairs.test)):
            if self.unpaired and there is not None and (few := min(len(there.first), len(there.second))) < 2:
                raise UsageError(
                    f"--unpaired: sets of pictures are compared, which takes two or more of each kind to {part}, got "
                    f"{few}; give more{', or a larger --val-share' if part == 'val' else ''}"
                )
        side = pairs.val.size
        builds = {"inputs": enters, "outputs": 3}
        without: dict[str, Any] = {}
        inputs = 1
        if self.unpaired:
            back, inputs = _way_back(self.model, builds)
            without = {"back": back, "features": "random"}
        with isolated():
            torch.manual_seed(0)  # the same when a run that was killed is started again
            judge = PatchDiscriminator(3 if self.unpaired else enters + 3, layers=3 if side >= 64 else 1)
        what = "pictures of the first kind" if self.unpaired else "pairs"
        return Ready(
            Adversarial(pairs.train, pairs.val, pairs.test, discriminator=judge, **without),
            f"{pairs.name} ({'unpaired' if self.unpaired else 'pairs'}, patches of {side})",
            (enters, side, side),
            timed=1,
            builds=builds,
            inputs=inputs,
            said=f"{pairs.pictures} {what} to train on; "
            + ", ".join(f"{name.removeprefix('data.')}: {value}" for name, value in pairs.train.settings.items()),
        )

    def _few_shot(self, data: str, batch_size: int | None, channels: int | None, cut: Cut, look: Look) -> Ready:
        """Classes of which few examples are shown; a batch is of tasks."""
        from metaprune.cli.errors import UsageError
        from metaprune.data import load_characters
        from metaprune.train.tasks.few_shot import FewShot

        odd = {"mean": look.mean, "std": look.std, "workers": look.workers, **cut.given}
        if refused := [name for name, value in odd.items() if value is not None]:
            raise UsageError(f"--{refused[0].replace('_', '-')}: --task {self.task} has none; leave it out")
        given = {"size": look.size, "channels": channels, "val_share": look.val_share}
        named: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        characters = load_characters(data, **named)
        assert self.ways is not None
        assert self.shots is not None
        tasks: dict[str, Any] = {} if batch_size is None else {"tasks": batch_size}
        return Ready(
            FewShot(characters, self.ways, self.shots, train_shots=max(10, self.shots), **tasks),
            f"{Path(data).name} ({self.ways}-way {self.shots}-shot)",
            tuple(characters.train[0].shape[1:]),
            timed=self.ways * self.shots,
            builds={"classes": self.ways, "channels": characters.train[0].shape[1]},
            said=repr(characters).removeprefix("Characters(").removesuffix(")"),
        )

    def _task(self, train: Any, val: Any, test: Any) -> Task:
        from metaprune.train.tasks.restoration import Denoising, SuperResolution

        if self.scale is not None:
            return SuperResolution(train, val, test, scale=self.scale)
        assert self.sigma is not None
        return Denoising(train, val, test, sigma=self.sigma)


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


def _classified(data: str, batch_size: int | None, channels: int | None, cut: Cut, look: Look) -> Ready:
    """Images with labels."""
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
