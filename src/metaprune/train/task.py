"""What a network is for: its data, its loss, and the metric that people care about."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from metaprune.graph.arguments import is_number
from metaprune.graph.errors import MetapruneError
from metaprune.graph.tensors import clone, digest
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
    "distil",
    "on",
    "settings_of",
]

Batch = Any
Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # args and kwargs
Metric = Callable[[Any, Batch], tuple[float | Tensor, int]]
"""(output of the network, batch) -> the sum over the examples, and their number."""


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
            f"task: expected batches as tuples, whose first element the network takes, got {_kind(batch)}; say what it "
            "takes: Task(…, inputs=lambda batch: ((batch.images,), {}))"
        )
    return (batch[0],), {}


def _kind(thing: Any) -> str:
    """What a thing is, in words."""
    if isinstance(thing, Sequence) and not isinstance(thing, str) and not len(thing):
        return f"an empty {type(thing).__name__}"
    return "None" if thing is None else f"a {type(thing).__name__}"


def on(device: torch.device | None, batch: Batch) -> Batch:
    """A batch with its tensors on a device; as it is where there is none."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), batch)


@dataclass(frozen=True)
class Pictures:
    """What reports show of a task whose outputs are pictures: (N, C, H, W) in [0, 1], grey or RGB."""

    floor_name: str  # such as "bicubic"
    floor: Callable[[Batch], Tensor]  # batch -> what stands for the output where there is no network
    truth: Callable[[Batch], Tensor]  # batch -> what the output should be


@dataclass(frozen=True)
class Task:
    """What the network is for: data, loss, metric.

    Attributes:
        train: Batches to learn from.
        val: Batches to choose by, held out of the training set.
        test: Batches that choose nothing and are reported; None where there are none.
        loss: (output of the network, batch) -> a scalar. Where a network computes its losses itself, in training mode
            alone, they are that output.
        metric: (output, batch) -> the sum over the examples, and their number; it chooses.
        metric_name: With its unit in brackets, if it has one: "accuracy (%)".
        higher_is_better: Whether more of the metric is better.
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
    """

    train: Loader
    val: Loader
    test: Loader | None
    loss: Callable[[Any, Batch], Tensor]
    metric: Metric
    metric_name: str = "metric"
    higher_is_better: bool = True
    inputs: Callable[[Batch], Arguments] = first
    distance: Callable[[Any, Any], Tensor] | None = None
    further: Mapping[str, Metric] = field(default_factory=dict)
    pictures: Pictures | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    step: Callable[[Any, Batch], Tensor] | None = None
    predict: Callable[[nn.Module, Batch], Any] | None = None
    partners: Mapping[str, Partner] = field(default_factory=dict)

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
                    f"task: expected {part} as batches to go through, such as a DataLoader, got {_kind(loader)}"
                )
        called = ("loss", "metric", "inputs", "distance", "step", "predict")
        for name in called:
            function = getattr(self, name)
            if not callable(function) and not (name in called[3:] and function is None):
                raise TaskError(f"task: expected {name} as a function, got {_kind(function)}")
        if not isinstance(self.metric_name, str):
            raise TaskError(f"task: expected metric_name as words, got {_kind(self.metric_name)}")
        for name, partner in self.partners.items() if isinstance(self.partners, Mapping) else [("", self.partners)]:
            if not isinstance(partner, Partner) or not isinstance(name, str) or name in ("", NETWORK):
                raise TaskError(
                    "task: expected partners by name, as {'head': mp.Partner(module)}, none of them called "
                    f"'{NETWORK}', got {name!r}: {_kind(partner)}"
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
    label_smoothing: float = 0.0,
    temperature: float = 4.0,
) -> Task:
    """The task of telling classes apart: cross-entropy, and top-1 accuracy in percent.

    Batches are `(images, labels)`: whatever the network takes, and whole numbers (N,) inside [0, classes).
    The output of the network is (N, classes) logits.

    Args:
        train: batches to learn from.
        val: batches to choose by, held out of the training set.
        test: batches to report.
        label_smoothing: the share of each target that is spread over all classes.
        temperature: T, how soft a teacher's answers are made where one is imitated (`distil`).

    Raises:
        TaskError: a smoothing or a temperature out of range.
    """
    if not (is_number(label_smoothing) and 0 <= label_smoothing < 1):
        raise TaskError(f"classification: expected label_smoothing inside [0, 1), got {label_smoothing!r}")
    if not (is_number(temperature) and 0 < temperature < math.inf):
        raise TaskError(f"classification: expected a temperature above 0, got {temperature!r}")
    return Task(
        train,
        val,
        test,
        loss=partial(_cross_entropy, label_smoothing=label_smoothing),
        metric=_accuracy,
        metric_name="accuracy (%)",
        distance=partial(_soft_divergence, temperature=temperature),
    )


