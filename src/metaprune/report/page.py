"""The report as one self-contained HTML page: it loads nothing, so that it works offline and for years."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from metaprune.report import picture, words
from metaprune.report.drawing import draw_report
from metaprune.report.paths import apart, spans
from metaprune.report.report import AxisRow, Report

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["render"]

FEW_AXES, FEW_LAYERS, MOST_CELLS = 24, 32, 128
WIDE, NARROW = 846, 358
"""Room for the graph, in pixels, on a desk and in a hand."""
TEMPLATES = Path(__file__).parent / "templates"


def render(report: Report) -> str:
    """Write the page. Every string of the report is escaped."""
    free = [axis for axis in report.axes if axis.fixed is None]
    cells = len(free) <= FEW_AXES and all(axis.before <= MOST_CELLS for axis in free)
    shares = picture.shares(report)
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _page().render(
        report=report,
        words=words,
        script=script,
        script_hash=f"sha256-{digest}",
        free=free,
        strips=[picture.strip(axis.before, axis.kept) for axis in free] if cells else None,
        lots=_lots(report, free),
        few_layers=len(report.layers) <= FEW_LAYERS,
        wide=draw_report(report, WIDE),
        narrow=draw_report(report, NARROW),
        widths=picture.skyline(
            [
                (axis.name, axis.before, axis.after, f"{axis.name}: {axis.before} to {axis.after} channels")
                for axis in free
            ]
        ),
        shares=shares,
        layers=picture.skyline(
            [
                (layer.name, before, after, f"{layer.name}: {before:.1f} % to {after:.1f} %")
                for layer, (before, after) in zip(report.layers, shares, strict=True)
            ]
        ),
        curves=picture.curves(report),
        fixed=_by_reason(report.axes),
        whole=[axis for axis in free if axis.after == axis.before],
    )


@cache
def _page() -> Template:
    """The template, compiled once: that takes longer than to write a page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return jinja.get_template("page.html.j2")


class Lot(NamedTuple):
    """Axes whose names differ in numbers alone."""

    name: str
    """Theirs, written as one: `blocks.0–11.mlp.0`."""
    role: str
    rows: list[tuple[str, AxisRow]]
    """What tells an axis from the others, such as `3`, and the axis."""


def _lots(report: Report, axes: Iterable[AxisRow]) -> list[Lot]:
    known = {axis.name: axis for axis in axes}
    return [
        Lot(
            name,
            ", ".join(dict.fromkeys(role for path in paths if (role := report.roles.get(path, "")))),
            [(label, known[path]) for label, path in zip(apart(paths), paths, strict=True)],
        )
        for name, paths in spans(known)
    ]


def _by_reason(axes: Iterable[AxisRow]) -> list[tuple[str, list[AxisRow]]]:
    """The fixed axes, grouped by why they are fixed."""
    fixed = sorted((a for a in axes if a.fixed is not None), key=lambda a: a.fixed or "")
    return [(reason or "", list(rows)) for reason, rows in groupby(fixed, key=lambda a: a.fixed)]
