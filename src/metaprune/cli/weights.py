"""Weights of dense networks: those that are given, and those that a run trained before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaprune.cli.resolve import UsageError
from metaprune.graph.tensors import digest
from metaprune.train.atomic import FileError, read_tensors, write_weights
from metaprune.train.engine import fit
from metaprune.train.processes import now
from metaprune.train.recipe import Recipe
from metaprune.train.task import Task, averaged, settings_of

__all__ = ["give", "train_dense"]


def give(net: nn.Module, tensors: Mapping[str, Tensor], path: Path | None, name: str) -> None:
    """Give a network weights from a file.

    Raises:
        UsageError: They are not its own: other names or shapes, whole numbers in the place of real ones, or not finite.
    """
    own = net.state_dict()
    for key, tensor in tensors.items():
        real = tensor.is_floating_point() or tensor.is_complex()
        if isinstance(here := own.get(key), Tensor) and real != (here.is_floating_point() or here.is_complex()):
            raise UsageError(f"--weights: {path} does not fit {name}: {key} is {tensor.dtype}, expected {here.dtype}")
        if isinstance(here, Tensor) and real and not tensor.isfinite().all() and here.isfinite().all():
            raise UsageError(f"--weights: {path} does not fit {name}: {key} holds values that are not finite")
    try:
        net.load_state_dict(tensors)
    except Exception as error:  # modules may have ways of their own to take weights
        why = " ".join(str(error).split())[:200]
        raise UsageError(f"--weights: {path} does not fit {name} ({why})") from error


def train_dense(net: nn.Module, task: Task, recipe: Recipe, folder: Path, data: str) -> dict[str, Tensor]:
    """Train the dense network, or read what an earlier start of the same training left.

    Raises:
        UsageError: The folder holds weights of another training, or of others.
    """
    path = folder / "model.safetensors"
    trained = {
        "data": data,
        "preprocessing": settings_of(task.train) | averaged(task),
        "network": digest({name: tensor for name, tensor in net.state_dict().items() if isinstance(tensor, Tensor)}),
        **json.loads(json.dumps(recipe.what | {"device": None})),
    }
    before: dict[str, Tensor] | None = None
    if path.exists():
        before, about = _read(path)
        if about is not None and "trained" in about:
            if changed := [key for key in trained if about["trained"].get(key) != trained[key]]:
                raise UsageError(
                    f"--out: {path} is of another training (its {', '.join(changed)} differ); "
                    "name another folder, or delete this one"
                )
            if not task.partners:  # else they get their weights back from the checkpoint of the finished training
                return before
        if not (folder / "checkpoints").is_dir():
            raise UsageError(f"--out: {path} was not trained by this command; give it as --weights, or move it away")
    fit(net, task, recipe, name=f"dense on {data}", checkpoint=folder / "checkpoints")
    after = {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}
    if before is not None and not _same(before, after):
        raise UsageError(f"--out: {path} is not what was trained here; delete it, or give it as --weights")
    now().told(lambda: write_weights(net, path, {"trained": trained}))
    return after


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    try:
        return read_tensors(path)
    except FileError as error:
        raise UsageError(f"--out: {error}; delete it, and start the same command again") from error


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
