import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from metaprune.graph.plan import Plan
from metaprune.report.report import Floor, Report, ReportError, from_json, to_json
from metaprune.session.result import Result


def test_json_round_trip(report: Report) -> None:
    assert from_json(to_json(report)) == report


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_has_no_numbers_that_json_does_not_know(small: Report, value: float) -> None:
    """They are words there, and read as NaN, so that a page made anew still says that it is not finite."""
    history = (replace(small.history[0], loss=value, metric=value, macs=value), *small.history[1:])
    report = replace(small, history=history, pruned=replace(small.pruned, metric=value, further={"F1": value}))
    text = to_json(replace(report, after_cut=value, floor=Floor("none", value)))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(text, parse_constant=refuse)
    read = from_json(text)
    found = [read.history[0].loss, read.history[0].metric, read.history[0].macs, read.pruned.metric, read.after_cut]
    found += [read.pruned.further["F1"], read.floor and read.floor.metric]
    assert all(number is not None and math.isnan(number) for number in found)
    assert read.axes == report.axes


def test_json_can_be_read_line_by_line(report: Report) -> None:
    """Version control shows which figure changed."""
    lines = to_json(report).splitlines()
    assert sum('"metric"' in line for line in lines) >= 2
    assert all(line.count('":') <= 1 for line in lines)


def test_a_report_is_short(report: Report) -> None:
    shown = repr(replace(report, network="<b>", data="R&D"))
    assert shown in (
        "Report(<b> on R&D by DHP, 0.50 of the MACs: accuracy (%) on test 85.35 → 85.02; "
        "MACs 40,813,184 → 20,291,584; parameters 272,474 → 150,218; ms 47.3 → 33.6)",
        f"Report(<b> on R&D by magnitude, 0.30 of the MACs: perplexity on val 3.412 → 3.907; "
        f"MACs {report.dense.macs:,} → {report.pruned.macs:,}; parameters 25,557,032 → 9,012,420)",
    )
    result = Result(nn.Linear(1, 1), Plan({}), report, None)  # type: ignore[arg-type]
    assert repr(result).startswith("Result(Linear; Report(")
    assert result._repr_html_() == report._repr_html_()
    page = replace(report, network="<b>", data="R&D")._repr_html_()
    assert "&lt;b&gt; on R&amp;D" in page
    assert "<b>" not in page
    assert "accuracy" in replace(report, metric_name="accuracy (%)")._repr_html_()


def broken(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def apply(text: str) -> str:
        tree = json.loads(text)
        tree.pop("crc32", None)  # as if it had been written so
        change(tree)
        return json.dumps(tree)

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:200], "expected JSON"),
        (lambda text: "[]", "metaprune_report"),
        (lambda text: '{"axes": []}', "metaprune_report"),
        (lambda text: text.replace("dense", "danse"), "checksum"),
        (lambda text: "[" * 100_000, "expected JSON"),
        (broken(lambda tree: tree.update(metaprune_report=99)), "expected format 1, got 99"),
        (broken(lambda tree: tree.pop("dense")), "missing .* 'dense'"),
        (broken(lambda tree: tree.update(colour="red")), "Report has no field colour"),
        (
            broken(lambda tree: tree["dense"].update(macs="many")),
            r"report\.dense\.macs: expected int, got 'many'",
        ),
        (
            broken(lambda tree: tree["dense"].update(latency=3)),
            r"report\.dense\.latency: expected the fields of",
        ),
        (
            broken(lambda tree: tree["axes"][1].update(kept=[0, None])),
            r"report\.axes\[1\]\.kept\[1\]: expected int",
        ),
        (broken(lambda tree: tree.update(higher_is_better=1)), "higher_is_better: expected bool"),
    ],
)
def test_what_is_no_report_is_named(small: Report, damage: Callable[[str], str], message: str) -> None:
    with pytest.raises(ReportError, match=message):
        from_json(damage(to_json(small)))
