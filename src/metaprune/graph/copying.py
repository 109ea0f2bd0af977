"""A deep copy of a network that is apart from it: nothing the copy's code writes reaches the one it was made from."""

from __future__ import annotations

import copy
import types
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metaprune.graph.reach import children, reached

__all__ = ["clone", "copies_its_own_way", "in_one_memory", "overlapping"]

_CONTAINERS = (dict, OrderedDict, list, set)
_WAYS = ("__deepcopy__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__")


@torch.inference_mode(False)
def clone(model: nn.Module, memo: Mapping[int, object] | None = None) -> nn.Module:
    """A deep copy, also where Python alone makes none, or one that hangs on to the original.

    - Tensors that were computed (old-style weight norm, an activation that a hook stored) are copied as they are.
    - Functions that speak of the network (a hook that writes to `self`, a `forward` that is a closure) speak of the
      copy; Python copies functions by reference.
    - Tensors that lie in one another's memory still do.
    - What cannot be copied (a lock, an open file, a generator) is shared.

    Args:
        model: Any network; left untouched.
        memo: Identity of an object -> what takes its place in the copy.
    """
    taken: dict[int, Any] = dict(memo or {})
    objects = list(reached(model))
    tensors = [value for value in objects if isinstance(value, Tensor) and id(value) not in taken]
    for group in overlapping(tensors):
        taken |= in_one_memory(group)
    for tensor in tensors:
        if id(tensor) not in taken and (not tensor.is_leaf or tensor.is_inference()):
            copied = tensor.detach().clone()
            taken[id(tensor)] = (
                nn.Parameter(copied, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied
            )
    taken = _nothing_in(objects) | taken
    functions = _speaking_of(model, objects)
    for function in functions:
        taken[id(function)] = _with_empty_cells(function)
    result, known = _copied(model, taken, objects)
    for function in functions:
        for ours, theirs in zip(known[id(function)].__closure__, function.__closure__ or (), strict=True):
            ours.cell_contents = _in_place_of(theirs.cell_contents, known)
    for module in objects:
        if isinstance(module, nn.Module) and copies_its_own_way(type(module)) and id(module) in known:
            known[id(module)].training = module.training
    return result


def copies_its_own_way(cls: type[nn.Module]) -> bool:
    """Whether a copy may hold what its code makes of the state: layers of einops are built anew, in training mode."""
    own = (getattr(cls, way, None) is not getattr(nn.Module, way, None) for way in _WAYS)
    return not cls.__module__.startswith("torch.") and any(own)


def _nothing_in(objects: Sequence[Any]) -> dict[int, Any]:
    """Copies of what modules hold that is empty, as most of their dictionaries of hooks: half of the time of a copy."""
    held = (value for module in objects if isinstance(module, nn.Module) for value in vars(module).values())
    return {id(value): type(value)() for value in held if type(value) in _CONTAINERS and not value}


def overlapping(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Tensors, in groups of more than one, that lie in the same memory; copies of parameters lose that otherwise."""
    groups: dict[int, list[Tensor]] = {}
    for tensor in tensors:
        if type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided and not tensor.is_meta:
            groups.setdefault(tensor.untyped_storage().data_ptr(), []).append(tensor)
    return [group for place, group in groups.items() if place and len(group) > 1]


def in_one_memory(group: Sequence[Tensor]) -> dict[int, Tensor]:
    """Copies of tensors that lie in the same memory, in one memory of their own."""
    storage = group[0].untyped_storage().clone()  # type: ignore[no-untyped-call]
    result: dict[int, Tensor] = {}
    for tensor in group:
        view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        view.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
        parameter = isinstance(tensor, nn.Parameter)
        result[id(tensor)] = nn.Parameter(view, tensor.requires_grad) if parameter else view
    return result


def _speaking_of(model: nn.Module, objects: Sequence[Any]) -> list[types.FunctionType]:
    """The functions among `objects` that enclose something the network holds, or another such function."""
    functions = [value for value in objects if isinstance(value, types.FunctionType) and value.__closure__]
    if not functions:
        return []
    held = {id(value) for value in reached(model, through_functions=False)}
    held -= {id(value) for value in objects if isinstance(value, types.FunctionType)}
    found: list[types.FunctionType] = []
    while new := [f for f in functions if f not in found and any(id(_owner(value)) in held for value in children(f))]:
        found += new
        held |= {id(function) for function in new}
    return found


def _owner(value: Any) -> Any:
    """What a method is bound to; any other value is its own."""
    return value.__self__ if isinstance(value, types.MethodType) else value


def _in_place_of(value: Any, known: Mapping[int, Any]) -> Any:
    """What a copy of a function encloses where the function enclosed `value`."""
    if isinstance(value, types.MethodType) and id(value.__self__) in known:
        return types.MethodType(value.__func__, known[id(value.__self__)])
    return known.get(id(value), value)


def _with_empty_cells(function: types.FunctionType) -> types.FunctionType:
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    result = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, cells
    )
    result.__kwdefaults__ = function.__kwdefaults__
    result.__dict__.update(function.__dict__)
    result.__qualname__, result.__module__ = function.__qualname__, function.__module__
    return result


def _copied(model: nn.Module, taken: dict[int, Any], objects: Sequence[Any]) -> tuple[nn.Module, dict[int, Any]]:
    """The copy, and identity -> what took the place of each object in it."""
    known = dict(taken)
    try:
        return copy.deepcopy(model, known), known
    except Exception:
        known = taken | {id(value): value for value in objects if _cannot_be_copied(value, objects)}
        return copy.deepcopy(model, known), known


def _cannot_be_copied(value: Any, objects: Sequence[Any]) -> bool:
    """Whether Python cannot copy an object even where everything that it holds is copied without it."""
    if isinstance(value, nn.Module | Tensor | dict | list | tuple | set):
        return False
    try:
        copy.deepcopy(value, {id(other): other for other in objects if other is not value})
    except Exception:
        return True
    return False
