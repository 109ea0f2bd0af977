"""Silence for one thread: what PyTorch and a network say while they are exported; the others are heard."""

from __future__ import annotations

import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

__all__ = ["quiet"]


@contextmanager
def quiet() -> Iterator[None]:
    """What fails is told by the error, not by pages of log; for this thread alone."""
    ours = threading.get_ident()
    handle = logging.Logger.handle

    def handle_others(logger: logging.Logger, record: logging.LogRecord) -> None:
        if threading.get_ident() != ours or record.levelno > logging.ERROR:
            handle(logger, record)

    with (
        patch.object(logging.Logger, "handle", handle_others),
        patch.object(sys, "stderr", _ForOthers(sys.stderr, ours)),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


class _ForOthers:
    """The error stream, deaf to one thread."""

    def __init__(self, stream: Any, thread: int) -> None:
        self._stream, self._thread = stream, thread
        self._nowhere = io.StringIO()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._nowhere if threading.get_ident() == self._thread else self._stream, name)
