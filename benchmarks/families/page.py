"""The page: what there is to win, family by family and budget by budget, and what was won."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

HEAD = """# One metanetwork for many families

Written by `python -m benchmarks.families --cifar10 … --omniglot … --bsds500 …`.

Points are percent of accuracy, and tenths of a decibel of PSNR.
"""

ROOM = """## Head room

What an allocation of widths can win at most, as far as a search finds it: some thirty allocations, each cut, tuned for
{epochs} epochs and measured on validation data, the best four with a second seed, and the best two with three seeds
that have chosen nothing. The best of these and the best one-shot criterion, both chosen before those three seeds, are
compared on test data (mean, and its standard error from the seeds). “Between” is the deviation of validation figures
between allocations of one network, what seeds do taken out; “seeds”, the deviation that seeds make.
"""


def gain(row: Row) -> tuple[float, float]:
    """Points of the best that was found above the best rival, and the standard error."""
    sign = row["points"]
    best, rival = ([sign * value for value in row["tests"][row[which]]] for which in ("best", "rival"))
    if min(len(best), len(rival)) < 2:
        return float("nan"), float("nan")
    error = (statistics.variance(best) / len(best) + statistics.variance(rival) / len(rival)) ** 0.5
    return statistics.fmean(best) - statistics.fmean(rival), error


def cells(row: Row) -> str:
    """One line of the table of head room."""
    difference, error = gain(row)
    tests = row["tests"]
    own = row["points"] * (statistics.fmean(tests[row["best"]]) - statistics.fmean(tests["criterion"]))
    return (
        f"| {row['member']} | {row['axes']} | {row['share']:g} | {row['dense']:.2f} | "
        f"{statistics.fmean(tests[row['rival']]):.2f} ({row['rival']}) | "
        f"{statistics.fmean(tests[row['best']]):.2f} ({row['best']}) | {difference:+.2f} ± {error:.2f} | {own:+.2f} | "
        f"{row['points'] * row['spread']:.2f} | {row['points'] * row['noise']:.2f} |"
    )


def head_room(rows: Sequence[Row], epochs: int) -> str:
    """The section, and its sums by family and budget."""
    if not rows:
        return ""
    rows = sorted(rows, key=lambda row: (row["family"], row["member"], -row["share"]))
    lines = [ROOM.format(epochs=epochs)]
    shares = sorted({row["share"] for row in rows}, reverse=True)
    lines += ["| family | " + " | ".join(f"{share:g}" for share in shares) + " | networks |"]
    lines += ["|---|" + "--:|" * (len(shares) + 1)]
    for family in dict.fromkeys(row["family"] for row in rows):
        own = [row for row in rows if row["family"] == family]
        means = []
        for share in shares:
            found = [gain(row) for row in own if row["share"] == share]
            error = sum(error**2 for _, error in found) ** 0.5 / max(len(found), 1)
            means.append(f"{statistics.fmean(value for value, _ in found):+.2f} ± {error:.2f}" if found else "")
        lines.append(f"| {family} | " + " | ".join(means) + f" | {len({row['member'] for row in own})} |")
    every = [f"{statistics.fmean(gain(row)[0] for row in rows if row['share'] == share):+.2f}" for share in shares]
    lines += ["| mean | " + " | ".join(every) + " | |", ""]
    lines += [
        "| network | axes | MACs | dense | best criterion | best found | head room | above its own | between | seeds |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        *map(cells, rows),
        "",
        f"{sum(row['tunings'] for row in rows)} tunings, {sum(row['minutes'] for row in rows):.0f} minutes of a core.",
        "",
    ]
    return "\n".join(lines)


def table(rows: Sequence[Row]) -> str:
    """Each family that a metanetwork has not learned from, arm by arm, and how far it is above its criterion."""
    if not rows:
        return ""
    lines = [
        "## Families left out",
        "",
        "Test figures: the mean over networks and seeds; ± the deviation over seeds.",
        "",
    ]
    for family, data in dict.fromkeys((row["family"], row["data"]) for row in rows):
        own = [row for row in rows if (row["family"], row["data"]) == (family, data)]
        shares = sorted({row["share"] for row in own}, reverse=True)
        lines += [f"### {family}, {data}", ""]
        lines += ["| arm | " + " | ".join(f"{share:g} of the MACs" for share in shares) + " |"]
        lines += ["|---|" + "--:|" * len(shares)]
        for arm in sorted({row["arm"] for row in own}):
            told = [_figure([row for row in own if (row["arm"], row["share"]) == (arm, share)]) for share in shares]
            lines.append(f"| {arm} | " + " | ".join(told) + " |")
        lines.append("")
    return "\n".join(lines)


def _figure(rows: Sequence[Row]) -> str:
    """The mean, and the deviation over seeds pooled over networks."""
    if not rows:
        return ""
    by_network: dict[str, list[float]] = {}
    for row in rows:
        by_network.setdefault(row["member"], []).append(row["metric"])
    spreads = [statistics.variance(values) for values in by_network.values() if len(values) > 1]
    spread = f" ± {statistics.fmean(spreads) ** 0.5:.2f}" if spreads else ""
    return f"{statistics.fmean(row['metric'] for row in rows):.2f}{spread}"
