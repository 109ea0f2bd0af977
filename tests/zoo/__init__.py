"""Small networks, written as their users write them, that every law is checked on."""

from functools import lru_cache
from typing import Any

import pytest

from tests.zoo import (
    attention,
    branching,
    convolution,
    detection,
    grouped,
    habits,
    norm,
    opaque,
    parameters,
    picking,
    pretrained,
    recurrent,
    residual,
    sequence,
    training,
    vision,
)
from tests.zoo.entry import Entry, randomise

__all__ = ["ZOO", "Entry", "few", "networks", "randomise"]

few = lru_cache(maxsize=8)
"""Remembers what was made of a network while its tests run together; to keep all graphs slows Python down."""

_WHOLE = (vision, detection, recurrent, parameters)
_FILES = (
    convolution,
    residual,
    branching,
    grouped,
    norm,
    attention,
    sequence,
    picking,
    opaque,
    habits,
    training,
    pretrained,
    *_WHOLE,
)
ZOO: dict[str, Entry] = {entry.name: entry for file in _FILES for entry in file.ENTRIES}


def networks(families: int = 1) -> list[Any]:
    """All networks as parameters of a test; slow are all but the first of every so many families, and long ones."""
    seen: dict[str, None] = {}
    parameters = []
    for name, entry in ZOO.items():
        kept = entry.family not in seen and len(seen) % families == 0 and not entry.slow
        seen[entry.family] = None
        parameters.append(pytest.param(name, marks=() if kept else pytest.mark.slow))
    return parameters
