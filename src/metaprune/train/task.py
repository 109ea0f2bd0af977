"""What a network is for: its data, its loss, and the metric that people care about."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from metaprune.graph.arguments import is_number
from metaprune.graph.errors import MetapruneError
from metaprune.graph.tensors import clone
from metaprune.train.partners import NETWORK, Partner

__all__ = [
    "Batch",
    "Classification",
    "First",
    "Loader",
    "Metric",
    "Pictures",
    "Task",
    "TaskError",
    "averaged",
    "check_temperature",
    "class_weights",
    "kind_of",
    "on",
    "settings_of",
    "spoiled",
]

Batch = Any
Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # args and kwargs


@runtime_checkable
class Whole(Protocol):
    """A metric over a whole set, where no mean over examples will do: F1, mean IoU; torchmetrics' are of this kind."""

    def update(self, *judged: Any) -> Any:
        """One more batch: what `Task.judged` makes of the network's output and the batch."""

    def compute(self) -> Any:
        """Of all that were added: one number, or a dictionary with it (by its name, or first)."""


Metric = Callable[[Any, Batch], tuple[float | Tensor, int]] | Whole
"""(output of the network, batch) -> the sum over the examples, and their number; or a metric over the whole set."""


class TaskError(MetapruneError):
    """A batch and the output of a network that do not fit each other."""


class Loader(Protocol):
    """Batches that can be gone through again and again, such as a `DataLoader`."""

    def __iter__(self) -> Iterator[Batch]:
        """Begin another pass."""

    def __len__(self) -> int:
        """The number of batches in a pass."""


def settings_of(loader: Loader) -> dict[str, str]:
    """What a loader says it does to its data, in `settings`; nothing where it does not say."""
    said = getattr(loader, "settings", {})
    return {str(name): str(value) for name, value in said.items()} if isinstance(said, Mapping) else {}


def averaged(task: Task) -> dict[str, str]:
    """What a task says of a moving average of the weights, in `settings`; nothing where it asks for none."""
    return {} if task.average is None else {"average": f"{task.average:g}"}


@dataclass(frozen=True)
class First:
    """The first batches of a loader."""

    loader: Loader
    most: int

    def __iter__(self) -> Iterator[Batch]:
        """Begin another pass."""
        return itertools.islice(iter(self.loader), self.most)

    def __len__(self) -> int:
        """The number of batches in a pass."""
        return min(self.most, len(self.loader))


def first(batch: Batch) -> Arguments:
    """The first element of a batch, or the batch if it is one tensor, as the only argument of the network.

    Raises:
        TaskError: the batch has no first element, such as a dictionary.
    """
    if isinstance(batch, Tensor):
        return (batch,), {}
    if isinstance(batch, Mapping):
        key = next(iter(batch), "x")
        raise TaskError(
            f"task: expected batches as tuples, whose first element the network takes, got a {type(batch).__name__} "
            f"with {', '.join(map(repr, batch)) or 'no keys'}; say what it takes: Task(…, inputs=lambda batch: "
            f"((batch[{key!r}],), {{}}))"
        )
    if not isinstance(batch, Sequence) or isinstance(batch, str) or not len(batch):
        raise TaskError(
            f"task: expected batches as tuples, whose first element the network takes, got {kind_of(batch)}; say what "
            "it takes: Task(…, inputs=lambda batch: ((batch.images,), {}))"
        )
    return (batch[0],), {}


def second(output: Any, batch: Batch) -> tuple[Any, ...]:
    """The output and the second element of a batch: what most metrics compare.

    Raises:
        TaskError: the batch has no second element.
    """
    if not isinstance(batch, Sequence) or len(batch) < 2:
        raise TaskError(
            f"task: expected batches (inputs, targets) for the metric, got {kind_of(batch)}; say what it compares: "
            "Task(…, judged=lambda output, batch: (output, batch['labels']))"
        )
    return output, batch[1]


