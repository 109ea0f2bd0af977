"""Starts `metaprune` again and again, in processes of their own that may die by SIGKILL at a place.

Usage: killed.py COMMAND...  Each line on standard input, "OUT PLACE", is one start with `--out OUT`; its exit
code is the answer, and its words go to OUT.log. A place is "search, after step 7": the phase of the training,
what is going on ("after step", "evaluating", "between the renames"), and how often that is passed before.
Where a process is to die, every step ends with a checkpoint.
"""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning_fabric  # noqa: F401  (once here is quicker than once a start)
import sklearn.datasets  # noqa: F401
import torch.export  # noqa: F401

from metaprune import session
from metaprune.cli import app
from metaprune.train.run import Run


def arm(place: str) -> None:
    """From now on this process dies at the place."""
    phase, _, event = place.partition(", ")
    what, _, times = event.rpartition(" ")
    countdown, current = int(times), ""

    def passing(here: str, method: Callable[..., Any], first: bool) -> Callable[..., Any]:
        def passed(self: Any, *args: Any) -> Any:
            nonlocal countdown, current
            current = self.name if isinstance(self, Run) else current
            result = None if first else method(self, *args)
            newest = here != "between the renames" or self.name == ".checkpoint.safetensors.metaprune-unfinished"
            if (current, here) == (phase, what) and newest:
                if countdown == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                countdown -= 1
            return method(self, *args) if first else result

        return passed

    Run.save_every = Run.save  # type: ignore[method-assign]
    Run.count = passing("after step", Run.count, first=False)  # type: ignore[method-assign]
    Run.end_epoch = passing("evaluating", Run.end_epoch, first=True)  # type: ignore[method-assign]
    Path.replace = passing("between the renames", Path.replace, first=True)  # type: ignore[method-assign]


session.latencies = partial(session.latencies, seconds=0.01)  # type: ignore[attr-defined]
for line in sys.stdin:
    out, _, place = line.strip().partition(" ")
    child = os.fork()
    if child == 0:
        log = os.open(f"{out}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if place:
            arm(place)
        app([*sys.argv[1:], "--out", out])
    sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
    sys.stdout.flush()
