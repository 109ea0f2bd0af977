"""Tables of measured operators: for each signature its time at a few sizes, kept on disk for the next start.

A time is taken at a few widths of every open size. Between them it is a straight line; steps are kept, because along
each size, the others whole, it is taken at every multiple of 8 up to 64 and some multiples of 16 above. What a width
costs that is no multiple of 16 is taken once for each size. Widths are counted in channels: an open size that is
always a multiple of 49 has a 49th as many.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaprune.cost.signature import Signature

__all__ = ["CLASSES", "Entry", "Table", "class_of", "ladder", "straight"]

CLASSES = (1, 2, 4, 8)
"""A width belongs to the largest of these, and 16, that divides it."""

ROUNDS = 2
"""Each point is timed so often, the others between: what slows the machine down slows all alike."""

_AGAIN = 2
"""Points whose two least times are apart are timed again, at most so often: the machine did other things then."""

_ALIKE = 0.05
"""Two times of a point are alike within this share."""

_LONG = 8.0
"""Calls that take so many ms at full size are timed at fewer points, and those that are apart not again."""

_TOGETHER = 8
"""So many signatures are timed in turns, and then written."""

_LEAST_SHARE = 0.1
"""Widths below this share of the channels are seldom asked for."""

_LARGEST_FILE = 64 * 2**20

Stopwatch = Callable[[Callable[[], Any]], float]
"""How many milliseconds a call takes."""


@dataclass(frozen=True)
class Entry:
    """The measured times of one signature, in ms.

    Attributes:
        knots: For each open size, the sizes at which the time is taken along it, ascending.
        coarse: For each, the few of these at which it is taken together with the other sizes.
        grid: The times over all combinations of `coarse`, the last size running fastest.
        lines: For each open size the times at its knots, the others whole.
        classes: For each, what a size of each of `CLASSES` takes, over the straight line between the knots beside it.
    """

    knots: tuple[tuple[int, ...], ...]
    coarse: tuple[tuple[int, ...], ...]
    grid: tuple[float, ...]
    lines: tuple[tuple[float, ...], ...]
    classes: tuple[tuple[float, ...], ...]

    def at_knots(self) -> Tensor:
        """The time over all combinations of knots: float64, one dimension for each open size."""
        shape = [len(sizes) for sizes in self.coarse]
        times = torch.tensor(self.grid, dtype=torch.float64).reshape(shape)
        for dim, (knots, coarse, line) in enumerate(zip(self.knots, self.coarse, self.lines, strict=True)):
            between = straight(coarse, torch.tensor(knots, dtype=torch.float64))
            measured = torch.tensor(line, dtype=torch.float64)
            few = measured[[knots.index(size) for size in coarse]]
            steps = measured / (between @ few)
            times = torch.tensordot(times, between * steps[:, None], dims=([dim], [1])).movedim(-1, dim)
        return times


def ladder(channels: int) -> tuple[int, ...]:
    """The widths at which the time along a dimension is taken, ascending; the whole one is the last."""
    if channels <= 8:
        return tuple(range(1, channels + 1))
    first = max(8, math.floor(_LEAST_SHARE * channels / 8) * 8)
    low = [4] if first == 8 else []
    low += range(first, min(64, channels) + 1, 8)
    start = max(64, first)
    low += [round((start + (channels - start) * part / 7) / 16) * 16 for part in range(7)] if channels > 64 else []
    return tuple(sorted({width for width in low if width < channels} | {channels}))


def straight(knots: Sequence[int], sizes: Tensor) -> Tensor:
    """Weights of the knots for the straight lines between them, going on beyond: (len(sizes), len(knots))."""
    weights = torch.zeros(len(sizes), len(knots), dtype=torch.float64)
    if len(knots) == 1:
        return weights + 1
    points = torch.tensor(knots, dtype=torch.float64)
    after = torch.searchsorted(points, sizes.contiguous(), right=True).clamp(1, len(knots) - 1)
    share = (sizes - points[after - 1]) / (points[after] - points[after - 1])
    rows = torch.arange(len(sizes))
    weights[rows, after - 1], weights[rows, after] = 1 - share, share
    return weights


def class_of(width: int) -> int:
    """The place in `CLASSES` of the largest that divides a width; their number where 16 does."""
    return next((place for place, step in enumerate((2, 4, 8, 16)) if width % step), len(CLASSES))


class Table:
    """The times of signatures, from a file or measured.

    Attributes:
        measured: How many times were taken since it was made.
        note: Why a file could not be read or written; None where it could.
    """

    def __init__(
        self, stopwatch: Stopwatch, device: torch.device, path: Path | None = None, rounds: int = ROUNDS
    ) -> None:
        """A table that knows what its file says.

        Args:
            stopwatch: How long a call takes.
            device: Where the operators run.
            path: Its file; None keeps nothing.
            rounds: How often each time is taken; the least counts.
        """
        self.stopwatch = stopwatch
        self.device = device
        self.path = path
        self.rounds = rounds
        self.measured = 0
        self.note: str | None = None
        self.known = self._read()

    def learn(self, signatures: Iterable[Signature]) -> None:
        """Measure the signatures that are not known; the file is written as they come."""
        new = list({one.key: one for one in signatures if one.key not in self.known}.values())
        for first in range(0, len(new), _TOGETHER):
            series = {one.key: self._series(one) for one in new[first : first + _TOGETHER]}
            for turn in range(self.rounds + (_AGAIN if self.rounds > 1 else 0)):
                for key, one in list(series.items())[:: -1 if turn % 2 else 1]:
                    if turn < self.rounds or not one.long:
                        series[key] = self._turn(one, turn)
            self.known |= {key: one.entry for key, one in series.items()}
            self._write()

    def recall(self, times: Mapping[str, Any]) -> None:
        """Take over entries of another table, as `asdict` wrote them.

        Raises:
            ValueError: They are none.
        """
        self.known |= {key: _entry(said) for key, said in times.items()}

    def __getitem__(self, signature: Signature) -> Entry:
        return self.known[signature.key]

    def _series(self, signature: Signature) -> _Series:
        """The points at which a signature is timed: fewer where its call is long, which a first one shows."""
        try:
            took = self.stopwatch(signature.call(tuple(signature.full), self.device))
        except torch.OutOfMemoryError:
            raise
        except Exception:  # what it does not run at is found again, and dealt with, point by point
            took = 0.0
        return _Series(signature, took >= _LONG)

    def _turn(self, series: _Series, turn: int) -> _Series:
        """Times the points of a signature once more; after all rounds only those that are not settled.

        A signature that does not run at sizes of ours takes as long as a copy of what it is given.
        """
        points = list(series.times) if turn < self.rounds else series.unsettled
        for point in points[:: -1 if turn % 2 else 1]:
            try:
                took = self.stopwatch(series.signature.call(point, self.device))
            except torch.OutOfMemoryError:
                raise
            except Exception:
                if series.signature.name == "copies":
                    raise
                copied = _Series(series.signature.copied)
                for earlier in range(turn + 1):
                    copied = self._turn(copied, earlier)
                return copied
            series.times[point].append(took)
            self.measured += 1
        return series

    def _read(self) -> dict[str, Entry]:
        """What the file says; nothing of one that is damaged, or is somebody else's."""
        if self.path is None or not self.path.exists():
            return {}
        try:
            if self.path.stat().st_size > _LARGEST_FILE:
                raise ValueError("it is too large")
            tree = json.loads(self.path.read_text(encoding="utf-8"))
            if not isinstance(tree, dict) or tree.get("format") != _FORMAT or not isinstance(tree.get("times"), dict):
                raise ValueError("it is no table of times")
            return {str(key): _entry(said) for key, said in tree["times"].items()}
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
            self.note = f"the table of measured times {self.path} could not be read ({reason}) and is made anew"
            return {}

    def _write(self) -> None:
        """Beside and renamed, with what another process added meanwhile."""
        if self.path is None:
            return
        note = self.note
        self.known = {**self._read(), **self.known}
        self.note = note
        tree = {"format": _FORMAT, "times": {key: asdict(entry) for key, entry in self.known.items()}}
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(tree), encoding="utf-8")
            beside.replace(self.path)
        except OSError as error:
            self.note = f"the table of measured times could not be kept in {self.path} ({error.strerror or error})"


