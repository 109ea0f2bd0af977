"""The page: what there is to win, family by family and budget by budget, and what was won."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from metaprune.methods.graph_metanetwork.expectation import Seen, fitted

Row = Mapping[str, Any]

HEAD = """# One metanetwork for many families

Written by `python -m benchmarks.families --cifar10 … --omniglot … --bsds500 …`.

Points are percent of accuracy, and tenths of a decibel of PSNR.
"""

ROOM = """## Head room

What an allocation of widths can win at most, as far as a search finds it: some thirty allocations, those of DHP among
them with the channels of the metanetwork's criterion, each cut, tuned for {epochs} epochs and measured on validation
data, the best four with a second seed, and the best two with three seeds that have chosen nothing. The best of these
and the best one-shot criterion, both chosen before those three seeds, are compared on test data (mean, and its standard
error from the seeds). “Above its own”: the metanetwork's criterion. “Peak”: what a surface through all that was tried
says is the best, tuned with the same three seeds, above the best criterion. “Between” is the deviation of validation
figures between allocations of one network, what seeds do taken out; “seeds”, the deviation that seeds make. “Taylor”
here has gates on all that holds a channel.
"""

FUSED = "criterion, fused"
"""What the criterion cuts, fused into what stays: what an edit of weights could begin with."""

BEFORE = ", held"
"""How arms end whose gates are on all that holds a channel."""

HELD = f"taylor{BEFORE}"
"""Taylor with such gates."""

CONTROLS = ("criterion", "uniform", "magnitude", "taylor", "dhp", FUSED, HELD)
"""The metanetwork's own criterion first."""

ONE_SHOT = CONTROLS[1:4]
"""The others that cut at once."""

ALL = "all families"
"""The name of the metanetwork that learned from all that may be learned from."""

LEFT_OUT = """## Families left out

A metanetwork for each family, which learned from the networks of all others, prunes networks of this one, at each
budget and with two seeds; all arms are tuned for the same epochs, a search counted. Areas are means over budgets and
networks, of test figures, in points; the error of a difference is the standard error that seeds make. “Best control”:
of uniform, magnitude and Taylor, the one with the largest area here. Head room is that above, where it was asked.
"""

APART_HEAD = """## Families and data kept apart

One metanetwork, learned from all families above; on these nothing was learned and nothing chosen. Looked at once.
"""

ABLATED = """## One thing changed

Metanetworks that differ in one thing, with the family left out; points above the criterion, beside those of the whole
on the same networks. “Fused”: what the metanetwork cuts, fused into what stays, as with the criterion above.
"""

FORMER = """## As it was

The same with gates on all that holds a channel, as criterion, metanetworks and Taylor had them before (“held”). What
was changed one at a time there has not been changed anew.

"""

SAVED = """## What a forward pass saves

The metanetwork's word takes {forward:.1f} s of a core for a network and a budget, and no epoch. A search takes
{search:.1f} minutes ({tunings:.0f} tunings). Meta-training took {learned:.1f} minutes, after lessons of {taught:.0f}
minutes in all: as much as searches of {networks:.0f} networks at one budget.
"""


EXPECTED = """## What it can expect

How far the metanetwork's widths are from its criterion's (d, the root of the mean square of the logarithms of ratios)
says what it gains: {level:+.2f} {slope:+.2f} d points, ± {error:.2f} on a family that the line was not drawn through
({families} families, d up to {furthest:.2f}). Where that is two errors from nothing, `GraphMetanetwork` tries nothing:
by the line through the other families, on {sure} of {whole} networks and budgets here, on {right} of which it is right.
"""


def latter(rows: Sequence[Row]) -> list[Row]:
    """Those with gates where channels are read, and Taylor's of before as a control."""
    return [row for row in rows if row["arm"] == HELD or not row["arm"].endswith(BEFORE)]


def former(rows: Sequence[Row]) -> list[Row]:
    """Those of before, by the names that they had."""
    found = []
    for row in rows:
        if row["arm"].endswith(BEFORE):
            found.append({**row, "arm": row["arm"].removesuffix(BEFORE)})
        elif row["arm"] in ("magnitude", "dhp"):
            found.append(row)
    return found


