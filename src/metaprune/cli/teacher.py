"""A teacher on the command line: the dense network as it was, or another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from metaprune.cli.errors import UsageError
from metaprune.cli.resolve import find, network, task_of
from metaprune.cli.weights import give
from metaprune.saving import read_weights

__all__ = ["check_teacher", "teacher_of"]

DENSE = "dense"
"""What the network that is pruned is called as its own teacher."""


def check_teacher(teacher: str | None, weights: Path | None, share: float) -> None:
    """Refuse what does not belong together, before data are loaded.

    Raises:
        UsageError: There is no such network, or it would know nothing.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"--teacher-share: expected a share from 0 to 1, got {share:g}")
    if weights is not None and teacher in (None, DENSE):
        raise UsageError("--teacher-weights: belong to --teacher MODEL; the dense network has those of --weights")
    if teacher in (None, DENSE):
        return
    assert teacher is not None
    find(teacher)
    if weights is None and task_of(teacher) is not None:
        raise UsageError(f"--teacher: {teacher} knows nothing yet; give --teacher-weights, or --teacher dense")


def teacher_of(teacher: str | None, weights: Path | None, builds: dict[str, Any]) -> nn.Module | None:
    """The teacher, with its weights; None where the network that is pruned teaches itself, or nothing does.

    Raises:
        MetapruneError: The weights cannot be read, or belong to another network.
    """
    if teacher in (None, DENSE):
        return None
    assert teacher is not None
    net = network(teacher, **builds)
    if weights is not None:
        give(net, read_weights(weights)[0], weights, teacher)
    return net
