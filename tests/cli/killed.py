"""Starts `metaprune` again and again, in processes of their own that may die by SIGKILL at a place.

Usage: killed.py COMMAND...  Each line on standard input, "OUT PLACE", is one start, with OUT in the place of the
word OUT in the command; its exit code is the answer, and its words go to OUT.log. A place is "search, after step 7":
the phase of the training, what is going on ("after step", "evaluating", "between the renames"), and how often that is
passed before. Then every step ends with a checkpoint. Or it is "event 7", the seventh change of a file below OUT;
"event 0" says how many there are; "after 1.5", seconds; "size 20000", where no file can grow beyond as many bytes.
"""

import atexit
import gc
import importlib
import os
import pkgutil
import resource
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning_fabric  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch
import torch._dynamo
from torch import nn
from typer.testing import CliRunner

import metaprune
from metaprune.cli import app
from metaprune.report import page
from metaprune.session import measuring
from metaprune.train.run import Run


def arm(place: str) -> None:
    """From now on this process dies at the place."""
    phase, _, event = place.partition(", ")
    what, _, times = event.rpartition(" ")
    countdown, current = int(times), ""

    def passing(here: str, method: Callable[..., Any], first: bool) -> Callable[..., Any]:
        def passed(self: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal countdown, current
            current = self.name if isinstance(self, Run) else current
            result = None if first else method(self, *args, **kwargs)
            newest = here != "between the renames" or self.name == ".checkpoint.safetensors.metaprune-unfinished"
            if (current, here) == (phase, what) and newest:
                if countdown == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                countdown -= 1
            return method(self, *args, **kwargs) if first else result

        return passed

    Run.save_every = Run.save  # type: ignore[method-assign]
    Run.count = passing("after step", Run.count, first=False)  # type: ignore[method-assign]
    Run.end_epoch = passing("evaluating", Run.end_epoch, first=True)  # type: ignore[method-assign]
    Path.replace = passing("between the renames", Path.replace, first=True)  # type: ignore[method-assign]


def arm_events(number: int) -> None:
    """From now on this process dies right before that change of a file, or says in the end how many there were."""
    changes, home, seen = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"), str(Path(out).resolve()), 0

    def noted(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        opened = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (opened or event in changes) and str(args[0]).startswith((home, out)):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(noted)
    if number == 0:
        atexit.register(lambda: sys.stderr.write(f"events: {seen}\n"))


def arm_any(place: str) -> None:
    """From now on something happens to this process."""
    what, _, much = place.rpartition(" ")
    if what == "event":
        arm_events(int(much))
    elif what == "after":
        threading.Timer(float(much), os.kill, (os.getpid(), signal.SIGKILL)).start()
    elif what == "size":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(much), int(much)))
    else:
        arm(place)


def warm() -> None:
    """What each start would import and make for itself, once; nothing is trained here, as autograd does not fork."""
    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(metaprune.__path__, "metaprune."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    CliRunner().invoke(app, ["--help"])
    page._page()
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    metaprune.trace(nn.Sequential(*layers), (torch.zeros(2, 1, 5, 5),))
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


warm()
measuring.latencies = partial(measuring.latencies, seconds=0.001)  # type: ignore[attr-defined]
for line in sys.stdin:
    out, _, place = line.strip().partition(" ")
    child = os.fork()
    if child == 0:
        log = os.open(f"{out}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if place:
            arm_any(place)
        app([word.replace("OUT", out) for word in sys.argv[1:]])
    sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
    sys.stdout.flush()
