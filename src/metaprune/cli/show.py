"""Tables on the terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from metaprune.graph.errors import MetapruneError
from metaprune.report import words
from metaprune.report.report import Arm, Figures, Report

if TYPE_CHECKING:
    from metaprune.cost.latency import Latency
    from metaprune.graph.graph import ChannelGraph

__all__ = ["arms_table", "bench_table", "console", "graph_json", "graph_table", "joined", "result_table"]


def console() -> Console:
    """Standard output; wide enough for a table where there is no terminal."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=140)


def graph_table(name: str, graph: ChannelGraph) -> None:
    """Axes with sizes, share of the MACs, members or why they are fixed; then the totals."""
    from metaprune.cost.closed_form import axis_shares, macs, params

    shares = axis_shares(graph)
    table = Table(title=f"{name}: axes of channels that are cut together", title_justify="left")
    for column, justify in (
        ("axis", "left"),
        ("size", "right"),
        ("MACs", "right"),
        ("members, or why fixed", "left"),
    ):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for axis in graph.axes.values():
        members = ", ".join(axis.members[:3]) + (f" and {len(axis.members) - 3} more" if len(axis.members) > 3 else "")
        about = f"[dim]fixed: {axis.fixed}[/dim]" if axis.fixed else members
        table.add_row(axis.name, str(axis.size), f"{shares[axis.name]:.1%}", about)
    out = console()
    out.print(table)
    out.print(
        f"{macs(graph) / 1e6:,.2f} million MACs of one example, {params(graph):,} parameters; "
        f"{len(graph.free)} of {len(graph.axes)} axes are free, "
        f"{graph.free_share():.1%} of the parameters lie on them.\n"
        "MACs: share of the network's multiply-accumulates that an axis takes part in."
    )


def graph_json(name: str, graph: ChannelGraph) -> str:
    """What `graph_table` says, with all members, as JSON."""
    from metaprune.cost.closed_form import axis_shares, macs, params

    shares = axis_shares(graph)
    axes = [
        {
            "name": axis.name,
            "size": axis.size,
            "macs_share": shares[axis.name],
            "fixed": axis.fixed,
            "members": list(axis.members),
        }
        for axis in graph.axes.values()
    ]
    return json.dumps({"network": name, "macs": macs(graph), "params": params(graph), "axes": axes}, indent=1)


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
    epochs = [max((int(row.epoch) for row in report.history), default=0) for report in reports]
    arms = [Arm("dense", main.dense, 0)]
    arms += [Arm(report.method, report.pruned, count) for report, count in zip(reports, epochs, strict=True)]
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
    timed = report.pruned.latency
    if timed is not None:
        out.print(
            f"{report.metric_name} on {report.split}; time: median and spread of a batch of {timed.batch}, "
            f"{timed.device}, {timed.threads} threads, {timed.precision}."
        )


def result_table(report: Report, out: Path, model: str) -> None:
    """What came of a run, and what to do next."""
    arms_table(report)
    shown = console()
    shown.print("".join(clause.text for clause in words.headline(report)))
    for note in report.notes:
        shown.print(f"note: {note}")
    shown.print(
        f"report: {out / 'report.html'}; next:\n"
        f"  metaprune bench {model} --pruned {out}\n"
        f"  metaprune export {model} --pruned {out} --to {out / 'model.onnx'}"
    )


def bench_table(name: str, rows: list[tuple[int, dict[str, Latency]]]) -> None:
    """Median and spread per batch size; speed-up where there are two networks."""
    table = Table(title=f"{name}: time of a batch", title_justify="left")
    for column in ("batch", *rows[0][1], *(["speed-up"] if len(rows[0][1]) > 1 else [])):
        table.add_column(column, justify="right")
    for batch, times in rows:
        cells = [f"{time.median_ms:.3g} ms ± {time.iqr_ms:.2g}" for time in times.values()]
        if len(times) > 1:
            dense, pruned = times.values()
            cells.append(f"{dense.median_ms / pruned.median_ms:.2f}×")
        table.add_row(str(batch), *cells)
    out = console()
    out.print(table)
    out.print(f"median ± interquartile range; {next(iter(rows[0][1].values()))}")


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
