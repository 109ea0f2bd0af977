"""All metrics of a task in one pass: the one that chooses and those beside it; also of the inputs, and of one batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from metaprune.graph.errors import MetapruneError
from metaprune.train.checks import counted, length
from metaprune.train.engine import in_processes, measured
from metaprune.train.measure import Measure, begin
from metaprune.train.recipe import Recipe
from metaprune.train.task import Batch, Loader, Task

__all__ = ["Scores", "scores", "scores_of_few", "scores_of_outputs"]


@dataclass(frozen=True)
class Scores:
    """Over all examples."""

    metric: float
    further: dict[str, float]  # by name


@in_processes
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
    first, *others = measures = _measures(task)
    measured(model, batches, task, recipe, measures, look)
    return _read(task, first, others)


def scores_of_outputs(outputs: Callable[[Batch], Any], batches: Loader, task: Task) -> Scores:
    """All metrics of outputs that a function makes from each batch, without a network.

    Raises:
        TrainError: there are no examples.
    """
    first, *others = measures = _measures(task)
    for batch in counted(batches, length(batches, "evaluate: the data"), "evaluate: the data"):
        output = outputs(batch)
        for measure in measures:
            measure.add(output, batch)
    return _read(task, first, others)


def scores_of_few(output: Any, batch: Batch, task: Task) -> dict[str, float]:
    """What the metrics say of one batch, by name; what only more examples have is left out.

    A distance between sets of pictures has no value for one of them, nor has the PSNR of a picture that is right.

    Args:
        output: Of a network, on the device of the batch.
        batch: Of a few examples, or of one.
        task: The metrics.
    """
    found = {}
    for name, metric in {task.metric_name: task.metric, **task.further}.items():
        try:
            measure = begin(task, metric, name, f"evaluate: {name}")
            measure.add(output, batch)
            found[name] = measure.value()
        except MetapruneError:
            continue
    return found


def _measures(task: Task) -> list[Measure]:
    further = [begin(task, metric, name, f"evaluate: {name}") for name, metric in task.further.items()]
    return [begin(task, task.metric, task.metric_name, "evaluate"), *further]


def _read(task: Task, first: Measure, others: list[Measure]) -> Scores:
    return Scores(first.value(), {name: measure.value() for name, measure in zip(task.further, others, strict=True)})