def gain(row: Row) -> tuple[float, float]:
    """Points of the best that was found above the best rival, and the standard error."""
    sign = row["points"]
    best, rival = ([sign * value for value in row["tests"][row[which]]] for which in ("best", "rival"))
    return _difference(best, rival)


def _difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Of the means, and its standard error; no numbers where one has too few."""
    if min(len(ours), len(theirs)) < 2:
        return float("nan"), float("nan")
    error = (statistics.variance(ours) / len(ours) + statistics.variance(theirs) / len(theirs)) ** 0.5
    return statistics.fmean(ours) - statistics.fmean(theirs), error


def cells(row: Row) -> str:
    """One line of the table of head room."""
    difference, error = gain(row)
    tests = row["tests"]
    own = row["points"] * (statistics.fmean(tests[row["best"]]) - statistics.fmean(tests["criterion"]))
    scaled = [[row["points"] * value for value in values] for values in (row["peak"], tests[row["rival"]])]
    peak = "{:+.2f} ± {:.2f}".format(*_difference(*scaled))
    return (
        f"| {row['member']} | {row['axes']} | {row['share']:g} | {row['dense']:.2f} | "
        f"{statistics.fmean(tests[row['rival']]):.2f} ({row['rival']}) | "
        f"{statistics.fmean(tests[row['best']]):.2f} ({row['best']}) | {difference:+.2f} ± {error:.2f} | {own:+.2f} | "
        f"{peak} | {row['points'] * row['spread']:.2f} | {row['points'] * row['noise']:.2f} |"
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
        "| network | axes | MACs | dense | best criterion | best found | head room | above its own | peak | between "
        "| seeds |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        *map(cells, rows),
        "",
        f"{sum(row['tunings'] for row in rows)} tunings, {sum(row['minutes'] for row in rows):.0f} minutes of a core.",
        "",
    ]
    return "\n".join(lines)


def table(rows: Sequence[Row], room: Sequence[Row] = ()) -> str:
    """Each family that a metanetwork has not learned from, arm by arm, and how far it is above its criterion."""
    whole = whole_of(rows)
    if not whole:
        return ""
    there = {row["member"] for row in whole}
    learned = [row for row in rows if row["arm"] in CONTROLS and row["member"] in there] + whole
    lines = [LEFT_OUT, *_summary(learned, room), ""]
    return "\n".join(lines + _by_family(learned))


def apart(rows: Sequence[Row]) -> str:
    """The same for families and data that nothing was learned from, and nothing chosen by."""
    looked = {row["member"] for row in rows if row["arm"] == ALL}
    own = [row for row in rows if row["member"] in looked and row["arm"] in (*CONTROLS, ALL)]
    return "\n".join([APART_HEAD, *_summary(own, ()), "", *_by_family(own)]) if own else ""


def ablations(rows: Sequence[Row]) -> str:
    """What one thing changed is worth, on the same networks and seeds as the whole."""
    changed: dict[str, list[Row]] = {}
    for row in rows:
        head, _, what = row["arm"].partition(", ")
        if what and head == f"without {row['family']}":
            changed.setdefault(what, []).append(row)
    if not changed:
        return ""
    lines = [ABLATED, "| what is changed | above the criterion | the whole, there | families | runs |"]
    lines += ["|---|--:|--:|--:|--:|"]
    for what, some in changed.items():
        there = {place(row) for row in some}
        same = [row for row in rows if place(row) in there]
        criterion = criterion_of(same)
        figures = [above(some, criterion), above(whole_of(same), criterion)]
        told = " | ".join(f"{value:+.2f} ± {error:.2f}" for value, error in figures)
        lines.append(f"| {what} | {told} | {len({row['family'] for row in some})} | {len(some)} |")
    return "\n".join(lines) + "\n"


def savings(rows: Sequence[Row], meta: Sequence[Row], room: Sequence[Row], lessons: Sequence[Row]) -> str:
    """What a forward pass takes, what a search takes, and after how many networks learning has paid."""
    passes = [row["seconds"] for row in rows if row.get("seconds") is not None]
    if not passes or not meta or not room or not lessons:
        return ""
    forward, search = statistics.fmean(passes), 60 * statistics.fmean(row["minutes"] for row in room)
    learned = 60 * statistics.fmean(row["minutes"] for row in meta)
    taught = 60 * sum(row["minutes"] for row in lessons)
    tunings = statistics.fmean(row["tunings"] for row in room)
    return SAVED.format(
        forward=forward,
        search=search / 60,
        tunings=tunings,
        learned=learned / 60,
        taught=taught / 60,
        networks=(learned + taught) / max(search - forward, 1e-9),
    )


def seen(rows: Sequence[Row]) -> list[Seen]:
    """What each family's own metanetwork gained above its criterion, network by network and budget by budget."""
    whole = whole_of(rows)
    ours, theirs = _points(whole), _points(criterion_of(rows))
    about = {_cell(row): row for row in whole}
    return [
        Seen(
            about[cell]["family"],
            about[cell]["share"],
            about[cell]["distance"],
            statistics.fmean(values) - statistics.fmean(theirs[cell]),
        )
        for cell, values in ours.items()
        if cell in theirs and about[cell].get("distance") is not None
    ]


