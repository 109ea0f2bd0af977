"""Tables on the terminal."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metaprune.cli.choosing import settings_of_method
from metaprune.graph.errors import MetapruneError
from metaprune.methods.registry import decides_by, first_line
from metaprune.report import words
from metaprune.report.report import Arm, Figures, Floor, Report

if TYPE_CHECKING:
    from metaprune.cost.latency import Latency
    from metaprune.graph.graph import ChannelGraph
    from metaprune.methods.method import Method
    from metaprune.report.summary import Group
    from metaprune.train.scores import Scores

__all__ = [
    "arms_table",
    "bench_table",
    "console",
    "graph_json",
    "graph_table",
    "joined",
    "methods_table",
    "one_method",
    "result_table",
    "scores_line",
]


def console() -> Console:
    """Standard output; wide enough for a table where there is no terminal."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=140)


def methods_table(methods: Mapping[str, type[Method]]) -> None:
    """A row for each method: what it is, and what it needs."""
    table = Table(title="methods, for `metaprune prune --method`", title_justify="left")
    for column in ("method", "what it does", "decides by"):
        table.add_column(column, overflow="fold")
    for name, method in methods.items():
        table.add_row(name, escape(first_line(method)), decides_by(method))
    out = console()
    out.print(table)
    out.print("Their settings: metaprune methods NAME.")


def one_method(name: str, method: type[Method]) -> None:
    """What a method does, its settings as `--set` takes them, and its source."""
    out = console()
    for line in (
        *inspect.cleandoc(method.__doc__ or "").split("\n"),
        "",
        *(f"  --set {setting}" for setting in settings_of_method(method).values()),
        f"decides by {decides_by(method)}; {method.reference}",
        f"metaprune prune MODEL --data DATA --method {name} --macs 0.5 --out DIR",
    ):
        out.print(line, soft_wrap=True, markup=False)


def graph_table(name: str, graph: ChannelGraph, *, each: bool = False) -> None:
    """The free axes, those of equal blocks in one row; then what is fixed, by reason; then the totals."""
    from metaprune.cost.closed_form import macs, params
    from metaprune.report.summary import groups, reasons

    found = groups(graph, each=each)
    table = Table(title=f"{name}: axes of channels that are cut together", title_justify="left")
    for column in ("axis", "what it is", "size", "axes", "MACs", "parameters", "layers that hold it"):
        left = column in ("axis", "what it is", "layers that hold it")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for group in found:
        if group.fixed is None:
            count = str(len(group.axes)) if len(group.axes) > 1 else ""
            shares = (f"{group.macs:.1%}", f"{group.params:.1%}")
            table.add_row(escape(group.name), group.role, str(group.size), count, *shares, escape(_some(group.layers)))
    out = console()
    out.print(table)
    for line in graph.said_of_calls():
        out.print(line[0].upper() + line[1:] + ".", soft_wrap=True, markup=False)
    if numbers := graph.left_alone():
        out.print("Numbers that equal a free size, were not followed to it, and stay as they are:")
        for line in numbers:
            out.print(f"  {line}", soft_wrap=True, markup=False)
    if fixed := reasons(found):
        out.print("Fixed, and why:")
    for reason, held in fixed.items():
        out.print(f"  {escape(reason)}: {escape(_some([_sized(group) for group in held], 6))}", soft_wrap=True)
    out.print(
        f"{macs(graph) / 1e6:,.2f} million MACs of one example, {params(graph):,} parameters; "
        f"{len(graph.free)} of {len(graph.axes)} axes are free, "
        f"{graph.free_share():.1%} of the parameters lie on them.\n"
        "MACs, parameters: share of the network's that the axes of a row, together, take part in."
        + ("" if each or len(found) == len(graph.axes) else " --all gives every axis a row of its own.")
    )


def graph_json(name: str, graph: ChannelGraph) -> str:
    """What `graph_table` says, of every axis with all members and of the groups, as JSON."""
    from metaprune.cost.closed_form import macs, params
    from metaprune.report.summary import groups

    axes = [
        {
            "name": group.axes[0],
            "size": group.size,
            "role": group.role,
            "macs_share": group.macs,
            "params_share": group.params,
            "fixed": group.fixed,
            "members": list(graph.axes[group.axes[0]].members),
        }
        for group in groups(graph, each=True)
    ]
    rows = [
        {
            "name": group.name,
            "axes": list(group.axes),
            "size": group.size,
            "role": group.role,
            "macs_share": group.macs,
            "params_share": group.params,
            "fixed": group.fixed,
        }
        for group in groups(graph)
    ]
    calls = {"calls": list(map(str, graph.calls)), "uncaptured": graph.uncaptured, "unfollowed": graph.left_alone()}
    tree = {"network": name, **calls, "macs": macs(graph), "params": params(graph), "axes": axes, "groups": rows}
    return json.dumps(tree, indent=1)


