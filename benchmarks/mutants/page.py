"""The page: how many faults were caught in which part, and each that was not, with the reason where one is known."""

import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

REASONS = Path(__file__).parent / "reasons.toml"
Row = Mapping[str, Any]


def page(rows: Sequence[Row], seed: int, count: int) -> str:
    """All of `mutants.md`, of so many faults sampled, of which those in the rows have been judged."""
    reasons = _reasons()
    same = [row for row in rows if _name(row) in reasons and reasons[_name(row)]["equivalent"]]
    left = [row for row in rows if row["outcome"] not in ("caught", "endless") and row not in same]
    judged = len(rows) - len(same)
    caught = judged - len(left)
    return "\n".join(
        (
            "# Faults put into the code, and what the tests said",
            "",
            f"{len(rows)} faults judged of {count}, sampled (seed {seed}) from all that `faults.py` can make in the "
            f"modules that decide; "
            f"{len(same)} of them change nothing that a test could see. Of the other {judged}, the default tests "
            f"caught **{caught}: {caught / max(1, judged):.0%}**. Each was given the tests that run its line, the "
            "nearest and cheapest first, up to 40 s of processor time; so what survived may be caught by a test that "
            "was not asked. Tests have been written for what had survived before, so the share of another sample may "
            "be lower.",
            "",
            f"`make mutants` writes this page (`python -m benchmarks.mutants --count {count}`).",
            "",
            *_by(rows, same, left, "part", lambda row: _part(row["file"])),
            *_by(rows, same, left, "kind", lambda row: row["kind"]),
            "## What survived",
            "",
            *_table(left, reasons),
            "## What no test can see",
            "",
            *_table(same, reasons),
        )
    )


def unseen(file: str, fault: Row) -> bool:
    """Whether a fault is named as one that no test can see."""
    known = _reasons().get(_name({**fault, "file": file}))
    return known is not None and known["equivalent"]


@cache
def _reasons() -> Mapping[tuple[str, ...], Row]:
    return {_name(each): each for each in tomllib.loads(REASONS.read_text()).get("fault", [])}


def _by(rows: Sequence[Row], same: Sequence[Row], left: Sequence[Row], title: str, of: Any) -> list[str]:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for place, some in enumerate((rows, same, left)):
        for row in some:
            counts[of(row)][place] += 1
    lines = [f"| {title} | faults | no test can see | survived | caught |", "|---|--:|--:|--:|--:|"]
    for name, (all_of_them, equal, survived) in sorted(counts.items()):
        judged = all_of_them - equal
        share = f"{(judged - survived) / judged:.0%}" if judged else ""
        lines.append(f"| {name} | {all_of_them} | {equal} | {survived} | {share} |")
    return [*lines, ""]


def _table(rows: Sequence[Row], reasons: Mapping[tuple[str, ...], Row]) -> list[str]:
    lines = ["| where | fault | why |", "|---|---|---|"]
    for row in sorted(rows, key=lambda row: (row["file"], row["line"])):
        why = reasons.get(_name(row), {}).get("reason", "")
        where = f"`{row['file'].removeprefix('src/metaprune/')}:{row['line']}` {row['scope']}"
        lines.append(f"| {where} | {_code(row['old'])} → {_code(row['new'])} | {why} |")
    return [*lines, ""]


def _code(text: str) -> str:
    return "`" + text.replace("`", "'").replace("|", "\\|") + "`"


def _part(file: str) -> str:
    parts = file.removeprefix("src/metaprune/").split("/")
    return "/".join(parts[:2]) if parts[0] in ("methods", "report") else parts[0].removesuffix(".py")


def _name(row: Row) -> tuple[str, ...]:
    return (row["file"], row["scope"], row["old"], row["new"])