def _cross_entropy(logits: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
    return F.cross_entropy(logits, _labels(logits, batch), label_smoothing=label_smoothing)


def _accuracy(logits: Tensor, batch: Batch) -> tuple[Tensor, int]:
    labels = _labels(logits, batch)
    return 100.0 * (logits.argmax(1) == labels).sum(), len(labels)


def _labels(logits: Tensor, batch: Batch) -> Tensor:
    """The labels of a batch, once they are known to fit: a GPU dies of a label that is out of range."""
    if not isinstance(batch, Sequence) or len(batch) < 2:
        raise TaskError(
            f"classification: expected batches (images, labels), got {_kind(batch)}; give a Task with a loss and a "
            "metric of its own"
        )
    if not isinstance(logits, Tensor):
        raise TaskError(
            f"classification: expected logits (N, classes), got {_kind(logits)} from the network; wrap it so that it "
            "returns them"
        )
    labels: Tensor = batch[1]
    if not isinstance(labels, Tensor):
        raise TaskError(
            f"classification: expected N whole-number labels as a tensor, got {_kind(labels)}; use torch.as_tensor"
        )
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or labels.is_floating_point():
        raise TaskError(
            f"classification: expected logits (N, classes) and N whole-number labels, got an output of shape "
            f"{tuple(logits.shape)} and labels of shape {tuple(labels.shape)} and type {labels.dtype}"
        )
    low, high = (int(bound) for bound in torch.aminmax(labels))
    if low < 0 or high >= logits.shape[1]:
        raise TaskError(
            f"classification: labels must be inside [0, {logits.shape[1]}), as the network has outputs, "
            f"got {low if low < 0 else high}; renumber the labels or give the network more outputs"
        )
    return labels


def _soft_divergence(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(answers / T) ‖ softmax(logits / T)), the mean over the examples."""
    soft = F.kl_div(
        (logits / temperature).log_softmax(1),
        (answers / temperature).log_softmax(1),
        log_target=True,
        reduction="batchmean",
    )
    return temperature**2 * soft


def distil(task: Task, teacher: nn.Module, *, share: float = 0.5) -> Task:
    """The same task, where the network also learns from the answers of a `teacher`.

    Hinton et al. 2015, https://arxiv.org/abs/1503.02531: the loss becomes
    (1 - share) · loss + share · distance between the outputs of the network and of the teacher. The task knows the
    distance: for `Classification` it is T² · KL(softmax(teacher / T) ‖ softmax(network / T)), for `SuperResolution`
    and `Denoising` the mean absolute difference.

    Args:
        task: the task; both networks take its batches and give outputs of the same shape.
        teacher: the network to learn from; a copy is used, in evaluation mode.
        share: how much the teacher counts, from 0 to 1.

    Raises:
        TaskError: the task has no distance, or the share is none.
    """
    if not isinstance(task, Task):
        raise TaskError(f"distil: expected a task, such as mp.Classification(train, val), got {_kind(task)}")
    if (distance := task.distance) is None:
        raise TaskError("distil: the task cannot compare two outputs; give its field `distance`, as F.l1_loss")
    if not isinstance(teacher, nn.Module):
        raise TaskError(f"distil: expected the teacher as a network, an nn.Module, got {_kind(teacher)}")
    if not (is_number(share) and 0 <= share <= 1):
        raise TaskError(f"distil: expected a share from 0 to 1, got {share!r}")
    wise = copy.deepcopy(teacher).eval().requires_grad_(False)

    def loss(output: Any, batch: Batch) -> Tensor:
        args, kwargs = task.inputs(batch)
        with torch.no_grad():
            answers = wise.to(output.device)(*args, **kwargs).float()
        return (1 - share) * task.loss(output, batch) + share * distance(output, answers)

    known = {"teacher.weights": digest(wise.state_dict())[:12], "teacher.share": f"{share:g}"}
    return replace(task, loss=loss, settings={**task.settings, **known})
