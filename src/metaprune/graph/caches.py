"""What code remembers from call to call (`functools.lru_cache`): numbers in there have lost their source."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["nothing_remembered"]

_Cached = type(functools.lru_cache(len))
_NO_CODE_OF_NETWORKS = {"torch", "sympy", "mpmath", "networkx", *sys.stdlib_module_names}
"""PyTorch, what it computes its own sizes with, and Python: nine in ten of all functions that remember."""


@contextmanager
def nothing_remembered(of: Callable[[Any], bool]) -> Iterator[None]:
    """Cached functions, but for PyTorch's and Python's, compute anew where `of` holds of a number they are given."""
    found = [
        (names, name, value)
        for path, module in list(sys.modules.items())
        if path.partition(".")[0] not in _NO_CODE_OF_NETWORKS
        and isinstance(names := getattr(module, "__dict__", None), dict)
        for name, value in list(names.items())
        if type(value) is _Cached
    ]
    distinct = {id(value): value for _, _, value in found}
    anew = {known: _anew(value, of) for known, value in distinct.items()}
    for names, name, value in found:
        names[name] = anew[id(value)]
    try:
        yield
    finally:
        for names, name, value in found:
            names[name] = value


def _anew(cached: Any, of: Callable[[Any], bool]) -> Any:
    @functools.wraps(cached)
    def function(*args: Any, **kwargs: Any) -> Any:
        return (cached.__wrapped__ if _any((args, kwargs), of) else cached)(*args, **kwargs)

    for name in ("cache_clear", "cache_info", "cache_parameters"):
        setattr(function, name, getattr(cached, name))
    return function


def _any(value: Any, of: Callable[[Any], bool]) -> bool:
    if isinstance(value, list | tuple):
        return any(_any(one, of) for one in value)
    if isinstance(value, dict):
        return any(_any(one, of) for one in value.values())
    return of(value)
