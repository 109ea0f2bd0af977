"""Recalibration: running statistics of a cut network, measured anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["recalibrate"]


def recalibrate(
    model: nn.Module,
    batches: Iterable[Any],
    inputs: Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]] = lambda batch: ((batch[0],), {}),
    most: int = 32,
) -> int:
    """Replace the running statistics of batch norms by averages over `batches`, in place; weights stay.

    Args:
        model: Any network; without batch norms nothing happens. Modes are restored.
        batches: Training data, without labels needed.
        inputs: From a batch to the network's arguments.
        most: Use at most this many batches.

    Returns:
        How many batches were used.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return 0
    modes = {module: module.training for module in model.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    device = next(model.parameters()).device
    used = 0
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        with torch.no_grad():
            for batch in batches:
                args, kwargs = inputs(batch)
                args, kwargs = torch.utils._pytree.tree_map_only(
                    torch.Tensor, lambda t: t.to(device), (args, kwargs)
                )
                model(*args, **kwargs)
                used += 1
                if used == most:
                    break
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    return used
