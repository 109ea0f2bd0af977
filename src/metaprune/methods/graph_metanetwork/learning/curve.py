"""The course of a meta-training: numbers as JSON, and a page that draws them."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from metaprune.train.atomic import FileError, read_json, write_text

__all__ = ["SURPRISE", "Check", "Curve", "Step", "written_in"]

SURPRISE = "surprise"
"""What is measured where lessons choose, in place of a metric; less is better."""

WIDTH, HEIGHT, LEFT, BELOW = 640, 180, 70, 30


@dataclass(frozen=True)
class Step:
    """A step of the optimizer.

    Attributes:
        step: Counted from 1.
        model: The data model.
        lr: Learning rate.
        parts: Name -> value of each part of the objective.
    """

    step: int
    model: str
    lr: float
    parts: Mapping[str, float]


@dataclass(frozen=True)
class Check:
    """A look at the held-out networks.

    Attributes:
        step: Steps done.
        area: Mean of the areas under their metric over the share of MACs.
        metrics: Name -> the metric at each share.
    """

    step: int
    area: float
    metrics: Mapping[str, tuple[float, ...]]


@dataclass
class Curve:
    """The course of a meta-training.

    Attributes:
        goal: What for.
        metric_name: What areas are of.
        steps: One a step.
        checks: The first one is that of no edits.
        chosen: After how many steps the parameters were taken.
    """

    goal: str
    metric_name: str
    steps: list[Step] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    chosen: int = 0

    @property
    def best(self) -> Check:
        """The look that chose."""
        return next(check for check in self.checks if check.step == self.chosen)

    @property
    def note(self) -> str:
        """Where it is, in a few words."""
        last = self.steps[-1].parts if self.steps else {}
        parts = [f"{name} {value:.3f}" for name, value in last.items()]
        if self.checks:
            what = self.metric_name if self.metric_name == SURPRISE else "area"
            parts.append(f"{what} {self.checks[-1].area:.2f} ({self.checks[0].area:.2f} without edits)")
        return ", ".join(parts)

    def tree(self) -> dict[str, Any]:
        """As dictionaries and lists."""
        return asdict(self)

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> Curve:
        """From what `tree` gave."""
        steps = [Step(**step) for step in tree["steps"]]
        checks = [
            Check(check["step"], check["area"], {name: tuple(values) for name, values in check["metrics"].items()})
            for check in tree["checks"]
        ]
        return cls(tree["goal"], tree["metric_name"], steps, checks, tree["chosen"])

    def write(self, folder: Path) -> None:
        """Write curve.json and curve.html."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "curve.json", json.dumps(self.tree(), indent=1))
        write_text(folder / "curve.html", self.page())

    def page(self) -> str:
        """A page of its own: a drawing for each part of the objective, and one of the area."""
        names = dict.fromkeys(name for step in self.steps for name in step.parts)
        drawn = [
            _drawing(name, [(step.step, step.parts[name]) for step in self.steps if name in step.parts])
            for name in names
        ]
        area = f"area: mean {self.metric_name} of held-out networks, cut and tuned for a few steps"
        if self.metric_name == SURPRISE:
            area = "how much the lessons of held-out networks surprise"
        drawn.append(_drawing(area, [(check.step, check.area) for check in self.checks], self.chosen))
        style = "body{font:15px sans-serif;max-width:700px;margin:2em auto}polyline{fill:none;stroke:#26c}"
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>Meta-training</title>'
            f"<style>{style}line{{stroke:#bbb}}text{{font-size:12px}}</style><h1>Meta-training</h1>"
            f"<p>{html.escape(self.goal)}. {len(self.steps)} steps; taken: the parameters after step {self.chosen}"
            f"{' (no edits)' if not self.chosen else ''}.</p>{''.join(drawn)}</html>\n"
        )


def written_in(folder: Path) -> tuple[tuple[Path, Callable[[Path], bool]], ...]:
    """The files that a curve is written to, each with how to tell that one was."""

    def numbers(path: Path) -> bool:
        try:
            return read_json(path).keys() >= {"goal", "steps", "checks"}
        except FileError:
            return False

    def page(path: Path) -> bool:
        return b"<title>Meta-training</title>" in path.read_bytes()

    return (folder / "curve.json", numbers), (folder / "curve.html", page)


def _drawing(title: str, points: Sequence[tuple[int, float]], marked: int | None = None) -> str:
    """A line through points, with its extremes written at the axes."""
    if not points:
        return ""
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, high, last = min(values), max(values), max(max(steps), 1)

    def at(step: int, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - 10) * step / last
        return x, 10 + (HEIGHT - BELOW - 10) * (high - value) / ((high - low) or 1)

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#c33"/>'
        for x, y in (at(*point) for point in points if point[0] == marked)
    )
    ground = HEIGHT - BELOW + 5
    return (
        f"<h2>{html.escape(title)}</h2>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f'<line x1="{LEFT}" y1="{ground}" x2="{WIDTH}" y2="{ground}"/>'
        f'<line x1="{LEFT}" y1="0" x2="{LEFT}" y2="{ground}"/>'
        f'<text x="2" y="18">{high:.4g}</text><text x="2" y="{ground - 3}">{low:.4g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 5}">0</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 5}" text-anchor="end">step {last}</text>'
        f'<polyline points="{line}"/>{dots}</svg>'
    )
