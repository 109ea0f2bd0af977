"""What a network's code may write outside of its modules, noted before it runs and put back afterwards.

Enclosed variables and dictionaries of hooks, defaults that are lists, globals that the code names, attributes of
classes, caches of functions, and the random numbers of the process.
"""

from __future__ import annotations

import dis
import functools
import gc
import random
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as globally

from metaprune.graph.reach import contents, is_foreign, reached, restore

__all__ = ["drawn_so_far", "random_numbers_kept", "seeded", "surroundings_kept"]

_MOST = 20_000  # objects; beyond them nothing is noted


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """The random numbers of Python, NumPy and PyTorch go on afterwards as if none had been drawn inside."""
    python = random.getstate()
    numbers = sys.modules.get("numpy.random")
    arrays = numbers.get_state() if numbers is not None else None
    tensors = torch.get_rng_state()
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = torch.cuda.get_rng_state_all() if started else []
    try:
        yield
    finally:
        random.setstate(python)
        if numbers is not None:
            numbers.set_state(arrays)
        torch.set_rng_state(tensors)
        if devices:
            torch.cuda.set_rng_state_all(devices)


def seeded(seed: int) -> None:
    """Start the random numbers of Python, NumPy and PyTorch (those of the CPU) anew."""
    random.seed(seed)
    numbers = sys.modules.get("numpy.random")
    if numbers is not None:
        numbers.seed(seed)
    torch.default_generator.manual_seed(seed)


def drawn_so_far() -> tuple[Any, ...]:
    """A note that equals another as long as neither Python nor NumPy drew random numbers in between."""
    numbers = sys.modules.get("numpy.random")
    _, state, *rest = numbers.get_state() if numbers is not None else ("", b"")
    return (random.getstate(), bytes(state), *rest)


@contextmanager
def surroundings_kept(model: nn.Module) -> Iterator[None]:
    """What the code of `model` writes outside of it is as it was afterwards, also after an error."""
    functions, classes = _code_of(model)
    inside = {id(value) for value in reached(model, through_functions=False)}
    found: list[Any] = []
    variables: list[tuple[dict[str, Any], str, Any]] = []
    for function in functions:
        for name in _named_globals(function.__code__, written=True):
            variables.append((function.__globals__, name, function.__globals__.get(name, _NOTHING)))
    named = [
        value
        for function in functions
        for name in _named_globals(function.__code__, written=False)
        if (value := function.__globals__.get(name)) is not None and not isinstance(value, type | types.ModuleType)
    ]
    held = [value for cls in classes for value in vars(cls).values() if not isinstance(value, types.FunctionType)]
    for value in reached(*functions, *named, *held):
        found.append(value)
        if len(found) > _MOST:
            break
    cells = [cell for value in found if isinstance(value, types.FunctionType) for cell in value.__closure__ or ()]
    noted_cells = [(cell, _content(cell)) for cell in cells]
    noted = [(v, note) for v in found if id(v) not in inside and (note := contents(v)) is not None]
    attributes = [(cls, name, value) for cls in classes for name, value in vars(cls).items() if _is_state(name, value)]
    names = {cls: set(vars(cls)) for cls in classes}
    tensors = [(v, v._version, v.detach().clone()) for v in found if _may_be_written(v) and id(v) not in inside]
    caches = [value for value in [*named, *held, *found] if isinstance(value, _Cache)]
    for cache in caches:
        if any(isinstance(value, Tensor) for value in _cached(cache)):
            cache.cache_clear()
    filled = [cache.cache_info().misses for cache in caches]
    try:
        yield
    finally:
        for value, note in noted:
            restore(value, note)
        for cell, content in noted_cells:
            if _content(cell) is not content and content is not _NOTHING:
                cell.cell_contents = content
        for place, name, value in variables:
            if place.get(name, _NOTHING) is not value:
                if value is _NOTHING:
                    del place[name]
                else:
                    place[name] = value
        for cls, name, value in attributes:
            if vars(cls).get(name, _NOTHING) is not value:
                setattr(cls, name, value)
        for cls, known in names.items():
            for name in set(vars(cls)) - known:
                if _is_state(name, vars(cls)[name]):
                    delattr(cls, name)
        with torch.no_grad():
            for tensor, version, before in tensors:
                if tensor._version != version:
                    tensor.copy_(before)
        for cache, misses in zip(caches, filled, strict=True):
            if cache.cache_info().misses != misses:
                cache.cache_clear()


_NOTHING = object()
_Cache = functools._lru_cache_wrapper


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _NOTHING


def _cached(cache: Any) -> Iterator[Any]:
    """What lies in the cache of a function, as far as the garbage collector sees it."""
    for inner in gc.get_referents(cache):
        if isinstance(inner, dict):
            for value in inner.values():
                yield value
                yield from gc.get_referents(value) if not isinstance(value, Tensor) else ()


def _is_state(name: str, value: Any) -> bool:
    """Whether an attribute of a class is a value that code might set, not a part of the class itself."""
    return not name.startswith("__") and not isinstance(
        value, types.FunctionType | property | staticmethod | classmethod | type | types.MemberDescriptorType
    )


def _may_be_written(value: Any) -> bool:
    return type(value) in (Tensor, nn.Parameter) and not value.is_meta and not value.is_inference()


def _code_of(model: nn.Module) -> tuple[list[types.FunctionType], list[type]]:
    """The functions of a network, and those of its own packages that they call; and the classes of its modules."""
    classes: dict[type, None] = {}
    functions: dict[types.FunctionType, None] = {}
    for module in model.modules():
        for cls in type(module).__mro__:
            if not is_foreign(cls) and cls not in classes:
                classes[cls] = None
    packages = {cls.__module__.partition(".")[0] for cls in classes}
    waiting: list[Any] = [value for cls in classes for value in vars(cls).values()]
    waiting += reached(model)
    hooks = (globally._global_forward_hooks, globally._global_forward_pre_hooks)
    waiting += [hook for known in hooks for hook in known.values()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        elif isinstance(value, types.MethodType):
            value = value.__func__
        while hasattr(value, "__wrapped__"):
            if isinstance(value, types.FunctionType) and value not in functions:
                functions[value] = None
            value = value.__wrapped__
        if not isinstance(value, types.FunctionType) or value in functions:
            continue
        if (value.__module__ or "").partition(".")[0] in ("torch", "metaprune"):
            continue
        functions[value] = None
        for name in _named_globals(value.__code__, written=False):
            other = value.__globals__.get(name)
            if callable(other) and (getattr(other, "__module__", "") or "").partition(".")[0] in packages:
                waiting.append(other)
    return list(functions), list(classes)


@functools.cache
def _named_globals(code: types.CodeType, written: bool) -> tuple[str, ...]:
    """The globals that code, and the code inside it, speaks of, or writes."""
    kinds = {"STORE_GLOBAL", "DELETE_GLOBAL"} if written else {"LOAD_GLOBAL", "LOAD_NAME"}
    found = {step.argval for step in dis.get_instructions(code) if step.opname in kinds}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= set(_named_globals(constant, written))
    return tuple(sorted(found))
