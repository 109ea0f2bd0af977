"""The picture beside the page: what each family left out gains, and how that grows with the families learned from."""

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.experiment import pyplot
from benchmarks.families.page import Row, above, by_family, criterion_of, place, whole_of


def draw(rows: Sequence[Row], path: Path, most: int) -> bool:
    """Points above the criterion, with the standard error that seeds make; false where there is nothing to draw.

    Args:
        rows: Of networks that were pruned.
        path: Of the picture.
        most: How many families a metanetwork learned from with nothing changed.
    """
    gains = {family: above(whole_of(some), criterion_of(some)) for family, some in by_family(rows).items()}
    gains = {family: gain for family, gain in gains.items() if gain[0] == gain[0]}
    if not gains:
        return False
    plt = pyplot()
    growth = grown(rows, most)
    columns = 2 if growth else 1
    figure, [[left, *others]] = plt.subplots(
        1, columns, squeeze=False, figsize=(4 * columns, 3.2), layout="constrained"
    )
    for level, (value, error) in enumerate(gains.values()):
        left.errorbar(value, level, xerr=error, marker="o", capsize=3, color="C0")
    left.axvline(0, color="grey", linestyle=":")
    left.set_yticks(range(len(gains)), list(gains))
    left.invert_yaxis()
    left.set(title="the family left out", xlabel="points above the criterion")
    for right in others:
        for count, (value, error) in growth.items():
            right.errorbar(count, value, yerr=error, marker="o", capsize=3, color="C0")
        right.axhline(0, color="grey", linestyle=":")
        right.set(title="how it grows", xlabel="families learned from", ylabel="points above the criterion")
    for panel in (left, *others):
        panel.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return True


def grown(rows: Sequence[Row], most: int) -> dict[int, tuple[float, float]]:
    """Families learned from -> points above the criterion, on the networks, budgets and seeds that all have."""
    counted: dict[int, list[Row]] = {}
    for row in rows:
        if found := re.search(r", (\d+) families$", row["arm"]):
            counted.setdefault(int(found[1]), []).append(row)
    if not counted:
        return {}
    counted[most] = whole_of(rows)
    common = set.intersection(*({place(row) for row in some} for some in counted.values()))
    own = criterion_of(rows)
    return {count: above([row for row in counted[count] if place(row) in common], own) for count in sorted(counted)}
