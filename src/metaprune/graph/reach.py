"""What Python reaches from a network: the containers, objects and functions that its modules hold."""

from __future__ import annotations

import functools
import types
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

__all__ = ["children", "contents", "is_foreign", "reached", "restore"]

_ATOMS = {str, bytes, int, float, complex, bool, type(None), types.ModuleType, types.BuiltinFunctionType}
_MAY_BE_EMPTY = (dict, list, set)
_SEQUENCES = (list, tuple, set, frozenset, deque)
_LIBRARIES = ("torch", "builtins", "numpy", "lightning", "lightning_fabric", "pytorch_lightning", "logging")


def reached(*roots: object, through_functions: bool = True) -> Iterator[Any]:
    """Every object that can be reached from `roots`, each once: containers, functions, tensors, plain objects.

    Modules of a network count as objects; classes, Python modules, and what libraries hold inside are not entered.

    Args:
        roots: Where to start.
        through_functions: Whether to follow what functions enclose and default to.
    """
    seen: set[int] = set()
    waiting: list[Any] = list(roots)
    while waiting:
        value = waiting.pop()
        if type(value) in _ATOMS or id(value) in seen or isinstance(value, type):
            continue
        seen.add(id(value))
        yield value
        if through_functions or not isinstance(value, types.FunctionType):
            waiting.extend(children(value))


def children(value: Any) -> list[Any]:
    """What an object holds directly; nothing where it is not known how to look."""
    if isinstance(value, Tensor):
        return []
    if isinstance(value, types.FunctionType):
        return [cell.cell_contents for cell in value.__closure__ or () if _is_full(cell)] + [
            *(value.__defaults__ or ()),
            *(value.__kwdefaults__ or {}).values(),
        ]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    found: list[Any] = []
    if isinstance(value, dict):
        found += _kind(value).values(value)
    elif isinstance(value, _SEQUENCES):
        found += value
    if not is_foreign(type(value)) or isinstance(value, nn.Module):
        own = getattr(value, "__dict__", None)
        if isinstance(own, dict):
            found += [entry for entry in own.values() if not isinstance(entry, _MAY_BE_EMPTY) or entry]
    return found


def _is_full(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # of a name that was not given a value yet
        return False
    return True


def is_foreign(cls: type) -> bool:
    """Whether a class is Python's, PyTorch's or another library's that networks lean on: its insides are its own."""
    return cls.__module__.partition(".")[0] in _LIBRARIES


def contents(value: Any) -> Any:
    """A shallow note of what a container or a plain object holds now; None for what cannot be noted."""
    if isinstance(value, dict):
        return dict(_kind(value).items(value))
    if isinstance(value, list | deque):
        return list(value)
    if isinstance(value, set):
        return set(value)
    if isinstance(value, nn.Module | Tensor) or is_foreign(type(value)):
        return None
    own = getattr(value, "__dict__", None)
    return dict(own) if isinstance(own, dict) and not callable(value) else None


def restore(value: Any, noted: Any) -> None:
    """Bring a container or a plain object back to what `contents` noted, in place, if it holds anything else now."""
    now = contents(value)
    if len(now) == len(noted) and all(one is other for one, other in zip(_flat(now), _flat(noted), strict=True)):
        return
    place = value if isinstance(value, dict | list | deque | set) else vars(value)
    if isinstance(place, dict):
        _kind(place).clear(place)
        _kind(place).update(place, noted)
    elif isinstance(place, set):
        place.clear()
        place.update(noted)
    else:
        place.clear()
        place.extend(noted)


def _kind(value: dict[Any, Any]) -> type[dict[Any, Any]]:
    """The class whose methods see what lies in a dictionary, whatever its own class makes of them."""
    return OrderedDict if isinstance(value, OrderedDict) else dict


def _flat(value: Any) -> list[Any]:
    return [*value.keys(), *value.values()] if isinstance(value, dict) else list(value)
