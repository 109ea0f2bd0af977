"""What experiments share that go run by run, are resumed, and have several processes on one folder."""

import fcntl
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

import metaprune as mp
from metaprune.train.atomic import write_json, write_weights
from metaprune.train.engine import fit


@dataclass(frozen=True)
class Run:
    """One arm at one budget with one seed."""

    arm: str
    share: float
    seed: int

    @property
    def folder(self) -> str:
        """Where it is kept."""
        return f"{self.arm}-{self.share:g}-{self.seed}"


@dataclass(frozen=True)
class Setting:
    """How a network is built, and trained, densely and then pruned."""

    dense: mp.Recipe
    pruned: mp.Recipe
    sizes: dict[str, int] = field(default_factory=dict)  # of the network, where not its usual ones


class Busy(SystemExit):
    """Another process makes what this one cannot do without."""


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process may work in a folder; false where another that lives has claimed it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "process").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go of when the process ends, however it does
        except OSError:
            yield False
            return
        yield True


def carry_out(folder: Path, piece: Callable[[], Mapping[str, Any]]) -> None:
    """Do one piece of an experiment and keep its row, unless that is there or in the making."""
    row = folder / "row.json"
    with claimed(folder) as mine:
        if mine and not row.exists():
            write_json(row, piece())


def rows_in(out: Path) -> list[dict[str, Any]]:
    """The rows of all pieces that are finished."""
    return list(finished(out).values())


def finished(out: Path) -> dict[str, dict[str, Any]]:
    """Folder -> its row, of all pieces that are finished."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(out.glob("*/row.json"))}


@dataclass(frozen=True)
class Kept:
    """Rows of an experiment: each in the folder of its run, and all of them in a file beside the page.

    The file is in the repository, so that an experiment of hours goes on in another clone.

    Attributes:
        out: The folder of the folders.
        path: Of the file, a row a line.
        subject: What rows must be of, such as a network by its digest or settings; others do not count. None: all do.
        long: What of a row the file leaves out.
    """

    out: Path
    path: Path
    subject: str | None = None
    long: tuple[str, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Those of the subject that are finished; what a folder holds is newer than what the file does."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        found = {row["run"]: row for row in map(json.loads, lines) if self._ours(row)}
        for run, row in finished(self.out).items():
            if self._ours(row):
                found[run] = {name: row[name] for name in row if name not in (*self.long, "crc32")} | {"run": run}
        return [found[run] for run in sorted(found)]

    def carry_out(self, run: str, piece: Callable[[], Mapping[str, Any]], *, here: bool = False) -> None:
        """Do one piece of the experiment, unless its row is there or in the making.

        Args:
            run: The name of the folder.
            piece: Makes the row.
            here: Whether a row in the file will not do, since more is made than a row.
        """
        if here or not any(row["run"] == run for row in self.rows()):
            carry_out(self.out / run, lambda: {"subject": self.subject, **piece()})

    def write(self) -> list[dict[str, Any]]:
        """Write the file, where rows of other subjects' runs stay, and give the subject's rows."""
        rows = self.rows()
        found = {row["run"]: row for row in (*replace(self, subject=None).rows(), *rows)}
        if found:
            self.path.write_text("".join(f"{json.dumps(found[run], sort_keys=True)}\n" for run in sorted(found)))
        return rows

    def _ours(self, row: Mapping[str, Any]) -> bool:
        return self.subject in (None, row["subject"])


def mean_and_spread(values: Sequence[float], digits: int = 2) -> str:
    """In words: the mean, and ± the standard deviation where there are several."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def means(rows: Sequence[Mapping[str, Any]], *keys: str) -> dict[str, float]:
    """The mean of each figure over some rows."""
    return {key: statistics.mean(row[key] for row in rows) for key in keys}


def mark(panel: Any, place: float, values: Sequence[float]) -> None:
    """Draw the mean of an arm at a height, with the standard deviation where there are several."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    panel.errorbar(statistics.mean(values), place, xerr=spread, marker="o", capsize=3, color="C0")


def pyplot() -> Any:
    """Matplotlib, which draws the same file of the same rows."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "experiment"
    from matplotlib import pyplot as plt

    return plt


def dense_network(build: Callable[[], nn.Module], task: Any, recipe: mp.Recipe, folder: Path) -> nn.Module:
    """The one dense network, trained here unless it was.

    Raises:
        Busy: Another process trains it.
    """
    torch.manual_seed(recipe.seed)
    network = build()
    path = folder / "model.safetensors"
    with claimed(folder) as mine:
        if not mine:
            raise Busy(f"another process trains the dense network in {folder}; wait for it, or name another --out")
        if not path.exists():
            fit(network, task, recipe, name="dense", checkpoint=folder / "checkpoints")
            write_weights(network, path)
    network.load_state_dict(load_file(path))
    return network.eval()
