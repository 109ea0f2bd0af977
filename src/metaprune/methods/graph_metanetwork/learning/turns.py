"""Pieces of work that several processes share, on one folder: each is done once, by whoever comes to it first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from metaprune.train.processes import apart

__all__ = ["shared"]

P = TypeVar("P")
R = TypeVar("R")


def shared(pieces: Iterable[P], lock: Callable[[P], Path], work: Callable[[P], R]) -> list[R]:
    """What each piece came to, in their order; those that others have in hand are waited for in the end.

    Processes that were started together are as many who work alone, each on pieces of its own.

    Args:
        pieces: What is to be done.
        lock: The file that says who has a piece in hand; the system lets go of it when a process ends. Gone afterwards.
        work: Does a piece, or reads what was done before; nobody else has the piece in hand meanwhile.
    """
    wanted = list(pieces)
    done: dict[int, R] = {}
    for patience in (0, -1):
        for place, piece in enumerate(wanted):
            if place in done:
                continue
            path = lock(piece)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(path, timeout=patience), apart():
                    done[place] = work(piece)
            except Timeout:
                continue
            path.unlink(missing_ok=True)
    return [done[place] for place in range(len(wanted))]
