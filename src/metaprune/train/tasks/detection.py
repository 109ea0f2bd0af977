"""The task of finding things, by torchvision's contract."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from metaprune.train.task import Batch, Loader, Metric, Task, TaskError, kind_of

__all__ = ["Detection"]

BACKENDS = {"faster_coco_eval": "faster-coco-eval", "pycocotools": "pycocotools"}
"""What computes the mean average precision, first what is preferred: module -> package."""


def Detection(
    train: Loader,
    val: Loader,
    test: Loader | None = None,
    *,
    metric: Metric | None = None,
    metric_name: str = "mAP",
) -> Task:
    """The task of finding things: the losses that the network makes itself, and mean average precision.

    By torchvision's contract. Batches are `(images, targets)`: a list of (C, H, W), and a list of dictionaries with
    `boxes` (n, 4), by corners in pixels, and `labels` (n,), as `collate_fn=lambda rows: tuple(zip(*rows))` makes them.
    In training mode the network takes both and gives a dictionary of losses, whose sum is learned from. In evaluation
    mode it gives for each image a dictionary with `boxes`, `scores` and `labels`.

    Args:
        train: Batches to learn from.
        val: Batches to choose by, held out of the training set.
        test: Batches to report.
        metric: In place of `torchmetrics.detection.mean_ap.MeanAveragePrecision()`, whose "map" counts; it is given the
            lists of what was found and of the targets.
        metric_name: Of the metric; where that computes a dictionary, the entry of this name counts, or the first.

    Raises:
        TaskError: Average precision cannot be computed: `pip install 'metaprune[detection]'`.
    """
    return Task(
        train,
        val,
        test,
        loss=_sum,
        metric=_average_precision() if metric is None else metric,
        metric_name=metric_name,
        inputs=_both,
        judged=_judged,
    )


def _average_precision() -> Metric:
    from torchmetrics.detection.mean_ap import MeanAveragePrecision

    backend: Any = next((name for name in BACKENDS if importlib.util.find_spec(name)), None)
    try:
        if backend is None:
            raise ModuleNotFoundError(f"neither {' nor '.join(BACKENDS.values())} is installed")
        return MeanAveragePrecision(backend=backend)
    except (ImportError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise TaskError(
            f"detection: average precision cannot be computed ({first[:120]}); pip install 'metaprune[detection]', or "
            "give a metric of its own"
        ) from error


def _both(batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not isinstance(batch, Sequence) or len(batch) != 2 or not isinstance(batch[0], Sequence | Tensor):
        raise TaskError(
            f"detection: expected batches (images, targets), got {kind_of(batch)}; give the loader "
            "collate_fn=lambda rows: tuple(zip(*rows))"
        )
    images, targets = batch
    return (images if isinstance(images, Tensor) else list(images), list(targets)), {}


def _sum(output: Any, batch: Batch) -> Tensor:
    losses = list(output.values()) if isinstance(output, Mapping) else []
    if not losses or not all(isinstance(loss, Tensor) and not loss.dim() for loss in losses):
        raise TaskError(
            f"detection: expected a dictionary of losses from the network in training mode, got {kind_of(output)}; "
            "wrap it so that forward(images, targets) gives them there"
        )
    return torch.stack(losses).sum()


def _judged(output: Any, batch: Batch) -> tuple[list[Any], list[Any]]:
    if not isinstance(output, Sequence) or not all(isinstance(each, Mapping) for each in output):
        raise TaskError(
            "detection: expected for each image a dictionary with boxes, scores and labels from the network in "
            f"evaluation mode, got {kind_of(output)}"
        )
    apart = tree_map_only(Tensor, lambda tensor: tensor.detach().cpu(), [list(output), list(batch[1])])
    return apart[0], apart[1]