def kind_of(thing: Any) -> str:
    """What a thing is, in words."""
    if isinstance(thing, Sequence) and not isinstance(thing, str) and not len(thing):
        return f"an empty {type(thing).__name__}"
    return "None" if thing is None else f"a {type(thing).__name__}"


def on(device: torch.device | None, batch: Batch) -> Batch:
    """A batch with its tensors on a device; as it is where there is none."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), batch)


def whole_output(output: Any) -> Any:
    """The output itself."""
    return output


@dataclass(frozen=True)
class Pictures:
    """What reports show of a task whose outputs are pictures: (N, C, H, W) in [0, 1], grey or RGB."""

    floor_name: str  # such as "bicubic"
    floor: Callable[[Batch], Tensor]  # batch -> what stands for the output where there is no network
    truth: Callable[[Batch], Tensor] | None  # batch -> what the output should be; None where nobody knows
    made: Callable[[Any], Tensor] = whole_output  # output of the network -> the pictures in it
    way: str = ""  # what is made of what, where a network makes several
    other: Pictures | None = None  # the other way


@dataclass(frozen=True)
class Task:
    """What the network is for: data, loss, metric.

    Attributes:
        train: Batches to learn from.
        val: Batches to choose by, held out of the training set.
        test: Batches that choose nothing and are reported; None where there are none.
        loss: (output of the network, batch) -> a scalar. Where a network computes its losses itself, in training mode
            alone, they are that output.
        metric: (output, batch) -> the sum over the examples, and their number; or a metric over the whole set, any of
            torchmetrics' or an object with `update` and `compute`, of which copies are used. It chooses.
        metric_name: With its unit in brackets, if it has one: "accuracy (%)". By default the class of such an object.
        higher_is_better: Whether more of the metric is better.
        judged: (output, batch) -> the arguments of `update` of such metrics; by default the output and the second
            element of the batch.
        inputs: Batch -> positional and keyword arguments of the network; by default the first element of the batch.
        distance: (output, output of a teacher) -> a scalar, for `mp.distil`.
        further: Metrics that choose nothing and are reported, by name.
        pictures: What to show, where outputs are pictures.
        settings: What runs and reports must know of the task, by name.
        step: (training, batch) -> a scalar that the network learns from, in place of the loss of its output: see
            `Training` for what it may use. What it trains beside the network are `partners`; modules that it merely
            closes over are not trained, nor kept.
        predict: (network, batch) -> what is measured, in place of the network's output on the inputs: tiling, sampling,
            adaptation (which works on a copy, and turns gradients on by itself).
        partners: Modules that train beside the network, by name.
        alone: Why several processes cannot train it together, by dividing the rows of batches; empty where they can.
        average: The decay of a moving average of the network's weights, inside (0, 1): what is measured after each
            epoch, and kept at the end. It begins anew with each training, so in a fine-tuning with the cut network;
            while something else changes the network after steps, a search or zeros that stay, none is taken. None for
            the weights themselves.
    """

    train: Loader
    val: Loader
    test: Loader | None
    loss: Callable[[Any, Batch], Tensor]
    metric: Metric
    metric_name: str = ""
    higher_is_better: bool = True
    inputs: Callable[[Batch], Arguments] = first
    distance: Callable[[Any, Any], Tensor] | None = None
    further: Mapping[str, Metric] = field(default_factory=dict)
    pictures: Pictures | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    step: Callable[[Any, Batch], Tensor] | None = None
    predict: Callable[[nn.Module, Batch], Any] | None = None
    partners: Mapping[str, Partner] = field(default_factory=dict)
    judged: Callable[[Any, Batch], tuple[Any, ...]] = second
    alone: str = ""
    average: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be gone through or called.

        Raises:
            TaskError: batches that are none, a loss or a metric that cannot be called, a partner that is none.
        """
        for part in ("train", "val", "test"):
            loader = getattr(self, part)
            if not (hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")) or isinstance(loader, str | Tensor):
                if part == "test" and loader is None:
                    continue
                raise TaskError(
                    f"task: expected {part} as batches to go through, such as a DataLoader, got {kind_of(loader)}"
                )
        for name in ("loss", "metric", "inputs", "judged", "distance", "step", "predict"):
            function = getattr(self, name)
            optional = function is None and name in ("distance", "step", "predict")
            if not (callable(function) or optional or (name == "metric" and isinstance(function, Whole))):
                raise TaskError(f"task: expected {name} as a function, got {kind_of(function)}")
        if self.average is not None and not (is_number(self.average) and 0 < self.average < 1):
            raise TaskError(f"task: expected average as a decay inside (0, 1), such as 0.999, got {self.average!r}")
        for metric in (self.metric, *self.further.values()):
            if isinstance(metric, type):
                raise TaskError(
                    f"task: expected a metric, got the class {metric.__name__}; make one: {metric.__name__}(…)"
                )
        if isinstance(self.metric, Whole):
            better = getattr(self.metric, "higher_is_better", None)
            if isinstance(better, bool) and better != self.higher_is_better:
                raise TaskError(
                    f"task: {type(self.metric).__name__} says that {'more' if better else 'less'} of it is better, and "
                    f"the task the opposite; give higher_is_better={better}"
                )
        if self.metric_name == "":
            named = type(self.metric).__name__ if isinstance(self.metric, Whole) else "metric"
            object.__setattr__(self, "metric_name", named)
        if not isinstance(self.metric_name, str):
            raise TaskError(f"task: expected metric_name as words, got {kind_of(self.metric_name)}")
        for name, partner in self.partners.items() if isinstance(self.partners, Mapping) else [("", self.partners)]:
            if not isinstance(partner, Partner) or not isinstance(name, str) or name in ("", NETWORK):
                raise TaskError(
                    "task: expected partners by name, as {'head': mp.Partner(module)}, none of them called "
                    f"'{NETWORK}', got {name!r}: {kind_of(partner)}"
                )

    def cloned(self) -> Task:
        """The same task with copies of its partners, for what trains beside a network that is a copy itself."""
        if not self.partners:
            return self
        copies = {name: replace(partner, module=clone(partner.module)) for name, partner in self.partners.items()}
        return replace(self, partners=copies)


def Classification(
    train: Loader,
    val: Loader,
    test: Loader | None = None,
    *,
    weight: Tensor | Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    temperature: float = 4.0,
    metric: Metric | None = None,
    metric_name: str = "",
) -> Task:
    """The task of telling classes apart: cross-entropy, and top-1 accuracy in percent.

    Batches are `(images, labels)`: whatever the network takes, and whole numbers (N,) inside [0, classes).
    The output of the network is (N, classes) logits.

    Args:
        train: batches to learn from.
        val: batches to choose by, held out of the training set.
        test: batches to report.
        weight: how much each class counts in the loss, (classes,); by default all alike.
        label_smoothing: the share of each target that is spread over all classes.
        temperature: T, how soft a teacher's answers are made where one is imitated (`distil`).
        metric: in place of accuracy, such as `torchmetrics.classification.MulticlassF1Score(10)`; see `Task.metric`.
        metric_name: of that one.

    Raises:
        TaskError: weights, a smoothing or a temperature out of range.
    """
    weights = None if weight is None else class_weights(weight)
    if not (is_number(label_smoothing) and 0 <= label_smoothing < 1):
        raise TaskError(f"classification: expected label_smoothing inside [0, 1), got {label_smoothing!r}")
    check_temperature(temperature, "classification")
    return Task(
        train,
        val,
        test,
        loss=partial(_cross_entropy, label_smoothing=label_smoothing, weight=weights),
        metric=_accuracy if metric is None else metric,
        metric_name="accuracy (%)" if metric is None else metric_name,
        distance=partial(soft_divergence, temperature=temperature),
        settings={} if weights is None else {"task.weight": ", ".join(f"{each:g}" for each in weights.tolist())},
    )


def check_temperature(given: object, who: str) -> None:
    """Refuse what answers cannot be softened by.

    Raises:
        TaskError: it is no number above 0.
    """
    if not (is_number(given) and 0 < given < math.inf):  # type: ignore[operator]
        raise TaskError(f"{who}: expected a temperature above 0, got {given!r}")


def class_weights(given: Tensor | Sequence[float], who: str = "classification") -> Tensor:
    """How much each class counts, as a tensor of its own.

    Raises:
        TaskError: they are none.
    """
    try:
        weights = torch.as_tensor(given, dtype=torch.float32).detach().cpu().clone()
    except (TypeError, ValueError, RuntimeError):
        weights = torch.empty(0)
    if weights.dim() != 1 or not len(weights) or not bool((weights >= 0).all() and weights.isfinite().all()):
        raise TaskError(f"{who}: expected weight as numbers from 0, one for each class, got {given!r:.60}")
    return weights


def _cross_entropy(logits: Tensor, batch: Batch, label_smoothing: float, weight: Tensor | None) -> Tensor:
    labels = _labels(logits, batch)
    if labels.device.type != "cpu":
        wrong = (labels < 0) | (labels >= logits.shape[1])
        labels = labels.masked_fill(wrong, 0)
    if weight is None:
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        return loss if labels.device.type == "cpu" else spoiled(loss, wrong)
    if len(weight) != logits.shape[1]:
        raise TaskError(
            f"classification: expected a weight for each class, got {len(weight)} for {logits.shape[1]} outputs"
        )
    loss = F.cross_entropy(logits, labels, weight.to(logits), label_smoothing=label_smoothing)
    return loss if labels.device.type == "cpu" else spoiled(loss, wrong)


def spoiled(loss: Tensor, wrong: Tensor) -> Tensor:
    """A loss that is no number where anything is wrong: the next look finds that, and no step waits for a device."""
    return torch.where(wrong.any(), torch.full_like(loss, torch.nan), loss)


def _accuracy(logits: Tensor, batch: Batch) -> tuple[Tensor, int]:
    labels = _labels(logits, batch)
    return 100.0 * (logits.argmax(1) == labels).sum(), len(labels)


def _labels(logits: Tensor, batch: Batch) -> Tensor:
    """The labels of a batch, once they are known to fit; on the CPU they are also known to be inside their range."""
    if not isinstance(batch, Sequence) or len(batch) < 2:
        raise TaskError(
            f"classification: expected batches (images, labels), got {kind_of(batch)}; give a Task with a loss and a "
            "metric of its own"
        )
    if not isinstance(logits, Tensor):
        raise TaskError(
            f"classification: expected logits (N, classes), got {kind_of(logits)} from the network; wrap it so that it "
            "returns them"
        )
    labels: Tensor = batch[1]
    if not isinstance(labels, Tensor):
        raise TaskError(
            f"classification: expected N whole-number labels as a tensor, got {kind_of(labels)}; use torch.as_tensor"
        )
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or labels.is_floating_point():
        raise TaskError(
            f"classification: expected logits (N, classes) and N whole-number labels, got an output of shape "
            f"{tuple(logits.shape)} and labels of shape {tuple(labels.shape)} and type {labels.dtype}"
        )
    labels = labels.long()
    if labels.device.type != "cpu":  # who would look there would wait, in each step
        return labels
    low, high = (int(bound) for bound in torch.aminmax(labels))
    if low < 0 or high >= logits.shape[1]:
        raise TaskError(
            f"classification: labels must be inside [0, {logits.shape[1]}), as the network has outputs, "
            f"got {low if low < 0 else high}; renumber the labels or give the network more outputs"
        )
    return labels


def soft_divergence(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(answers / T) ‖ softmax(logits / T)), the mean over the examples."""
    soft = F.kl_div(
        (logits / temperature).log_softmax(1),
        (answers / temperature).log_softmax(1),
        log_target=True,
        reduction="batchmean",
    )
    return temperature**2 * soft
