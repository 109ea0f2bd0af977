"""Folders that one run at a time works in, and what a run leaves in them when it is killed.

A lock is a file that the system lets go of when its process ends, however it ends; an unlocked one says nothing.
What a killed run leaves is swept when the next one begins: unfinished files, and folders of drafts that nobody holds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from metaprune.graph.errors import MetapruneError
from metaprune.train.processes import now

__all__ = ["UNFINISHED", "FolderError", "alone_in", "draft", "one_at_a_time", "sweep", "sweep_drafts"]

LOCK = ".metaprune-lock"
UNFINISHED = ".metaprune-unfinished"
"""How the names of files end that are being written."""

P = ParamSpec("P")
T = TypeVar("T")

_held: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())


class FolderError(MetapruneError):
    """A folder that cannot be used: it cannot be written to, or another run works in it."""


@contextlib.contextmanager
def alone_in(folder: Path | str, who: str) -> Iterator[None]:
    """As long as it lasts, nobody else is alone in the folder; whoever holds it already may ask again.

    The folder is made where there is none, and removed again if it is left empty. Of processes that train together the
    first one holds it for all.

    Args:
        folder: The folder.
        who: Who asks, for the error.

    Raises:
        FolderError: Another run is in it, or it cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        now().told(lambda: _enter(Path(folder), who, stack))
        yield


def _enter(folder: Path, who: str, stack: contextlib.ExitStack) -> None:
    try:
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        stack.callback(_remove_empty, missing)
        folder.mkdir(parents=True, exist_ok=True)
        home = folder.resolve()
        ours = home in _held.get()
        free = ours or stack.enter_context(_lock(home / LOCK))
        if free and not ours:
            sweep(home)
    except OSError as error:
        raise FolderError(
            f"{who}: the folder {folder} cannot be written to ({error}); name one that can be written"
        ) from error
    if not free:
        raise FolderError(f"{who}: another run works in {folder}; wait for it, or name another folder")
    stack.callback(_held.reset, _held.set(_held.get() | {home}))


def one_at_a_time(function: Callable[P, T]) -> Callable[P, T]:
    """A function that is alone in the folder it is given as `out`, as long as it runs."""

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> T:
        out = kwargs.get("out")
        if not isinstance(out, str | Path):
            return function(*args, **kwargs)
        with alone_in(out, function.__name__):
            return function(*args, **kwargs)

    return alone


@contextlib.contextmanager
def draft(folder: Path, prefix: str) -> Iterator[Path]:
    """A folder inside `folder` for files that are moved out when all are whole; it is gone in the end."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as place, _lock(Path(place) / LOCK):
        yield Path(place)


def sweep_drafts(folder: Path, prefix: str, names: Collection[str]) -> None:
    """Remove the drafts of killed runs: those that nobody holds, with nothing in them but files of these names."""
    ours = {LOCK, *names, *(f".{name}{UNFINISHED}" for name in names)}
    for place in folder.glob(f"{prefix}*"):
        if place.is_dir() and not place.is_symlink() and {path.name for path in place.iterdir()} <= ours:
            with _lock(place / LOCK) as free:
                if free:
                    shutil.rmtree(place, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove the files that a killed run had not written to their end."""
    for path in folder.glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Whether the file could be locked; it is unlocked and gone in the end."""
    handle = _take(path)
    if handle is None:
        yield False
        return
    _handles.add(handle)
    try:
        yield True
    finally:
        _handles.discard(handle)
        with contextlib.suppress(OSError):
            if not os.fstat(handle).st_size:  # else it is of others
                path.unlink()  # while it is held: whoever waits for it sees that, and makes another
        os.close(handle)


def _take(path: Path) -> int | None:
    """A handle of the locked file; None where somebody else holds it."""
    try:
        import fcntl
    except ImportError:  # no locks of this kind here; runs must take care themselves
        return os.open(path, os.O_RDWR | os.O_CREAT)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            os.close(handle)
            return None
        except OSError:  # a file system without locks
            return handle
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)  # it was removed by its holder before we had it


_handles: set[int] = set()


def _let_go() -> None:
    """A child of a run, such as a loader's worker, does not hold the run's locks: it may outlive it."""
    while _handles:
        os.close(_handles.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
