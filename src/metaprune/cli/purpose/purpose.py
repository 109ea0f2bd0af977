"""What a network is for, as the command line says it: the task, and what of it is not as usual."""

from __future__ import annotations

from dataclasses import dataclass, field

from metaprune.cli.purpose.look import Cut, Look
from metaprune.cli.purpose.reading import Ready, characters, labelled, restored, restored_to_test, translated
from metaprune.cli.purpose.task_name import TaskName

__all__ = ["Purpose"]


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
        if self.unpaired and not self.task.translates:
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
        return self.task.restores

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
            UsageError: options are given that belong to other tasks.
            DataError: there are no such data.
        """
        given = (data, batch_size, channels, cut, look)
        if self.task == TaskName.classification:
            return labelled(*given)
        if self.task == TaskName.translation:
            return translated(*given, unpaired=self.unpaired, model=self.model)
        if self.task == TaskName.few_shot:
            assert self.ways is not None
            assert self.shots is not None
            return characters(*given, ways=self.ways, shots=self.shots)
        return restored(*given, scale=self.scale, sigma=self.sigma)

    def load_test(self, data: str, batch_size: int | None, channels: int | None, look: Look) -> tuple[Ready, str]:
        """The data to measure on, and the name of their split."""
        if self.scale is not None or self.sigma is not None:
            ready = restored_to_test(data, channels, look, scale=self.scale, sigma=self.sigma)
            return ready, ready.label
        ready = self.load(data, batch_size, channels, Cut(), look)
        return ready, "val" if ready.task.test is None else "test"
