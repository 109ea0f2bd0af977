"""A network with what it is for: where those that teach take other inputs, or learn other things, than one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from metaprune.graph.errors import MetapruneError
from metaprune.train.task import Task

__all__ = ["Subject", "subjects"]


@dataclass(frozen=True)
class Subject:
    """A network that a metanetwork learns from or is chosen by.

    Attributes:
        model: The network.
        args: Its example inputs.
        task: What it is for.
        kwargs: Its example keyword inputs.
        points: What one unit of its metric counts where metrics of several tasks are added up.
    """

    model: nn.Module
    args: tuple[Any, ...]
    task: Task
    kwargs: Mapping[str, Any] | None = None
    points: float = 1.0


def subjects(
    models: Mapping[str, nn.Module | Subject],
    args: tuple[Any, ...] | None,
    task: Task | None,
    kwargs: Mapping[str, Any] | None,
) -> dict[str, Subject]:
    """Each with inputs and a task: its own, or those that all others share.

    Raises:
        MetapruneError: A network has none.
    """
    found = {}
    for name, model in models.items():
        if isinstance(model, Subject):
            found[name] = model
        elif args is None or task is None:
            raise MetapruneError(
                f"meta_train: expected args and a task for {name!r}, got none; give them for all, or a "
                "Subject(model, args, task) of its own"
            )
        else:
            found[name] = Subject(model, args, task, kwargs)
    return found