def _sized(group: Group) -> str:
    """An axis with its size; of several, how many there are."""
    return f"{group.name} ({f'{len(group.axes)} × ' if len(group.axes) > 1 else ''}{group.size})"


def _some(words: Sequence[str], most: int = 4) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def joined(reports: list[Report]) -> Report:
    """The first report, with the dense network and all reports as arms of its comparison.

    Raises:
        MetapruneError: They are of different networks, data or metrics.
    """
    main = reports[0]
    for other in reports[1:]:
        for name in ("network", "data", "metric_name", "split"):
            if (got := getattr(other, name)) != (expected := getattr(main, name)):
                raise MetapruneError(f"report: folders of one {name} can be compared, got {expected!r} and {got!r}")
    epochs = [max((row.epoch for row in report.history), default=0.0) for report in reports]
    arms = [Arm("dense", main.dense, main.dense_epochs)]
    for report, count in zip(reports, epochs, strict=True):
        arms.append(Arm(report.method, report.pruned, count, None if report is main else report.dense.latency))
    return replace(main, arms=tuple(arms), commands=tuple(c for report in reports for c in report.commands))


def arms_table(report: Report) -> None:
    """The comparison of a report; without arms, before and after."""
    arms = report.arms or (Arm("dense", report.dense, 0), Arm(report.method, report.pruned, 0))
    table = Table(title=f"{report.network} on {report.data}, {report.budget}", title_justify="left")
    for column in ("", report.metric_name, "MACs", "share", "parameters", "file", "time"):
        table.add_column(column, justify="left" if not column else "right")
    for arm in arms:
        table.add_row(arm.name, *_cells(arm.figures, report.dense))
    out = console()
    out.print(table)
    measured: dict[str, Figures | Floor] = {"dense": report.dense, report.method: report.pruned}
    if report.floor is not None:
        measured[report.floor.name] = report.floor
    for name, found in measured.items():
        if found.further:
            out.print(f"{name}: {words.measures(report, found.metric, found.further)}")
    timed = report.pruned.latency
    if timed is not None:
        inputs = f" of {report.example}" if report.example else ""
        out.print(
            f"{report.metric_name} on {report.split}; time: median and spread of a batch of {timed.batch}{inputs}, "
            f"{words.conditions(timed)}."
        )


def result_table(report: Report, out: Path, model: str) -> None:
    """What came of a run, and what to do next."""
    arms_table(report)
    shown = console()
    shown.print(escape("".join(clause.text for clause in words.headline(report))), soft_wrap=True)
    for note in report.notes:
        shown.print(f"note: {escape(note)}")
    shown.print(
        f"report: {out / 'report.html'}; next:\n"
        f"  metaprune bench {model} --pruned {out}\n"
        f"  metaprune export {model} --pruned {out} --to {out / 'model.onnx'}"
    )


def bench_table(name: str, rows: list[tuple[int, dict[str, Latency]]], before: dict[str, Latency]) -> None:
    """Median and spread per batch size; where there are two networks, how they compare, and what the report said."""
    table = Table(title=f"{name}: time of a batch", title_justify="left")
    for column in ("batch", *rows[0][1], *(["pruned is"] if len(rows[0][1]) > 1 else [])):
        table.add_column(column, justify="right")
    for batch, times in rows:
        cells = [f"{time.median_ms:.3g} ms ± {time.iqr_ms:.2g}" for time in times.values()]
        if len(times) > 1:
            cells.append(words.speed(*times.values()).text)
        table.add_row(str(batch), *cells)
    out = console()
    out.print(table)
    out.print(f"median ± interquartile range; {words.conditions(next(iter(rows[0][1].values())))}")
    if before:
        said = ", ".join(f"{name} {time.median_ms:.3g} ms ± {time.iqr_ms:.2g}" for name, time in before.items())
        out.print(f"in the report: {said}; batch {before['pruned'].batch}, {words.conditions(before['pruned'])}")


def scores_line(name: str, split: str, found: Scores) -> str:
    """PSNR (dB) on test: 31.77, SSIM 0.8902."""
    further = "".join(f", {beside} {value:.4f}" for beside, value in found.further.items())
    return f"{name} on {split}: {found.metric:.2f}{further}"


def _cells(figures: Figures, dense: Figures) -> list[str]:
    time = figures.latency
    return [
        "–" if figures.metric is None else f"{figures.metric:.2f}",
        f"{figures.macs / 1e6:.3f} M",
        f"{figures.macs / dense.macs:.3f}",
        f"{figures.params:,}",
        f"{figures.bytes / 1024:.0f} KiB",
        "–" if time is None else f"{time.median_ms:.3g} ± {time.iqr_ms:.2g} ms",
    ]
