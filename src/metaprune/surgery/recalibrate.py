"""Recalibration: running statistics of a cut network, measured anew."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only

from metaprune.graph.arguments import wanted
from metaprune.graph.errors import MetapruneError

__all__ = ["keeps_statistics", "recalibrate"]


def keeps_statistics(model: nn.Module) -> bool:
    """Whether there is anything to recalibrate: a batch norm with running statistics."""
    return bool(_norms(model))


def recalibrate(
    model: nn.Module,
    batches: Iterable[Any],
    inputs: Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]] = lambda batch: ((batch[0],), {}),
    most: int = 32,
) -> int:
    """Replace the running statistics of batch norms by averages over `batches`, in place; weights stay.

    Without batches, and after an error, the statistics are what they were. The order of shuffled batches is always
    the same, and the caller's random numbers go on as if none had been drawn.

    Args:
        model: Any network; without batch norms nothing happens. Modes are restored.
        batches: Training data, without labels needed.
        inputs: From a batch to the network's arguments.
        most: Use at most this many batches.

    Returns:
        How many batches were used.
    """
    wanted("recalibrate", "network", model, nn.Module, "an nn.Module", MetapruneError)
    wanted("recalibrate", "batches", batches, Iterable, "a loader", MetapruneError)
    norms = _norms(model)
    if not norms:
        return 0
    modes = {module: module.training for module in model.modules()}
    before = {norm: (norm.momentum, copy.deepcopy(norm._buffers)) for norm in norms}
    device = next(buffer.device for norm in norms for buffer in norm.buffers())
    used = 0
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # that of the CPU alone: loaders draw from no other
            for batch in itertools.islice(batches, most):
                args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to(device), inputs(batch))
                model(*args, **kwargs)
                used += 1
    except (AttributeError, LookupError, TypeError) as error:
        used = 0
        raise MetapruneError(
            f"recalibrate: the network cannot take a batch ({type(error).__name__}: {str(error)[:150]}); say what it "
            "takes of it: recalibrate(…, inputs=lambda batch: ((batch['x'],), {}))"
        ) from error
    except BaseException:
        used = 0
        raise
    finally:
        for norm, (momentum, statistics) in before.items():
            norm.momentum = momentum
            if not used:
                for name, buffer in statistics.items():
                    if buffer is not None:
                        norm._buffers[name].copy_(buffer)  # type: ignore[union-attr]
        for module, mode in modes.items():
            module.training = mode
    return used


def _norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms that keep running statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
