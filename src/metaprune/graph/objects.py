"""Objects of a network's own classes among its inputs and outputs: caches, dataclasses, whatever holds tensors.

PyTorch's trees hold tuples, lists, dictionaries and classes that were registered. `open_to_trees` registers, for as
long as it lasts and not longer, the classes that `learn` has met.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaprune.graph.reach import reached

__all__ = ["learn", "open_to_trees"]

_LOCK = threading.RLock()
_known: dict[type, None] = {}
_registered: list[type] = []
_depth = 0

_PLAIN = (Tensor, int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device, torch.layout)


@contextmanager
def open_to_trees(*values: object) -> Iterator[None]:
    """Inside, PyTorch's trees hold objects of the classes met so far, and of those in `values`."""
    global _depth
    with _LOCK:
        _depth += 1
        for cls in _known:
            _register(cls)
        for value in values:
            learn(value)
    try:
        yield
    finally:
        with _LOCK:
            _depth -= 1
            while _registered and not _depth:
                cls = _registered.pop()
                if cls in pytree.SUPPORTED_NODES:
                    pytree._deregister_pytree_node(cls)


def learn(value: object) -> None:
    """Remember the classes of the objects that a tree of inputs or outputs ends in, and of those inside them."""
    with _LOCK:
        while strange := [leaf for leaf in pytree.tree_leaves(value) if _can_be_opened(leaf)]:
            new = {type(leaf): None for leaf in strange if type(leaf) not in pytree.SUPPORTED_NODES}
            _known.update(new)
            for cls in new:
                _register(cls)
            if not _depth or not new:
                return


def _can_be_opened(value: object) -> bool:
    """Whether an object is neither a tensor nor a constant, and what it holds is known."""
    if isinstance(value, (*_PLAIN, type, nn.Module, torch.Generator)) or callable(value):
        return False
    return isinstance(value, dict | list | tuple) or bool(_slots(type(value))) or hasattr(value, "__dict__")


def _register(cls: type) -> None:
    if _depth and cls not in pytree.SUPPORTED_NODES:
        name = f"{cls.__module__}.{cls.__qualname__} at {id(cls)}"  # its own: it is taken away under it
        pytree._private_register_pytree_node(
            cls, _flatten, _unflatten, serialized_type_name=name, flatten_with_keys_fn=_flatten_with_keys
        )
        _registered.append(cls)


class _Rest:
    """What an object holds besides tensors; equal where the numbers and words in it are."""

    def __init__(self, cls: type, names: tuple[Any, ...], held: dict[Any, Any]) -> None:
        self.cls, self.names, self.held = cls, names, held

    def simple(self) -> list[tuple[str, str]]:
        return [(str(name), repr(value)) for name, value in self.held.items() if isinstance(value, _PLAIN)]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Rest)
            and (self.cls, self.names) == (other.cls, other.names)
            and (self.simple() == other.simple())
        )

    def __hash__(self) -> int:
        return hash((self.cls, self.names))

    def __repr__(self) -> str:
        return f"{self.cls.__qualname__}({self.names}, {self.simple()})"


def _parts(value: Any) -> dict[Any, Any]:
    """Everything that an object holds: attributes by name, entries of what is a dictionary or a list by place."""
    found: dict[Any, Any] = {name: getattr(value, name) for name in _slots(type(value)) if hasattr(value, name)}
    found |= vars(value) if hasattr(value, "__dict__") else {}
    if isinstance(value, dict):
        kind = OrderedDict if isinstance(value, OrderedDict) else dict
        found |= {("entry", key): entry for key, entry in kind.items(value)}
    elif isinstance(value, list | tuple):
        found |= {("entry", place): entry for place, entry in enumerate(value)}
    return found


def _slots(cls: type) -> list[str]:
    found: list[str] = []
    for base in cls.__mro__:
        own = vars(base).get("__slots__", ())
        found += [own] if isinstance(own, str) else list(own)
    return [name for name in found if name not in ("__dict__", "__weakref__")]


def _flatten(value: Any) -> tuple[list[Any], _Rest]:
    parts = _parts(value)
    inner = {name: part for name, part in parts.items() if any(isinstance(v, Tensor) for v in reached(part))}
    rest = {name: part for name, part in parts.items() if name not in inner}
    return list(inner.values()), _Rest(type(value), tuple(inner), rest)


def _flatten_with_keys(value: Any) -> tuple[list[tuple[Any, Any]], _Rest]:
    parts, rest = _flatten(value)
    keys: list[Any] = [pytree.MappingKey(n[1]) if isinstance(n, tuple) else pytree.GetAttrKey(n) for n in rest.names]
    return list(zip(keys, parts, strict=True)), rest


def _unflatten(parts: Any, rest: Any) -> Any:
    held = {name: _own(value) for name, value in rest.held.items()} | dict(zip(rest.names, parts, strict=True))
    entries = {name[1]: value for name, value in held.items() if isinstance(name, tuple)}
    cls = rest.cls
    if issubclass(cls, tuple):
        result = cls.__new__(cls, tuple(entries[place] for place in sorted(entries)))
    else:
        result = cls.__new__(cls)
        if issubclass(cls, list):
            list.extend(result, (entries[place] for place in sorted(entries)))
        elif issubclass(cls, dict):
            (OrderedDict if issubclass(cls, OrderedDict) else dict).update(result, entries)
    for name, value in held.items():
        if not isinstance(name, tuple):
            object.__setattr__(result, name, value)
    return result


def _own(value: Any) -> Any:
    """A copy of what can be written to (a container, an empty cache), so that two objects made alike do not share it;
    numbers without their tags.
    """
    return copy.deepcopy(value) if isinstance(value, dict | list | set | int) or _can_be_opened(value) else value
