"""Reading time: of the thread itself on one thread of a CPU, of the wall on several, behind the kernels elsewhere."""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.benchmark.utils.timer import timer as synchronised

__all__ = ["hold_memory", "least", "on_threads", "reading"]

_ENOUGH = 2e-3
"""Seconds after which a call that was timed some times is not timed again."""

_LONG = 10 * _ENOUGH
"""After so many seconds it is not timed again however seldom it was."""

_MOST = 30
_FEWEST = 3

_HELD = 2**25 - 2**16
"""Bytes: a little below 32 MiB, the most that glibc lets its limits grow by."""


def reading(device: torch.device, threads: int, call: Callable[[], Any]) -> Callable[[], float]:
    """What reads the time around a call, in seconds.

    One thread of a CPU is read by its own clock, which stands still while the machine does other things; unless the
    call waits for something, which shows in how often it gives its core away.

    Args:
        device: Where the call runs.
        threads: How many threads of a CPU it uses.
        call: The call; made once.
    """
    hold_memory()
    before = _waits()
    call()
    if device.type != "cpu":
        return synchronised
    waited = before is None or _waits() != before
    return timeit.default_timer if threads != 1 or waited else time.thread_time


def hold_memory() -> None:
    """Let the C library keep what tensors let go of, as it does once a large block went.

    Until a process has let go of a large block, glibc gives the memory of every larger tensor back to the system and
    asks for it again, page by page: a third of the time of a small network, and more or less of it as the heap happens
    to lie. The largest block that it lets go of sets from when on it does so; this is the largest that counts. Some at
    once, untouched, because the first may lie in memory that is free already, and then counts for nothing.
    """
    [torch.empty(_HELD, dtype=torch.uint8, device="cpu") for _ in range(3)]


def _waits() -> int | None:
    """How often this thread has given its core away; None where the system does not say."""
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    except (ImportError, AttributeError, OSError, ValueError):
        return None


def least(call: Callable[[], Any], device: torch.device, clock: Callable[[], float]) -> float:
    """The least time of a call, in ms: of single calls on a CPU, of blocks of calls on devices that queue them."""
    block = 1 if device.type == "cpu" else 20
    best, spent, runs = float("inf"), 0.0, 0
    if block > 1:
        call()
    while spent < _LONG and (runs < _FEWEST or (spent < _ENOUGH and runs < _MOST)):
        start = clock()
        for _ in range(block):
            call()
        took = clock() - start
        best, spent, runs = min(best, took / block), spent + took, runs + 1
    return max(best, 1e-9) * 1e3


@contextmanager
def on_threads(threads: int) -> Iterator[None]:
    """So many CPU threads inside, as many as before behind."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
