"""Processes that start at once: copies of this one, which has imported everything, made before it ran a test.

A new interpreter imports for seven seconds; a copy of a process that has trained cannot train, as autograd's threads do
not survive a fork. So one copy is made before the first test. It runs nothing itself, and forks when it is asked to.
What it shares with its copies, a new interpreter would have of its own: what is imported, and the order of sets.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import NoReturn

DIGITS = 12
"""Bytes of an answer."""


class Process:
    """One that was started."""

    def __init__(self, told: int) -> None:
        self._told = told
        self.pid = self._number(None)
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or the signal that ended it, below zero."""
        if self.returncode is None:
            self.returncode = self._number(timeout)
            os.close(self._told)
        return self.returncode

    def kill(self) -> None:
        """Ends it, if it has not ended."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def _number(self, timeout: float | None) -> int:
        if not select.select([self._told], [], [], timeout)[0]:
            raise TimeoutExpired(f"process {self.pid}", timeout or 0)
        return int(os.read(self._told, DIGITS))


class Forks:
    """Runs modules in copies of the process that makes this, as it is then."""

    def __init__(self) -> None:
        self._asking, asked = socket.socketpair()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that other threads may hold locks: they only read
            self._pid = os.fork()
        if self._pid == 0:
            self._asking.close()
            try:
                _serve(asked)
            finally:
                os._exit(0)
        asked.close()

    def start(
        self, module: str, *words: object, folder: Path, environment: Mapping[str, str], streams: tuple[int, int, int]
    ) -> Process:
        """As `python -m module words` in a folder; `streams` are the open files for input, output and errors."""
        (told, tells), (asked, asks) = os.pipe(), os.pipe()
        socket.send_fds(self._asking, [b"?"], [*streams, tells, asked])
        os.close(tells)
        os.close(asked)
        with os.fdopen(asks, "w") as file:
            json.dump([module, [str(word) for word in words], str(folder), dict(environment)], file)
        return Process(told)

    def end(self) -> None:
        """No more will be started, and those that were have ended."""
        self._asking.close()
        os.waitpid(self._pid, 0)


def _serve(asked: socket.socket) -> None:
    """Start what is asked for, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the tests
    atexit._clear()  # what the tests' process does when it ends is not for copies to do
    while True:
        said, files, *_ = socket.recv_fds(asked, 1, 5)
        if not said:
            break
        if os.fork() == 0:
            asked.close()
            _attend(*files)
        for file in files:
            os.close(file)
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _attend(stdin: int, stdout: int, stderr: int, tells: int, asked: int) -> NoReturn:
    """Wait for one process, and say what came of it."""
    try:
        child = os.fork()
        if child == 0:
            os.close(tells)
            with os.fdopen(asked) as file:
                request = json.load(file)
            _run(*request, [stdin, stdout, stderr])
        os.write(tells, f"{child:{DIGITS}}".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(tells, f"{code:{DIGITS}}".encode())
    finally:
        os._exit(0)


def _run(module: str, words: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> NoReturn:
    """What a new interpreter would do."""
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.path.insert(0, folder)
        warnings.resetwarnings()
        for hidden in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", hidden)
        sys.argv = [module, *words]
        sys.modules.pop(module, None)
        code = _code_of(module)
        atexit._run_exitfuncs()
        sys.stdout.flush()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _code_of(module: str) -> int:
    """Runs it; what it ends with."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as exit:
        if isinstance(exit.code, int | None):
            return exit.code or 0
        sys.stderr.write(f"{exit.code}\n")
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
