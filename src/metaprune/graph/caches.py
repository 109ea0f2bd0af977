"""What code remembers from call to call (`functools.lru_cache`): numbers in there have lost their source."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["nothing_remembered"]

_Cached = type(functools.lru_cache(len))
_NO_CODE_OF_NETWORKS = {"torch", "sympy", "mpmath", "networkx", *sys.stdlib_module_names}
"""PyTorch, what it computes its own sizes with, and Python: nine in ten of all functions that remember."""
_INSTALLED = ("site-packages", "dist-packages")

_Names = dict[str, Any]

_libraries: dict[str, tuple[Any, _Names, int, list[str]] | None] = {}
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


@dataclass(frozen=True)
class _Look:
    """What was found in all modules that were imported.

    Attributes:
        modules: They themselves, in order.
        installed: What those of installed libraries hold by name.
        counts: How many names each of these held.
        remember: Those in which functions remember, with the names of these.
        open: What the others hold, which may change at any time, as notebooks do.
    """

    modules: list[Any]
    installed: list[_Names]
    counts: list[int]
    remember: list[tuple[_Names, list[str]]]
    open: list[_Names]

    @property
    def holds(self) -> bool:
        """Whether no module came or went, and no library came to hold more names or fewer."""
        now = list(sys.modules.values())
        same = len(now) == len(self.modules) and all(map(operator.is_, now, self.modules))
        return same and self.counts == list(map(len, self.installed))


_look: _Look | None = None


def _remembering() -> Iterator[tuple[_Names, str, Any]]:
    """The functions that remember, with the dictionary and the name under which a module holds each."""
    global _look
    if _look is None or not _look.holds:
        _look = _looked_through()
    own = [(names, [name for name, value in list(names.items()) if type(value) is _Cached]) for names in _look.open]
    for names, here in (*_look.remember, *own):
        for name in here:
            if type(value := names.get(name)) is _Cached:
                yield names, name, value


def _looked_through() -> _Look:
    """All of thousands of modules; those of installed libraries only where they are new or hold more or less."""
    modules = dict(sys.modules)
    found = _Look(list(modules.values()), [], [], [], [])
    for path, module in modules.items():
        known = _libraries.get(path, ())
        if known == () and path.partition(".")[0] in _NO_CODE_OF_NETWORKS:
            known = _libraries[path] = None
        if known is None or not isinstance(names := getattr(module, "__dict__", None), dict):
            continue
        if not known or known[0] is not module or known[2] != len(names):
            if not path.startswith("metaprune.") and not any(part in str(names.get("__file__")) for part in _INSTALLED):
                found.open.append(names)
                continue
            here = [name for name, value in list(names.items()) if type(value) is _Cached]
            known = _libraries[path] = module, names, len(names), here
        found.installed.append(names)
        found.counts.append(known[2])
        if known[3]:
            found.remember.append((names, known[3]))
    return found


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
