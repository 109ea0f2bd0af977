"""The whole numbers that modules hold: attributes, entries of lists and dictionaries, and those of a configuration."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Slot", "held", "is_pytorchs", "modules_by_name", "slots", "whole_numbers", "write_numbers"]

_OWN = frozenset(vars(nn.Module()))
_MOST_DEEP = 4
_LIBRARIES = ("torch", "builtins", "collections", "numpy")
_DICTIONARIES = (dict, OrderedDict, defaultdict)


@dataclass(frozen=True)
class Slot:
    """A place that holds a whole number, or a list or tuple with such.

    Attributes:
        path: The module that reaches it.
        name: What to ask the module for, as `num_heads` or `config.hidden_size`.
        place: The dictionary it stands in.
        key: Its key there.
        value: What it holds.
    """

    path: str
    name: str
    place: dict[Any, Any]
    key: Any
    value: Any

    def numbers(self) -> Iterator[tuple[str, int]]:
        """The name and value of each number above 1; entries of a list are `split_sizes.0`, `split_sizes.1` …"""
        found: list[tuple[str, int]] = []
        self.map(lambda name, value: found.append((name, value)) or value)  # type: ignore[func-returns-value]
        return iter(found)

    def map(self, function: Callable[[str, int], int]) -> Any:
        """The value with `function` of its name and value in the place of each number above 1."""

        def inner(name: str, value: Any) -> Any:
            if isinstance(value, list | tuple):
                return _like(value, [inner(f"{name}.{index}", entry) for index, entry in enumerate(value)])
            return function(name, value) if _is_number(value) else value

        return inner(self.name, self.value)


def slots(model: nn.Module) -> Iterator[Slot]:
    """Every place of a network that holds whole numbers above 1, each once; a number of a class counts as its own."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        theirs = type(module).__module__.partition(".")[0] == "torch"
        for name, value in _of_the_class(type(module)).items():
            if _is_number(value) and name not in vars(module):
                yield Slot(path, name, vars(module), name, value)
        for name, value in list(vars(module).items()):
            if name not in _OWN and not (theirs and name.startswith("_")):
                yield from _inside(path, name, vars(module), name, value, seen)


def _of_the_class(cls: type) -> dict[str, Any]:
    """What instances inherit from classes outside the libraries; Python's own notes, such as line numbers, left out."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] not in _LIBRARIES:
            found |= {name: value for name, value in vars(base).items() if not name.startswith("__")}
    return found


def _inside(path: str, name: str, place: dict[Any, Any], key: Any, value: Any, seen: set[int]) -> Iterator[Slot]:
    if _is_number(value) or _is_list(value):
        yield Slot(path, name, place, key, value)
        return
    inner = value if type(value) in _DICTIONARIES else _fields(value)
    if inner is None or id(inner) in seen or name.count(".") >= _MOST_DEEP:
        return
    seen.add(id(inner))
    for field, entry in list(inner.items()):
        if type(field) is int and str(field) not in inner and (_is_number(entry) or _is_list(entry)):
            yield Slot(path, f"{name}.{field}", inner, field, entry)
        elif isinstance(field, str) and "." not in field:
            yield from _inside(path, f"{name}.{field}", inner, field, entry, seen)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 1 and type(value).__module__ in _NUMBERS


_NUMBERS = ("builtins", "metaprune.graph.provenance")


def _is_list(value: Any) -> bool:
    """Whether it is a plain list or tuple (with named fields, or a shape), at any depth, with a whole number in it."""
    plain = type(value) in (list, tuple, torch.Size) or (isinstance(value, tuple) and hasattr(value, "_make"))
    return plain and any(_is_number(entry) or _is_list(entry) for entry in value)


def _like(value: list[Any] | tuple[Any, ...], entries: list[Any]) -> Any:
    """Other entries in a list or tuple of the same kind."""
    make = getattr(type(value), "_make", type(value))
    return make(entries)


def _fields(value: Any) -> dict[Any, Any] | None:
    """The attributes of an object that only holds values, such as a configuration."""
    if isinstance(value, Tensor | nn.Module | type) or type(value).__module__.partition(".")[0] in _LIBRARIES:
        return None
    return getattr(value, "__dict__", None) if not callable(value) else None


def modules_by_name(model: nn.Module) -> dict[str, nn.Module]:
    """Every module by its path; one that is registered under several names by each of them."""
    return dict(model.named_modules(remove_duplicate=False))


def is_pytorchs(module: nn.Module | None) -> bool:
    """Whether a module is one of PyTorch's layers, or a kind of one: what its attributes are called is known."""
    bases = type(module).__mro__
    return any(base.__module__.partition(".")[0] == "torch" and base is not nn.Module for base in bases)


def whole_numbers(model: nn.Module) -> dict[tuple[str, str], int]:
    """(module, attribute) -> value, for every whole number above 1 that a network holds."""
    return {(slot.path, name): value for slot in slots(model) for name, value in slot.numbers()}


def held(modules: Mapping[str, nn.Module], path: str, attribute: str) -> Any:
    """What a module holds under an attribute; None where there is no such thing."""
    value: Any = modules.get(path)
    for name in attribute.split("."):
        try:
            value = value[int(name)] if isinstance(value, list | tuple) else _get(value, name)
        except (AttributeError, IndexError, KeyError, ValueError):
            return None
    return value


def _get(value: Any, name: str) -> Any:
    return value[_key(value, name)] if isinstance(value, dict) else getattr(value, name)


def _key(value: dict[Any, Any], name: str) -> Any:
    """The key of a dictionary that is called so; keys may be whole numbers."""
    return name if name in value else int(name)


def write_numbers(model: nn.Module, values: Mapping[tuple[str, str], int]) -> None:
    """Set attributes, in place: (module, attribute) -> value; `sizes.1` is the second entry of a tuple or list."""
    modules = modules_by_name(model)
    for (path, attribute), number in values.items():
        if held(modules, path, attribute) != number:
            _put(modules[path], attribute.split("."), number)


def _put(value: Any, names: list[str], number: int) -> Any:
    """`value` with `number` at the end of the way; only tuples are made anew."""
    if not names:
        return number
    name, *rest = names
    if isinstance(value, list | tuple):
        entries = list(value)
        entries[int(name)] = _put(entries[int(name)], rest, number)
        if isinstance(value, tuple):
            return _like(value, entries)
        value[:] = entries
    elif isinstance(value, dict):
        key = _key(value, name)
        value[key] = _put(value[key], rest, number)
    elif rest:
        inner = getattr(value, name)
        if (changed := _put(inner, rest, number)) is not inner:
            _assign(value, name, changed)
    else:
        _assign(value, name, number)
    return value


def _assign(value: Any, name: str, number: Any) -> None:
    """Set an attribute past whatever checks the class of a configuration makes; modules keep theirs."""
    if isinstance(value, nn.Module):
        setattr(value, name, number)
    else:
        vars(value)[name] = number
