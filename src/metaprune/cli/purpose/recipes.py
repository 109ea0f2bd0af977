"""The recipes that suit a task, as far as a user says nothing else."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from metaprune.cli.purpose.task_name import TaskName

if TYPE_CHECKING:
    from metaprune.train.recipe import Recipe

__all__ = ["Optimizer", "Schedule", "recipes", "scheduled"]


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


def recipes(
    task: TaskName,
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

    optimizer = optimizer or (Optimizer.adamw if task.restores else Optimizer.sgd)
    usual, decay = RATES[task.restores, optimizer]
    common = {
        "optimizer": optimizer.value,
        "weight_decay": decay if weight_decay is None else weight_decay,
    } | fields
    if task.translates and optimizer == Optimizer.adamw:
        usual, common = TRANSLATING, {"momentum": 0.5, "schedule": "linear"} | common
    if task == TaskName.few_shot and common.get("precision") == "auto":
        common["precision"] = "32-true"  # a step of Reptile is a difference of weights
    if task == TaskName.few_shot and optimizer == Optimizer.sgd:
        given = {} if weight_decay is None else {"weight_decay": weight_decay}
        common = common | REPTILE | given
        tuned = Recipe(epochs, **common | ({} if lr is None else {"lr": lr}) | (after or {}))
        return Recipe(dense_epochs, **common), tuned
    tuned = Recipe(epochs, lr=usual if lr is None else lr, **common, **(after or {}))
    return Recipe(dense_epochs, lr=2 * usual, warmup=min(1.0, dense_epochs / 2), **common), tuned
