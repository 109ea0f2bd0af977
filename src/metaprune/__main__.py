"""`metaprune` and `python -m metaprune`: what holds before and around every command.

Text is UTF-8 whatever the locale says. Ctrl-C and SIGTERM end a command in one line, with exit code 130 or 143, also
while modules are still being imported; standard output that cannot be written to ends it with 2.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from io import TextIOWrapper
from types import FrameType
from typing import NoReturn

__all__ = ["main"]

ENDED = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def main() -> None:
    """Run the command line."""
    _speak_utf8()
    received = _listen()
    try:
        from metaprune.cli import app

        app(prog_name="metaprune")
    except SystemExit as exit:
        if received and exit.code not in (None, 0, 128 + received[0]):
            _leave(received[0])  # the interruption was taken for another error on its way
        _flush(exit.code)
        raise
    except BaseException as error:
        if received:
            _leave(received[0])
        if isinstance(error, OSError) and "--debug" not in sys.argv and "METAPRUNE_DEBUG" not in os.environ:
            _refuse(error)
        raise
    finally:
        for number in ENDED:
            signal.signal(number, signal.SIG_IGN)  # it is over, whatever comes now


def _speak_utf8() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _listen() -> list[int]:
    """Turn signals into `KeyboardInterrupt`; the numbers of those that came are added to the list."""
    received: list[int] = []
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a child, such as a loader's worker, ends as any other process does
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received.append(number)
        if _importing(frame):  # where an exception may be swallowed, or taken for a module that is missing
            _leave(number)
        raise KeyboardInterrupt(number)

    for number in ENDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    return received


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _leave(number: int) -> NoReturn:
    """End at once. What is on the disk is whole at any time."""
    with suppress(OSError):
        os.write(2, f"metaprune: {ENDED[signal.Signals(number)]}; start the same command again to go on\n".encode())
    os._exit(128 + number)


def _flush(code: object) -> None:
    """See that all that was printed arrives, or say that it does not."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not code and not isinstance(error, BrokenPipeError):
            _refuse(error)
        _to_nowhere()


def _refuse(error: OSError) -> NoReturn:
    """End in one line, whatever standard output does."""
    _to_nowhere()
    with suppress(OSError):
        os.write(2, f"metaprune: the output cannot be written ({error})\n".encode(errors="backslashreplace"))
    raise SystemExit(2) from None


def _to_nowhere() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
