"""A metric over a whole set of batches: a mean over examples, or what an object makes of all of them together."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from metaprune.graph.arguments import brief, is_number
from metaprune.train.checks import TrainError, blaming, mean, metric_of
from metaprune.train.processes import Group, now
from metaprune.train.task import Batch, Metric, Task, TaskError, Whole, on

__all__ = ["Measure", "begin"]


class Measure(Protocol):
    """A metric that is being taken."""

    def add(self, output: Any, batch: Batch, *, divided: bool = False) -> None:
        """One more batch; `divided`: of those that processes share, until they `gather`."""

    def gather(self, group: Group) -> None:
        """Count what the other processes were given, too; each then has the same value."""

    def value(self) -> float:
        """Of all of them; asked once."""


def begin(task: Task, metric: Metric, name: str, what: str) -> Measure:
    """Begin to take a metric of a task: `task.metric`, or one of `task.further`.

    Args:
        task: Says what the metrics compare.
        metric: A function, whose mean over examples counts, or an object with `update` and `compute`, which is copied.
        name: Of the metric.
        what: Who measures, for errors.
    """
    return _Computed(task, metric, name, what) if isinstance(metric, Whole) else _Mean(task, metric, name, what)


class _Mean:
    """A sum over examples, and their number."""

    def __init__(self, task: Task, metric: Callable[[Any, Batch], Any], name: str, what: str) -> None:
        self.metric, self.name, self.what = metric, name, what
        self.total: float | Tensor = 0.0
        self.examples = 0

    def add(self, output: Any, batch: Batch, *, divided: bool = False) -> None:
        value, count = metric_of(output, batch, self.metric, self.what)
        self.total, self.examples = self.total + value, self.examples + count

    def gather(self, group: Group) -> None:
        both = group.total(torch.tensor([float(self.total), self.examples], dtype=torch.float64))
        self.total, self.examples = float(both[0]), int(both[1])

    def value(self) -> float:
        return mean(self.total, self.examples, self.name, "evaluate: the data")


class _Computed:
    """An object that is updated with each batch and computes in the end, such as a metric of torchmetrics."""

    def __init__(self, task: Task, metric: Whole, name: str, what: str) -> None:
        self.task, self.name, self.what = task, name, what
        with blaming(f"{what}: a copy of the metric"):
            self.metric: Any = copy.deepcopy(metric)
            if hasattr(self.metric, "reset"):
                self.metric.reset()
        self.placed = not isinstance(self.metric, nn.Module)
        self.held: list[Any] = []  # what this process was given, until all have it
        if now().size > 1:
            self._asks(False)

    def add(self, output: Any, batch: Batch, *, divided: bool = False) -> None:
        with blaming(f"{self.what}: the metric's update"):
            given = self.task.judged(output, batch)
            if not isinstance(given, tuple | list):
                raise TaskError(
                    f"{self.what}: expected judged to give what the metric's update takes, as (predictions, targets), "
                    f"got {brief(given)}"
                )
            if divided and not hasattr(self.metric, "sync_context"):
                self.held.append(on(torch.device("cpu"), tuple(given)))
            else:
                self._update(given)

    def _update(self, given: Any) -> None:
        if not self.placed:
            self.metric.to(next((leaf.device for leaf in _tensors(given)), torch.device("cpu")))
            self.placed = True
        self.metric.update(*given)

    def gather(self, group: Group) -> None:
        with blaming(f"{self.what}: the metric over {group.size} processes"):
            if hasattr(self.metric, "sync_context"):  # torchmetrics' own know how their states add up
                if not self.placed:
                    self.metric.to(group.device)
                self._asks(True)
                return
            every = group.gathered(self.held)
            for turn in itertools.zip_longest(*every):  # as one process would have been given them
                for given in turn:
                    if given is not None:
                        self._update(on(group.device, given))

    def _asks(self, others: bool) -> None:
        """Whether torchmetrics' own ask the other processes when they compute: not where each has all data."""
        for part in self.metric.modules() if isinstance(self.metric, nn.Module) else ():
            if hasattr(part, "distributed_available_fn"):
                vars(part)["distributed_available_fn"] = lambda: others

    def value(self) -> float:
        with blaming(f"{self.what}: the metric's compute"):
            found = self.metric.compute()
        if isinstance(found, Mapping):
            found = self._chosen(found)
        if not is_number(found) and not (isinstance(found, Tensor | np.ndarray) and math.prod(found.shape) == 1):
            raise TaskError(
                f"{self.what}: expected the metric to compute one number, got {_words(found)}; average it, as "
                "average='macro' does"
            )
        value = float(found)
        if not math.isfinite(value):
            raise TrainError(f"{self.what}: {self.name} is {value}; a metric must be finite: has it seen every class?")
        return value

    def _chosen(self, found: Mapping[str, Any]) -> Any:
        """Of several, the one that the name says, or the first."""
        title = self.name.partition("(")[0].strip()
        if not found:
            raise TaskError(f"{self.what}: expected the metric to compute a number, got an empty dictionary")
        return found[title] if title in found else next(iter(found.values()))


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _words(found: Any) -> str:
    return f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else brief(found)