def expecting(rows: Sequence[Row]) -> str:
    """What a metanetwork can expect to gain, and how often it would be sure and right."""
    found = seen(rows)
    line = fitted(found)
    if line is None:
        return ""
    families = dict.fromkeys(each.family for each in found)
    others = {family: fitted([each for each in found if each.family != family]) for family in families}
    said = [
        (each, sure)
        for each in found
        if (drawn := others[each.family]) is not None and (sure := drawn.sure(each.share, each.distance))
    ]
    return EXPECTED.format(
        level=line.level,
        slope=line.slope,
        error=line.error,
        families=line.families,
        furthest=line.furthest,
        sure=len(said),
        whole=len(found),
        right=sum(sure * each.gain >= 0 for each, sure in said),
    )


def whole_of(rows: Sequence[Row]) -> list[Row]:
    """Those by the metanetwork with nothing changed, which has not learned from the family."""
    return [row for row in rows if row["arm"] == f"without {row['family']}"]


def criterion_of(rows: Sequence[Row]) -> list[Row]:
    """Those by the metanetwork's criterion without a metanetwork."""
    return [row for row in rows if row["arm"] == CONTROLS[0]]


def by_family(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each family."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["family"], []).append(row)
    return found


def _cell(row: Row) -> tuple[Any, ...]:
    return row["member"], row["share"]


def place(row: Row) -> tuple[Any, ...]:
    """Which network, budget and seed a row is of."""
    return *_cell(row), row["seed"]


def above(ours: Sequence[Row], theirs: Sequence[Row]) -> tuple[float, float]:
    """How many points the mean of some runs is above that of others on the same networks and budgets; standard error.

    The error is that of seeds, pooled over networks and budgets.
    """
    both = [_points(rows) for rows in (ours, theirs)]
    known = [cell for cell in both[0] if cell in both[1]]
    if not known:
        return float("nan"), float("nan")
    difference = statistics.fmean(statistics.fmean(both[0][cell]) - statistics.fmean(both[1][cell]) for cell in known)
    error = 0.0
    for cells in both:
        spreads = [statistics.variance(cells[cell]) for cell in known if len(cells[cell]) > 1]
        one = statistics.fmean(spreads) if spreads else float("nan")
        error += sum(one / len(cells[cell]) for cell in known) / len(known) ** 2
    return difference, error**0.5


def _points(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[float]]:
    """In points, seeds together."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        found.setdefault(_cell(row), []).append(row["points"] * row["metric"])
    return found


def _summary(rows: Sequence[Row], room: Sequence[Row]) -> list[str]:
    """A line a family: the area of each arm, and differences of areas."""
    lines = [
        "| family | data | criterion | metanetwork | above its criterion | best control | above it | head room |",
        "|---|---|--:|--:|--:|---|--:|--:|",
    ]
    better = worse = 0
    differences = []
    for family, data in dict.fromkeys((row["family"], row["data"]) for row in rows):
        own = [row for row in rows if (row["family"], row["data"]) == (family, data)]
        arms = {arm: [row for row in own if row["arm"] == arm] for arm in dict.fromkeys(row["arm"] for row in own)}
        ours = [arm for arm in arms if arm not in CONTROLS]
        if not ours or CONTROLS[0] not in arms:
            continue
        areas = {arm: _area(some) for arm, some in arms.items()}
        best = max((arm for arm in ONE_SHOT if arm in arms), key=areas.__getitem__)
        own_gain, own_error = above(arms[ours[0]], arms[CONTROLS[0]])
        best_gain, best_error = above(arms[ours[0]], arms[best])
        better, worse = better + (own_gain > own_error), worse + (own_gain < -own_error)
        differences.append((own_gain, best_gain))
        to_win = [gain(row)[0] for row in room if (row["family"], row["data"]) == (family, data)]
        lines.append(
            f"| {family} | {data} | {areas[CONTROLS[0]]:.2f} | {areas[ours[0]]:.2f} | "
            f"{own_gain:+.2f} ± {own_error:.2f} | {best} | {best_gain:+.2f} ± {best_error:.2f} | "
            f"{f'{statistics.fmean(to_win):+.2f}' if to_win else ''} |"
        )
    if differences:
        means = [statistics.fmean(column) for column in zip(*differences, strict=True)]
        lines.append(f"| mean | | | | {means[0]:+.2f} | | {means[1]:+.2f} | |")
        if fused := [row for row in rows if row["arm"] == FUSED]:
            value, error = above(fused, criterion_of(rows))
            lines += [
                "",
                f"What the criterion cuts, fused into what stays: {value:+.2f} ± {error:.2f} to its criterion.",
            ]
        if held := [row for row in rows if row["arm"] == HELD]:
            value, error = above([row for row in rows if row["arm"] == "taylor"], held)
            lines += [
                "",
                f"Taylor's gates where channels are read, to gates on all that holds them: {value:+.2f} ± {error:.2f}.",
            ]
        lines += [
            "",
            f"Above its criterion by more than the error on {better} of {len(differences)}, below on {worse}.",
        ]
    return lines


def _area(rows: Sequence[Row]) -> float:
    """The mean over budgets and networks, in points."""
    return statistics.fmean(statistics.fmean(values) for values in _points(rows).values())


def _by_family(rows: Sequence[Row]) -> list[str]:
    """A table a family, an arm a line."""
    lines = []
    for family, data in dict.fromkeys((row["family"], row["data"]) for row in rows):
        own = [row for row in rows if (row["family"], row["data"]) == (family, data)]
        shares = sorted({row["share"] for row in own}, reverse=True)
        lines += [f"### {family}, {data}", ""]
        lines += ["| arm | " + " | ".join(f"{share:g} of the MACs" for share in shares) + " | area |"]
        lines += ["|---|" + "--:|" * (len(shares) + 1)]
        for arm in sorted({row["arm"] for row in own}):
            some = [row for row in own if row["arm"] == arm]
            told = [_figure([row for row in some if row["share"] == share]) for share in shares]
            lines.append(f"| {arm} | " + " | ".join(told) + f" | {_area(some):.2f} |")
        lines.append("")
    return lines


def _figure(rows: Sequence[Row]) -> str:
    """The mean, and the deviation over seeds pooled over networks."""
    if not rows:
        return ""
    spreads = [statistics.variance(values) for values in _points(rows).values() if len(values) > 1]
    spread = f" ± {statistics.fmean(spreads) ** 0.5 / rows[0]['points']:.2f}" if spreads else ""
    return f"{statistics.fmean(row['metric'] for row in rows):.2f}{spread}"
