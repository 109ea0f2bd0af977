"""Trains, is killed, trains on, and says what differs from a training that was left alone.

Usage: killed.py FOLDER KILL...  A kill is "sgd, after step 4": the optimizer, the place (or "evaluating",
"between the renames", "in the write"), and how often it is passed before. Everything random is used: order,
noise from Python, NumPy and torch, dropout.
"""

import dataclasses
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import lightning_fabric  # noqa: F401  (once here is quicker than once a start)
import numpy as np
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from metaprune.train import Checkpoint, Classification, Recipe, fit


class Noisy(Dataset[tuple[Tensor, int]]):
    """Images with noise from all three sources."""

    def __init__(self, total: int) -> None:
        self.images = torch.randn(total, 1, 4, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index] + random.random() + float(np.random.rand()) + torch.rand(1), index % 3


class Walk:
    """A state beside the network: counts, and walks at random."""

    def __init__(self) -> None:
        self.steps, self.place, self.then = 0, torch.zeros(2), lambda: None

    def after_step(self, step: int, steps: int) -> None:
        self.steps += 1
        self.place += torch.randn(2)
        self.then()

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.place = state["steps"], state["place"].clone()


def train(folder: Path, optimizer: str, kill: str = "") -> None:
    """One training of 3 epochs of 5 steps, each of which but the last ends with a save."""
    what, _, when = kill.rpartition(" ")
    countdown = int(when or 0)

    def maybe(here: str) -> None:
        nonlocal countdown
        if here == what:
            if countdown == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            countdown -= 1

    def metric(logits: Tensor, batch: Any) -> Any:
        maybe("evaluating")
        return task.metric(logits, batch)

    replace_file, sync = Path.replace, os.fsync

    def replace(self: Path, target: Path) -> Path:
        if self.name == ".checkpoint.safetensors.metaprune-unfinished":
            maybe("between the renames")
        return replace_file(self, target)

    def fsync(file: Any) -> None:
        if kill.startswith("in the write") and countdown == 0:
            os.ftruncate(file, 1000)
        maybe("in the write")
        sync(file)

    Path.replace, os.fsync = replace, fsync  # type: ignore[method-assign, assignment]
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(16, 3)
    )
    walk = Walk()
    walk.then = lambda: maybe("after step")
    task = Classification(DataLoader(Noisy(38), batch_size=8, shuffle=True), DataLoader(Noisy(12), batch_size=8))
    fit(
        network,
        dataclasses.replace(task, metric=metric),
        Recipe(epochs=3, lr=0.05, warmup=1.0, optimizer=optimizer, device="cpu"),  # type: ignore[arg-type]
        during=[walk],
        checkpoint=Checkpoint(folder, seconds=0),
        progress=False,
    )


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Leaves by their paths, times left out."""
    if isinstance(tree, dict):
        pairs: Any = tree.items()
    elif isinstance(tree, list | tuple):
        pairs = enumerate(tree)
    else:
        return {path: tree.tolist() if isinstance(tree, Tensor) else tree}
    return {
        key: leaf for name, child in pairs if name != "seconds" for key, leaf in flat(child, f"{path}/{name}").items()
    }


def forked(folder: Path, optimizer: str, kill: str = "") -> int:
    """Trains in a process of its own; the signal that killed it, or 0."""
    child = os.fork()
    if child == 0:
        train(folder, optimizer, kill)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    expected = {}
    for optimizer in {name.split(", ")[0] for name in sys.argv[2:]}:
        forked(folder / optimizer, optimizer)  # this process trains nothing: autograd's threads do not survive a fork
        expected[optimizer] = flat(Checkpoint(folder / optimizer).load())
    outcomes = {}
    for number, name in enumerate(sys.argv[2:]):
        optimizer, kill = name.split(", ")
        died = -forked(folder / str(number), optimizer, kill)
        forked(folder / str(number), optimizer)
        found, alone = flat(Checkpoint(folder / str(number)).load()), expected[optimizer]
        different = [key for key in alone | found if repr(alone.get(key)) != repr(found.get(key))]
        outcomes[name] = {"signal": died, "different": different}
    sys.stdout.write(json.dumps(outcomes))
