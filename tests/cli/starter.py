"""Starts a command again and again in processes that may be killed, and compares what they make."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.forks import Forks

from metaprune.saving import read_weights

Made = tuple[str, dict[str, bytes], dict[str, str]]


@dataclass
class Starter:
    """Starts the command in a folder; `alone` there is a run that nothing happened to."""

    folder: Path
    asking: IO[str]
    answers: IO[str]

    def start(self, out: str, place: str = "") -> int:
        """The exit code of one start, which dies at the place."""
        self.asking.write(f"{out} {place}\n")
        self.asking.flush()
        return int(self.answers.readline())

    def said(self, out: str) -> str:
        """The words of all starts."""
        return (self.folder / f"{out}.log").read_text()

    def left(self, out: str) -> list[str]:
        """What no run should leave behind."""
        folder = self.folder / out
        odd = [path for path in folder.rglob("*") if path.name.startswith(".")]
        return [str(path.relative_to(folder)) for path in odd]

    def bits(self, out: str) -> dict[str, Any]:
        """Everything that was made: tensors bit by bit, JSON without what is measured, the names of other files."""
        found: dict[str, Any] = {}
        for path in sorted((self.folder / out).rglob("*")):
            name = str(path.relative_to(self.folder / out))
            if "checkpoints" in path.parts or path.name == "lock":
                continue
            if path.suffix == ".safetensors":
                weights, meta = read_weights(path)
                found[name] = {key: (tensor.dtype, tensor.numpy().tobytes()) for key, tensor in weights.items()}, meta
            elif path.suffix == ".json":
                found[name] = timeless(json.loads(path.read_text()), out)
            elif path.is_file() and path.suffix not in (".html", ".md"):
                found[name] = path.read_bytes()
            else:
                found[name] = None
        return found

    def made(self, out: str) -> Made:
        """The plan, the weights bit by bit, and what is written beside them."""
        weights, meta = read_weights(self.folder / out / "model.safetensors")
        bits = {name: tensor.numpy().tobytes() for name, tensor in weights.items()}
        return (self.folder / out / "plan.json").read_text(), bits, meta


def timeless(tree: Any, out: str) -> Any:
    """JSON without times, checksums of them, and the name of the folder."""
    if isinstance(tree, dict):
        dropped = ("latency", "latency_unaligned", "crc32", "seconds", "notes", "alignment", "commands")
        return {name: timeless(inner, out) for name, inner in tree.items() if name not in dropped}
    if isinstance(tree, list):
        return [timeless(inner, out) for inner in tree]
    return tree.replace(out, "OUT") if isinstance(tree, str) else tree


@contextmanager
def starting(forks: Forks, folder: Path, command: str) -> Iterator[Starter]:
    """A starter of a command in a folder."""
    (asked, asking), (answers, answering) = os.pipe(), os.pipe()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = command.split()
    process = forks.start(
        "tests.cli.killed", *words, folder=folder, environment=environment, streams=(asked, answering, 2)
    )
    os.close(asked)
    os.close(answering)
    with os.fdopen(asking, "w") as to, os.fdopen(answers) as of:
        yield Starter(folder, to, of)
    process.wait()
