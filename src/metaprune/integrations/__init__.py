"""Other libraries' loops and formats: a room knows conventions, never an architecture, and is imported when used."""

from __future__ import annotations

import importlib
from typing import Any

_ROOMS = ("lightning", "transformers")

__all__ = list(_ROOMS)


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'metaprune.integrations' has no attribute {name!r}")
    return importlib.import_module(f"metaprune.integrations.{name}")


def __dir__() -> list[str]:
    return __all__
