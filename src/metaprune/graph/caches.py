"""What code remembers from call to call (`functools.lru_cache`): numbers in there have lost their source."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["nothing_remembered"]

_Cached = type(functools.lru_cache(len))
_NO_CODE_OF_NETWORKS = {"torch", "sympy", "mpmath", "networkx", *sys.stdlib_module_names}
"""PyTorch, what it computes its own sizes with, and Python: nine in ten of all functions that remember."""
_INSTALLED = ("site-packages", "dist-packages")

_libraries: dict[str, tuple[Any, dict[str, Any], int, list[str]] | None] = {}
"""Path of an installed module -> itself, its names, how many they were, and those of its functions that remember.

None for what holds no code of networks.
"""
_anew: dict[type, dict[int, Any]] = {}
"""For each kind of number: identity of a function that remembers -> what takes its place."""


@contextmanager
def nothing_remembered(kind: type) -> Iterator[None]:
    """Cached functions, but for PyTorch's and Python's, compute anew where they are given a number of this kind."""
    found = list(_remembering())
    before = _anew.get(kind, {})
    anew = _anew[kind] = {id(value): before.get(id(value)) or _for(value, kind) for _, _, value in found}
    for names, name, value in found:
        names[name] = anew[id(value)]
    try:
        yield
    finally:
        for names, name, value in found:
            names[name] = value


def _remembering() -> Iterator[tuple[dict[str, Any], str, Any]]:
    """The functions that remember, with the dictionary and the name under which a module holds each.

    Of thousands of modules that are imported, those of installed libraries are looked through once, and again when
    they have come to hold more names or fewer.
    """
    for path, module in list(sys.modules.items()):
        known = _libraries.get(path, ())
        if known is None:
            continue
        if known and known[0] is module and known[2] == len(known[1]):
            _, names, _, here = known
        elif path.partition(".")[0] in _NO_CODE_OF_NETWORKS:
            _libraries[path] = None
            continue
        elif isinstance(held := getattr(module, "__dict__", None), dict):
            names = held
            here = [name for name, value in list(names.items()) if type(value) is _Cached]
            if path.startswith("metaprune.") or any(folder in str(names.get("__file__")) for folder in _INSTALLED):
                _libraries[path] = module, names, len(names), here
        else:
            continue
        for name in here:
            if type(value := names.get(name)) is _Cached:
                yield names, name, value


def _for(cached: Any, kind: type) -> Any:
    @functools.wraps(cached)
    def function(*args: Any, **kwargs: Any) -> Any:
        return (cached.__wrapped__ if _any((args, kwargs), kind) else cached)(*args, **kwargs)

    for name in ("cache_clear", "cache_info", "cache_parameters"):
        setattr(function, name, getattr(cached, name))
    return function


def _any(value: Any, kind: type) -> bool:
    if isinstance(value, list | tuple):
        return any(_any(one, kind) for one in value)
    if isinstance(value, dict):
        return any(_any(one, kind) for one in value.values())
    return isinstance(value, kind)
