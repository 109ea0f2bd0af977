"""What a network is for: its data, its loss, and the metric that people care about."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaprune.graph.errors import MetapruneError

__all__ = ["Batch", "Classification", "Loader", "Task", "TaskError", "distil"]

Batch = Any
Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # args and kwargs


class TaskError(MetapruneError):
    """A batch and the output of a network that do not fit each other."""


class Loader(Protocol):
    """Batches that can be gone through again and again, such as a `DataLoader`."""

    def __iter__(self) -> Iterator[Batch]:
        """Begin another pass."""

    def __len__(self) -> int:
        """The number of batches in a pass."""


def first(batch: Batch) -> Arguments:
    """The first element of a batch, or the batch if it is one tensor, as the only argument of the network."""
    return (batch if isinstance(batch, Tensor) else batch[0],), {}


@dataclass(frozen=True)
class Task:
    """What the network is for: data, loss, metric."""

    train: Loader
    val: Loader  # chooses; held out of the training set
    test: Loader | None  # chooses nothing; reported
    loss: Callable[[Any, Batch], Tensor]  # (output of the network, batch) -> scalar
    metric: Callable[[Any, Batch], tuple[float | Tensor, int]]  # -> sum over the examples, their number
    metric_name: str = "metric"
    higher_is_better: bool = True
    inputs: Callable[[Batch], Arguments] = first  # batch -> arguments of the network


def Classification(train: Loader, val: Loader, test: Loader | None = None, *, label_smoothing: float = 0.0) -> Task:
    """The task of telling classes apart: cross-entropy, and top-1 accuracy in percent.

    Batches are `(images, labels)`: whatever the network takes, and whole numbers (N,) inside [0, classes).
    The output of the network is (N, classes) logits.

    Args:
        train: batches to learn from.
        val: batches to choose by, held out of the training set.
        test: batches to report.
        label_smoothing: the share of each target that is spread over all classes.
    """
    return Task(
        train,
        val,
        test,
        loss=partial(_cross_entropy, label_smoothing=label_smoothing),
        metric=_accuracy,
        metric_name="accuracy (%)",
    )


def _cross_entropy(logits: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
    return F.cross_entropy(logits, _labels(logits, batch), label_smoothing=label_smoothing)


def _accuracy(logits: Tensor, batch: Batch) -> tuple[Tensor, int]:
    labels = _labels(logits, batch)
    return 100.0 * (logits.argmax(1) == labels).sum(), len(labels)


def _labels(logits: Tensor, batch: Batch) -> Tensor:
    """The labels of a batch, once they are known to fit: a GPU dies of a label that is out of range."""
    labels: Tensor = batch[1]
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


def distil(task: Task, teacher: nn.Module, *, share: float = 0.5, temperature: float = 4.0) -> Task:
    """The same classification task, where the network also learns from the answers of a `teacher`.

    Hinton et al. 2015, https://arxiv.org/abs/1503.02531: the loss becomes
    (1 - share) · loss + share · T² · KL(softmax(teacher / T) ‖ softmax(network / T)).

    Args:
        task: the task; both networks give (N, classes) logits for its batches.
        teacher: the network to learn from; a copy is used, in evaluation mode.
        share: how much the teacher counts, from 0 to 1.
        temperature: T, how soft the answers are.
    """
    wise = copy.deepcopy(teacher).eval().requires_grad_(False)

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        args, kwargs = task.inputs(batch)
        with torch.no_grad():
            answers = wise.to(logits.device)(*args, **kwargs).float()
        soft = F.kl_div(
            (logits / temperature).log_softmax(1),
            (answers / temperature).log_softmax(1),
            log_target=True,
            reduction="batchmean",
        )
        return (1 - share) * task.loss(logits, batch) + share * temperature**2 * soft

    return replace(task, loss=loss)
