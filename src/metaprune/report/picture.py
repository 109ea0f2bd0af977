"""Geometry of the page's pictures: SVG paths in a 100 x 100 (or size x 1) box that the page stretches to fit.

Text never goes into the SVG; the page lays it over by percentages, so that it keeps its size on any screen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeGuard

from metaprune.report.report import Report

__all__ = ["Bar", "Panel", "Phase", "Skyline", "Strip", "curves", "shares", "skyline", "strip"]


@dataclass(frozen=True)
class Strip:
    """An axis as a row of unit cells, one per channel: the paths of those that stay and of those that go."""

    kept: str
    cut: str


def strip(size: int, kept: Sequence[int]) -> Strip:
    """Draw the channels of one axis where they sit."""
    alive = set(kept)
    cells = [f"M{i + 0.07:g} 0h.86v1h-.86z" for i in range(size)]
    return Strip(
        kept="".join(cell for i, cell in enumerate(cells) if i in alive),
        cut="".join(cell for i, cell in enumerate(cells) if i not in alive),
    )


@dataclass(frozen=True)
class Bar:
    """One column of a skyline, all lengths in percent of the picture."""

    x: float
    width: float
    before: float
    after: float
    label: str


@dataclass(frozen=True)
class Skyline:
    """Columns in network order."""

    bars: tuple[Bar, ...]
    groups: tuple[tuple[str, float, float], ...]
    """What the names of neighbours share, and the place they take: (name, left, width)."""
    top: float


def skyline(rows: Sequence[tuple[str, float, float, str]]) -> Skyline:
    """Draw (name, before, after, label) rows as columns: pale is before, filled is after."""
    top = max((max(before, after) for _, before, after, _ in rows), default=0) or 1.0
    step = 100 / max(1, len(rows))
    bars = tuple(
        Bar(i * step + step * 0.09, step * 0.82, 100 * before / top, 100 * after / top, label)
        for i, (_, before, after, label) in enumerate(rows)
    )
    runs = _neighbours([row[0] for row in rows])
    return Skyline(bars, tuple((name, start * step, length * step) for name, start, length in runs), top)


def _neighbours(names: Sequence[str], most: int = 12) -> list[tuple[str, int, int]]:
    """Runs of neighbours that share the first parts of their dotted names: (name, start, length).

    As many parts as leave at most `most` runs, or no runs; the parts that all of them share are not said.
    """

    def runs(parts: int) -> list[tuple[str, int, int]]:
        found, start = [], 0
        for name, run in groupby(names, key=lambda n: ".".join(n.split(".")[:parts])):
            length = len(list(run))
            found.append((name, start, length))
            start += length
        return found

    found = max((found for parts in (1, 2, 3) if len(found := runs(parts)) <= most), key=len, default=[])
    parents = {name.rpartition(".")[0] for name, _, _ in found}
    if len(parents) > 1:
        return found
    return [(name.rpartition(".")[2], start, length) for name, start, length in found]


def shares(report: Report) -> list[tuple[float, float]]:
    """Per layer, its MACs before and after in percent of the dense network's."""
    total = sum(layer.macs_before for layer in report.layers) or 1
    return [(100 * layer.macs_before / total, 100 * layer.macs_after / total) for layer in report.layers]


@dataclass(frozen=True)
class Phase:
    """A stretch of the schedule, in percent of its length."""

    name: str
    left: float
    width: float


@dataclass(frozen=True)
class Panel:
    """One curve over the epochs; positions (x, y) in percent of the panel, from its top left."""

    line: str
    dots: str
    ticks: tuple[tuple[float, str], ...]
    level: float | None
    """Height of the dense network's level."""
    cut: tuple[tuple[float, float], ...]
    """Right before and right after the cut."""
    end: tuple[float, float]


@dataclass(frozen=True)
class Curves:
    """The metric over the schedule, and the share of the MACs that stays over the same schedule."""

    phases: tuple[Phase, ...]
    ticks: tuple[tuple[float, str], ...]
    metric: Panel
    macs: Panel | None


def curves(report: Report) -> Curves | None:
    """Draw the search and the fine-tuning; None where nothing finite was recorded."""
    history = [e for e in report.history if _finite(e.metric)]
    if not history:
        return None
    length = max(e.epoch for e in history) or 1.0
    phases, start = [], 0.0
    for name, run in groupby(history, key=lambda e: e.phase):
        stop = max(e.epoch for e in run)
        phases.append(Phase(name, 100 * start / length, 100 * (stop - start) / length))
        start = stop
    stays = [(e.epoch, e.macs) for e in history if e.macs is not None]
    cut_at = stays[-1][0] if stays else 0.0
    ratio = report.pruned.macs / (report.dense.macs or 1)
    steps = [(0.0, 1.0), *stays, (cut_at, ratio), (length, ratio)]
    cut = [(cut_at, y) for y in (report.before_cut, report.as_cut, report.after_cut) if _finite(y)]
    points = [(e.epoch, e.metric) for e in history]
    level = report.dense_val if _finite(report.dense_val) else None
    if level is not None:
        points.insert(0, (0.0, level))
    metric = _panel(points, length, level=level, cut=cut)
    macs = _panel(steps, length, bounds=(0.0, 1.0)) if stays else None
    ticks = tuple((100 * x / length, f"{x:g}") for x in _round_numbers(0, length, 8))
    return Curves(tuple(phases), ticks, metric, macs)


def _panel(
    points: Sequence[tuple[float, float]],
    length: float,
    *,
    bounds: tuple[float, float] | None = None,
    level: float | None = None,
    cut: Sequence[tuple[float, float]] = (),
) -> Panel:
    """Scale one curve into its panel; it drops at the cut."""
    at = cut[0][0] if cut else 0.0
    line = [*(p for p in points if p[0] <= at), *cut, *(p for p in points if p[0] > at)]
    low, high = bounds or _padded([y for _, y in line])

    def place(x: float, y: float) -> tuple[float, float]:
        return round(100 * x / length, 2), round(100 * (high - y) / (high - low), 2)

    return Panel(
        line="M" + "L".join("{:g} {:g}".format(*place(*p)) for p in line),
        dots="".join("M{:g} {:g}h0".format(*place(*p)) for p in points),
        ticks=tuple((place(0, y)[1], f"{y:g}") for y in _round_numbers(low, high, 4)),
        level=None if level is None else place(0, level)[1],
        cut=tuple(place(*p) for p in cut),
        end=place(*points[-1]),
    )


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values with a margin, never empty."""
    margin = 0.08 * (max(values) - min(values)) or 0.5 * abs(values[0]) or 1.0
    return min(values) - margin, max(values) + margin


def _round_numbers(low: float, high: float, about: int) -> list[float]:
    """About that many multiples of 1, 2 or 5 times a power of ten inside [low, high]."""
    rough = (high - low) / about
    power: float = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.99)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
