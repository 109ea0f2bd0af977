"""All metrics of a task in one pass: the one that chooses and those beside it; also of the inputs as they come."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from metaprune.train.checks import counted, length, mean, metric_of
from metaprune.train.engine import evaluate
from metaprune.train.recipe import Recipe
from metaprune.train.task import Batch, Loader, Task

__all__ = ["Scores", "scores", "scores_of_outputs"]


@dataclass(frozen=True)
class Scores:
    """Means over all examples."""

    metric: float
    further: dict[str, float]  # by name


def scores(
    model: nn.Module,
    batches: Loader,
    task: Task,
    recipe: Recipe,
    *,
    look: Callable[[Any], object] | None = None,
) -> Scores:
    """What `evaluate` measures, and the further metrics.

    Args:
        model: the network; given back as it was.
        batches: what to measure on.
        task: the metrics.
        recipe: the device and the precision.
        look: called with each output, on the device.

    Raises:
        TrainError: there are no batches.
    """
    beside = _Further(task)

    def metric(output: Any, batch: Batch) -> tuple[float | Tensor, int]:
        if look:
            look(output)
        return beside.metric(output, batch)

    return Scores(evaluate(model, batches, replace(task, metric=metric), recipe), beside.means)


def scores_of_outputs(outputs: Callable[[Batch], Any], batches: Loader, task: Task) -> Scores:
    """All metrics of outputs that a function makes from each batch, without a network.

    Raises:
        TrainError: there are no examples.
    """
    beside, total, examples = _Further(task), 0.0, 0
    for batch in counted(batches, length(batches, "evaluate: the data"), "evaluate: the data"):
        value, count = metric_of(outputs(batch), batch, replace(task, metric=beside.metric), "evaluate")
        total, examples = total + float(value), examples + count
    return Scores(mean(total, examples, task.metric_name, "evaluate: the data"), beside.means)


class _Further:
    """The sums of a task's further metrics, taken in the same pass as its metric."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.sums: dict[str, tuple[float, int]] = dict.fromkeys(task.further, (0.0, 0))

    def metric(self, output: Any, batch: Batch) -> tuple[float | Tensor, int]:
        """The task's metric of a batch; the others are added up."""
        for name, (total, examples) in self.sums.items():
            further = replace(self.task, metric=self.task.further[name])
            value, count = metric_of(output, batch, further, f"evaluate: {name}")
            self.sums[name] = (total + float(value), examples + count)
        return self.task.metric(output, batch)

    @property
    def means(self) -> dict[str, float]:
        """The mean of each over all examples so far."""
        return {name: mean(*sums, name, "evaluate: the data") for name, sums in self.sums.items()}