_FORMAT = "metaprune.times.2"


class _Series:
    """The times of one signature while they are taken.

    Attributes:
        signature: Which.
        long: Whether a call takes long: then there are fewer points.
        knots: For each open size, the sizes at which its time is taken along it.
        coarse: The few of these at which it is taken together with the others.
        near: For each open size widths beside a knot, one of each class.
        times: For each point what it took, each time.
    """

    def __init__(self, signature: Signature, long: bool = False) -> None:
        self.signature = signature
        self.long = long
        self.knots: list[tuple[int, ...]] = []
        self.coarse: list[tuple[int, ...]] = []
        self.near: list[list[int]] = []
        for full, quantum in zip(signature.full, signature.quanta, strict=True):
            widths, most = ladder(full // quantum), 4 if len(signature.full) <= 2 and not long else 3
            if signature.smooth or len(signature.full) > 2:
                widths = few(widths, most)
            elif long:
                widths = widths[::-2][::-1]  # every other one, the whole width among them
            self.knots.append(tuple(quantum * width for width in widths))
            self.coarse.append(self.knots[-1] if len(signature.full) == 1 else few(self.knots[-1], most))
            self.near.append([quantum * width for width in _near(full // quantum)])
        points = dict.fromkeys(itertools.product(*self.coarse))
        for dim, (sizes, beside) in enumerate(zip(self.knots, self.near, strict=True)):
            points |= dict.fromkeys([*self.along(dim, sizes), *self.along(dim, beside)])
        self.times: dict[tuple[int, ...], list[float]] = {point: [] for point in points}

    def along(self, dim: int, sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """The points at these sizes of a dimension, the others whole."""
        full = self.signature.full
        yield from ((*full[:dim], size, *full[dim + 1 :]) for size in sizes)

    @property
    def unsettled(self) -> list[tuple[int, ...]]:
        """The points whose two least times are not alike."""
        found = []
        for point, times in self.times.items():
            least, second = sorted(times)[:2]
            if second > least * (1 + _ALIKE):
                found.append(point)
        return found

    @property
    def entry(self) -> Entry:
        """What was measured, the least of each point."""
        times = {point: min(took) for point, took in self.times.items()}
        lines = [tuple(times[point] for point in self.along(dim, sizes)) for dim, sizes in enumerate(self.knots)]
        classes = []
        for dim, beside in enumerate(self.near):
            line = torch.tensor(lines[dim], dtype=torch.float64)
            expected = straight(self.knots[dim], torch.tensor(beside, dtype=torch.float64)) @ line
            took = [times[point] for point in self.along(dim, beside)]
            quantum = self.signature.quanta[dim]
            slower = {class_of(w // quantum): t / float(e) for w, t, e in zip(beside, took, expected, strict=True)}
            classes.append(tuple(slower.get(place, 1.0) for place in range(len(CLASSES))))
        grid = tuple(times[point] for point in itertools.product(*self.coarse))
        return Entry(tuple(self.knots), tuple(self.coarse), grid, tuple(lines), tuple(classes))


def few(sizes: Sequence[int], most: int) -> tuple[int, ...]:
    """Some of ascending sizes: the ends, and what is nearest to a half (and a quarter) of the largest."""
    wanted = [sizes[0], sizes[-1], sizes[-1] / 2, sizes[-1] / 4][: max(most, 2)]
    return tuple(sorted({min(sizes, key=lambda size: abs(size - goal)) for goal in wanted}))


def _near(channels: int) -> list[int]:
    """Widths of each class a little below a multiple of 16; none where channels are few."""
    last = (3 * channels // 4) // 16 * 16 or channels // 16 * 16
    return [last - step for step in CLASSES if last - step > 8 and class_of(last - step) < len(CLASSES)]


@dataclass(frozen=True)
class _Shape:
    """What an entry of a file must look like."""

    said: Mapping[str, Any] = field(default_factory=dict)

    def sizes(self, name: str) -> tuple[tuple[int, ...], ...]:
        found = tuple(tuple(row) for row in self.said[name])
        whole = all(type(n) is int and n > 0 for row in found for n in row)
        if not whole or any(list(row) != sorted(set(row)) or not row for row in found):
            raise ValueError(f"its {name} are no ascending sizes")
        return found

    def times(self, row: Any, count: int) -> tuple[float, ...]:
        found = tuple(row)
        fine = all(isinstance(t, int | float) and not isinstance(t, bool) and 0 < t < math.inf for t in found)
        if not fine or len(found) != count:
            raise ValueError("its times are no times")
        return tuple(map(float, found))


def _entry(said: Any) -> Entry:
    if not isinstance(said, dict) or said.keys() != {one.name for one in fields(Entry)}:
        raise ValueError("its entries are of another kind")
    shape = _Shape(said)
    knots, coarse = shape.sizes("knots"), shape.sizes("coarse")
    if not len(knots) == len(coarse) == len(said["lines"]) == len(said["classes"]) or len(knots) > 4:
        raise ValueError("its sizes do not go together")
    if any(not set(some) <= set(all_) for some, all_ in zip(coarse, knots, strict=True)):
        raise ValueError("its sizes do not go together")
    return Entry(
        knots,
        coarse,
        shape.times(said["grid"], math.prod(map(len, coarse))),
        tuple(shape.times(row, len(sizes)) for row, sizes in zip(said["lines"], knots, strict=True)),
        tuple(shape.times(row, len(CLASSES)) for row in said["classes"]),
    )
