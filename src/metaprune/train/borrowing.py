"""A network as a recipe trains it, until it is given back as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from metaprune.graph.tensors import channels_last
from metaprune.train import randomness
from metaprune.train.recipe import Recipe

__all__ = ["borrowed", "statistics_kept"]


@contextmanager
def statistics_kept(module: nn.Module, *, only: bool) -> Iterator[None]:
    """The statistics of a network as they were, should the block fail (if `only` then)."""
    held = [(buffer, buffer.clone()) for buffer in module.buffers()] if only else []
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for buffer, before in held:
                buffer.copy_(before)
        raise


_FABRICS = ("_fabric", "_fabric_optimizers")
"""Where Fabric leaves itself in modules that know it (Lightning's)."""


@contextmanager
def borrowed(module: nn.Module, device: torch.device, recipe: Recipe) -> Iterator[None]:
    """The network on the device and in the layout of the recipe, until it is given back as it was."""
    modes = [(child, child.training) for child in module.modules()]
    home = {tensor.device for tensor in [*module.parameters()] or module.buffers()}
    strides = {name: weight.stride() for name, weight in module.named_parameters() if weight.dim() == 4}
    known = {name: vars(module)[name] for name in _FABRICS if name in vars(module)}
    module.to(device)  # where it moves, its parameters may be other tensors than before
    for name in strides if recipe.channels_last else ():
        weight = module.get_parameter(name)
        weight.data = channels_last(weight.data)
    try:
        with randomness.isolated():
            yield
    finally:
        for name in _FABRICS:
            vars(module).pop(name, None)
        vars(module).update(known)
        for name, stride in strides.items():
            weight = module.get_parameter(name)
            if weight.stride() != stride:
                weight.data = torch.empty_strided(weight.shape, stride, dtype=weight.dtype, device=weight.device).copy_(
                    weight.data
                )
        if len(home) == 1:
            module.to(home.pop())
        for child, training in modes:
            child.training = training
