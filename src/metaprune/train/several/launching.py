"""Lightning Fabric as a recipe asks for it: on one device, or as one of several processes, which are started here."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from metaprune.train.checks import TrainError
from metaprune.train.processes import PATIENCE, Group, is_apart, started
from metaprune.train.recipe import Recipe, pick_precision

__all__ = ["fabric_of", "group_of", "is_alone"]

OURS = ("LT_ACCELERATOR", "LT_DEVICES", "LT_NUM_NODES", "LT_STRATEGY", "LT_PRECISION")
"""Where `fabric run` leaves what it was told."""


def fabric_of(recipe: Recipe) -> Any:
    """Fabric on the recipe's devices, at its precision; other processes are started where there are none yet.

    Those are started by running the same script again, once each, as Lightning does it.

    Raises:
        TrainError: there is no such device, or as many processes were started as the recipe does not want.
    """
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)  # no news, no words
    logging.getLogger("lightning_fabric.utilities.distributed").setLevel(logging.WARNING)
    accelerator, _, index = recipe.device.partition(":")
    index = index or _own_place(accelerator)
    size = _size(recipe, accelerator)
    precision: Any = recipe.precision
    try:
        with _told_by_us():
            if size == 1:
                devices: Any = [int(index)] if index else 1
                if precision == "auto":
                    precision = pick_precision(Fabric(accelerator=accelerator, devices=devices).device)
                return Fabric(accelerator=accelerator, devices=devices, precision=precision)
            if precision == "auto":
                precision = pick_precision(Fabric(accelerator=accelerator, devices=1).device)
            nodes = _nodes(recipe, size)
            fabric = Fabric(
                accelerator=accelerator,
                devices=size // nodes,
                num_nodes=nodes,
                strategy=_strategy(),
                precision=precision,
                plugins=_environment(),
            )
    except Exception as error:
        raise TrainError(
            f"recipe: cannot use device {recipe.device!r} with precision {recipe.precision!r}, devices="
            f"{recipe.devices!r} ({error})"
        ) from error
    try:
        with _not_by_its_command_line():
            fabric.launch()
    except Exception as error:
        raise TrainError(f"recipe: {size} processes could not be joined ({error})") from error
    return fabric


def group_of(fabric: Any) -> Group:
    """The processes that a Fabric is of."""
    size = getattr(fabric, "world_size", 1)
    return started(getattr(fabric, "global_rank", 0), size, fabric.device)


def is_alone(recipe: Recipe) -> bool:
    """Whether one process is all there is, and all that the recipe asks for."""
    return is_apart() or (recipe.devices == 1 and recipe.nodes == 1 and _there() in (None, 1))


def _own_place(accelerator: str) -> str:
    """Of a process that works alone for now beside others on its machine: which of its devices is its own."""
    if not is_apart() or "LOCAL_RANK" not in os.environ or accelerator not in ("auto", "cuda", "gpu"):
        return ""
    count = torch.cuda.device_count()
    return f"{int(os.environ['LOCAL_RANK']) % count}" if count > 1 else ""


def _size(recipe: Recipe, accelerator: str) -> int:
    """How many processes there are in all."""
    if is_apart():
        return 1
    there = _there()
    if recipe.devices == "auto":
        if there is not None:
            return there
        kind = importlib.import_module("lightning_fabric").Fabric(accelerator=accelerator, devices=1).device.type
        return recipe.nodes * (torch.get_device_module(kind).device_count() if kind in ("cuda", "xpu") else 1)
    asked = recipe.devices * recipe.nodes
    if there is None or asked == there:
        return asked
    if asked == 1:
        return there
    raise TrainError(
        f"recipe: {there} processes were started, and devices={recipe.devices}, nodes={recipe.nodes} ask for {asked}; "
        "leave devices out, which takes as many as were started, or start as many"
    )


def _there() -> int | None:
    """How many processes were started already; None where nobody started any."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    if "WORLD_SIZE" in os.environ and "LOCAL_RANK" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return None


def _nodes(recipe: Recipe, size: int) -> int:
    """How many machines they are on."""
    if recipe.nodes > 1 or "LOCAL_WORLD_SIZE" not in os.environ:
        return recipe.nodes
    return max(size // int(os.environ["LOCAL_WORLD_SIZE"]), 1)


def _strategy() -> Any:
    """Processes that each have the module as it is: gradients are added up by `Group.add` and not in a wrapper.

    A wrapper needs every parameter in each step. Networks leave some out by chance or by data, and searches do once
    their channels are dead.
    """
    from lightning_fabric.strategies.ddp import DDPStrategy

    class Beside(DDPStrategy):
        def setup_module(self, module: Any) -> Any:
            return module

        def module_to_device(self, module: Any) -> None:
            """It is where it computes; where its weights are divided, it must not be moved."""

    return Beside(timeout=PATIENCE)


def _environment() -> Any:
    """How processes find one another, where Lightning cannot tell by itself: somebody joined them already."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or "LOCAL_RANK" in os.environ:
        return None
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    class Joined(LightningEnvironment):
        creates_processes_externally = True

        def global_rank(self) -> int:
            return dist.get_rank()

        def world_size(self) -> int:
            return dist.get_world_size()

        def local_rank(self) -> int:
            return dist.get_rank()

        def set_global_rank(self, rank: int) -> None:
            """It is known."""

        def set_world_size(self, size: int) -> None:
            """It is known."""

    return Joined()


@contextmanager
def _told_by_us() -> Iterator[None]:
    """Without the settings of `fabric run`, which has started the processes; the recipe says the rest."""
    held = {name: os.environ.pop(name) for name in OURS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)


@contextmanager
def _not_by_its_command_line() -> Iterator[None]:
    """`fabric run` wants programs not to launch; it has set the variables that are needed, and nothing more is done."""
    held = os.environ.pop("LT_CLI_USED", None)
    try:
        yield
    finally:
        if held is not None:
            os.environ["LT_CLI_USED"] = held
