"""Every tensor of a network by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metaprune.graph.copying import clone

__all__ = [
    "call_with",
    "channels_first",
    "channels_last",
    "clone",
    "digest",
    "in_double",
    "named_tensors",
    "plain_tensors",
    "with_tensors",
]


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by qualified name, tied ones under every name they have."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def plain_tensors(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Tensors that modules hold as plain attributes, neither parameters nor buffers; other names are left out."""
    found: dict[str, Tensor] = {}
    for name in names:
        path, _, attribute = name.rpartition(".")
        try:
            held = vars(model.get_submodule(path)).get(attribute)
        except AttributeError:
            continue
        if isinstance(held, Tensor):
            found[name] = held
    return found


def with_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `model` with other tensors in the place of its own: ties stay tied, frozen parameters frozen.

    Args:
        model: Any network; left untouched.
        tensors: Qualified name -> what takes its place; one name is enough for a tied tensor. Plain attributes count.
    """
    known = plain_tensors(model, tensors) | named_tensors(model)
    memo: dict[int, object] = {}
    for name, tensor in tensors.items():
        before = known[name]
        parameter = isinstance(before, nn.Parameter)
        memo[id(before)] = nn.Parameter(tensor, before.requires_grad) if parameter else tensor
    return clone(model, memo)


def call_with(
    model: nn.Module, tensors: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> Any:
    """Call `model` with other tensors in the place of its own; gradients flow to them, and it gets its own back.

    `torch.func.functional_call` alone is not enough: a module that stands under several names would be given its
    tensors as often, and get back what it was given the time before.

    Args:
        model: Any network.
        tensors: Qualified name -> what takes its place; one name is enough for a tied tensor.
        args: Inputs.
        kwargs: Inputs by name.
    """
    known = named_tensors(model)
    given = {id(known[name]): tensor for name, tensor in tensors.items()}
    places = {
        name: given[id(tensor)]
        for path, module in model.named_modules()
        for held in (module.named_parameters, module.named_buffers)
        for name, tensor in held(path, recurse=False, remove_duplicate=False)
        if id(tensor) in given
    }
    return functional_call(model, places, args, dict(kwargs or {}), tie_weights=False)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A SHA-256 of names and values, bit for bit, wherever the tensors lie: the same for the same network alone."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def channels_last(x: Tensor) -> Tensor:
    """Images or filters, four dimensions, laid out in memory as (N, H, W, C); any other tensor as it is."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def channels_first(x: Tensor) -> Tensor:
    """The same, laid out as (N, C, H, W)."""
    return x.contiguous() if x.dim() == 4 else x


def in_double(tensor: Tensor) -> Tensor:
    """The same values in float64, without a tape; on the CPU where the device has no float64, as Apple's GPUs."""
    try:
        return tensor.detach().double()
    except TypeError:
        return tensor.detach().cpu().double()
