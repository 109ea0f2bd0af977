import json
from collections.abc import Callable
from typing import Any

import pytest

from metaprune.report.report import Report, ReportError, from_json, to_json


def test_json_round_trip(report: Report) -> None:
    assert from_json(to_json(report)) == report


def broken(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def apply(text: str) -> str:
        tree = json.loads(text)
        change(tree)
        return json.dumps(tree)

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:200], "expected JSON"),
        (lambda text: "[]", "metaprune_report"),
        (lambda text: '{"axes": []}', "metaprune_report"),
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
