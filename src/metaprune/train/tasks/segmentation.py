"""The task of telling the class of every pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from metaprune.graph.arguments import is_whole
from metaprune.train.task import (
    Batch,
    Loader,
    Metric,
    Task,
    TaskError,
    check_temperature,
    class_weights,
    kind_of,
    soft_divergence,
)

__all__ = ["Segmentation"]

BESIDE = 0.5
"""How much each further head of a network counts in the loss, as in torchvision's references ("aux")."""


def Segmentation(
    train: Loader,
    val: Loader,
    test: Loader | None = None,
    *,
    classes: int,
    ignore: int = 255,
    weight: Tensor | Sequence[float] | None = None,
    temperature: float = 1.0,
    metric: Metric | None = None,
    metric_name: str = "",
) -> Task:
    """The task of telling the class of every pixel: cross-entropy, and mean intersection over union of the whole set.

    Batches are `(images, maps)`: whatever the network takes, and whole numbers (N, H, W) inside [0, classes), or
    `ignore` where nobody knows. The output of the network is (N, classes, h, w) logits, which are enlarged to the maps
    where they are smaller; or a dictionary of such, as torchvision's networks give it: "out" counts, the others half.

    Args:
        train: Batches to learn from.
        val: Batches to choose by, held out of the training set.
        test: Batches to report.
        classes: How many there are.
        ignore: What stands in maps where nothing is to be learned or measured.
        weight: How much each class counts in the loss, (classes,); by default all alike.
        temperature: How soft a teacher's answers are made where one is imitated (`distil`).
        metric: In place of the mean intersection over union, as `Task.metric`; it is given maps of classes, and maps.
        metric_name: Of that one.

    Raises:
        TaskError: Numbers out of range.
    """
    from torchmetrics.classification import MulticlassJaccardIndex

    if not is_whole(classes) or classes < 2:
        raise TaskError(f"segmentation: expected classes as a whole number from 2, got {classes!r}")
    if not is_whole(ignore):
        raise TaskError(f"segmentation: expected ignore as a whole number, got {ignore!r}")
    check_temperature(temperature, "segmentation")
    weights = None if weight is None else class_weights(weight, "segmentation")
    fitting = partial(_fitting, classes=classes, ignore=ignore)
    return Task(
        train,
        val,
        test,
        loss=partial(_cross_entropy, fitting=fitting, ignore=ignore, weight=weights),
        metric=MulticlassJaccardIndex(classes, ignore_index=ignore) if metric is None else metric,
        metric_name="mIoU" if metric is None else metric_name,
        judged=partial(_judged, fitting=fitting),
        distance=partial(_apart, temperature=temperature),
        further={"pixel accuracy (%)": partial(_right, fitting=fitting, ignore=ignore)},
        settings={} if weights is None else {"task.weight": ", ".join(f"{each:g}" for each in weights.tolist())},
    )


def _heads(output: Any) -> list[Tensor]:
    """The logits that count first, and those of further heads."""
    if isinstance(output, Tensor):
        return [output]
    if not isinstance(output, Mapping) or not isinstance(output.get("out"), Tensor):
        raise TaskError(
            f"segmentation: expected logits (N, classes, h, w), or a dictionary with them as 'out', got "
            f"{kind_of(output)} from the network; wrap it so that it returns them"
        )
    return [output["out"], *(head for name, head in output.items() if name != "out" and isinstance(head, Tensor))]


def _fitting(
    logits: Float[Tensor, " n classes h w"], batch: Batch, classes: int, ignore: int
) -> tuple[Float[Tensor, " n classes p q"], Int[Tensor, " n p q"]]:
    """Logits at the size of the maps, and the maps, once they are known to fit."""
    if not isinstance(batch, Sequence) or len(batch) < 2 or not isinstance(batch[1], Tensor):
        raise TaskError(f"segmentation: expected batches (images, maps), got {kind_of(batch)}; give a Task of its own")
    maps: Tensor = batch[1]
    if maps.dim() == 4 and maps.shape[1] == 1:
        maps = maps[:, 0]
    fits = logits.dim() == 4 and logits.shape[1] == classes and maps.dim() == 3 and not maps.is_floating_point()
    if not fits or len(maps) != len(logits):
        raise TaskError(
            f"segmentation: expected logits (N, {classes}, h, w) and whole numbers (N, H, W), got an output of shape "
            f"{tuple(logits.shape)} and maps of shape {tuple(maps.shape)} and type {maps.dtype}"
        )
    maps = maps.long()
    known = maps[maps != ignore]
    if known.numel() and (int(known.min()) < 0 or int(known.max()) >= classes):
        odd = int(known.max()) if int(known.max()) >= classes else int(known.min())
        raise TaskError(
            f"segmentation: maps must hold classes inside [0, {classes}), or {ignore} where they are not known, got "
            f"{odd}; renumber them, or say what is to be ignored: ignore={odd}"
        )
    if logits.shape[2:] != maps.shape[1:]:
        logits = F.interpolate(logits, tuple(maps.shape[1:]), mode="bilinear")
    return logits, maps


def _cross_entropy(output: Any, batch: Batch, fitting: Any, ignore: int, weight: Tensor | None) -> Tensor:
    losses = []
    for logits in _heads(output):
        large, maps = fitting(logits, batch)
        each = F.cross_entropy(
            large, maps, None if weight is None else weight.to(large), ignore_index=ignore, reduction="none"
        )
        counted = maps != ignore
        among = counted.sum() if weight is None else weight.to(large)[maps[counted]].sum()
        losses.append(each.sum() / among.clamp(min=1e-12))  # 0 where nothing is known
    return torch.stack([losses[0], *(BESIDE * loss for loss in losses[1:])]).sum()


def _judged(output: Any, batch: Batch, fitting: Any) -> tuple[Tensor, Tensor]:
    logits, maps = fitting(_heads(output)[0], batch)
    return logits.argmax(1), maps


def _right(output: Any, batch: Batch, fitting: Any, ignore: int) -> tuple[Tensor, int]:
    found, maps = _judged(output, batch, fitting)
    counted = maps != ignore
    return 100.0 * (found[counted] == maps[counted]).sum(), int(counted.sum())


def _apart(output: Any, answers: Any, temperature: float) -> Tensor:
    """Of each pixel, as for classes."""
    ours, theirs = (_heads(each)[0].movedim(1, -1).flatten(0, -2) for each in (output, answers))
    return soft_divergence(ours, theirs, temperature)
