"""Small networks, written as their users write them, that every law is checked on."""

from tests.zoo import attention, branching, convolution, grouped, norm, opaque, residual, sequence
from tests.zoo.entry import Entry, randomise

__all__ = ["ZOO", "Entry", "randomise"]

_FILES = (convolution, residual, branching, grouped, norm, attention, sequence, opaque)
ZOO: dict[str, Entry] = {entry.name: entry for file in _FILES for entry in file.ENTRIES}
