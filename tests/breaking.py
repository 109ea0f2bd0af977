"""Data that break off, as a killed run does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Breaks:
    """Batches, until so many were given; then an error."""

    def __init__(self, loader: Any, most: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.loader, self.left, self.error = loader, most, error

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            if not self.left:
                raise self.error
            self.left -= 1
            yield batch
