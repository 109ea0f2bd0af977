"""What code remembers from call to call (`functools.lru_cache`): numbers in there have lost their source."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["nothing_remembered"]

_Cached = type(functools.lru_cache(len))


@contextmanager
def nothing_remembered(of: Callable[[Any], bool]) -> Iterator[None]:
    """Cached functions of all modules but PyTorch's compute anew where `of` holds of a number among their arguments."""
    found = [
        (names, name, value)
        for path, module in list(sys.modules.items())
        if path.partition(".")[0] != "torch" and isinstance(names := getattr(module, "__dict__", None), dict)
        for name, value in list(names.items())
        if type(value) is _Cached
    ]
    for names, name, value in found:
        names[name] = _anew(value, of)
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
