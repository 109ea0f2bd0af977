"""What a metanetwork can expect to gain above its criterion: a straight line through what it was seen to gain.

The further the widths that it asks for are from those of its criterion, the more there is to win or to lose. The line
is drawn through networks of families that it had not learned from; how far those of one family are off a line through
the others says how much it can be trusted.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from metaprune.graph.arguments import is_number, is_whole
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan, ratios_of

__all__ = ["Expectation", "Seen", "distance", "fitted"]

SURE = 2.0
"""How many errors an expectation is from zero where nothing need be tried."""

NEAR = 0.005
"""A share of the cost that is so near to one that was seen counts as seen: widths have steps."""

LEAST = 3
"""Of families that a line is drawn through."""


@dataclass(frozen=True)
class Seen:
    """What a metanetwork gained on one network at one budget.

    Attributes:
        family: What kind of network it was.
        share: Of the cost, that stayed.
        distance: How far its widths were from the criterion's (`distance`).
        gain: By how much it was above the criterion, after fine-tuning; more is better.
    """

    family: str
    share: float
    distance: float
    gain: float


@dataclass(frozen=True)
class Expectation:
    """gain = level + slope · distance, give or take an error.

    Attributes:
        level: The gain at no distance.
        slope: How much it grows with the distance.
        error: Root of the mean square of what is off the line, each family against a line through the others.
        furthest: The largest distance that was seen; what is further is not known.
        low: The smallest share of the cost that was seen to stay.
        high: The largest.
        families: How many the line is drawn through.
    """

    level: float
    slope: float
    error: float
    furthest: float
    low: float
    high: float
    families: int

    def gain(self, distance: float) -> float:
        """What is expected."""
        return self.level + self.slope * distance

    def sure(self, share: float, distance: float) -> int:
        """1 where a gain is sure, -1 where a loss is, 0 where it has to be tried.

        Args:
            share: Of the cost, that will stay.
            distance: From the criterion's widths.
        """
        gain = self.gain(distance)
        seen = distance <= self.furthest and self.low - NEAR <= share <= self.high + NEAR
        if not seen or gain == 0 or abs(gain) < SURE * self.error:
            return 0
        return 1 if gain > 0 else -1

    def to_dict(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Expectation:
        """From what `to_dict` gave.

        Raises:
            ValueError: It did not.
        """
        names = {field.name for field in fields(cls)}
        if said.keys() != names or not is_whole(said["families"]):
            raise ValueError(f"expected {sorted(names)} as an expectation, got {sorted(said)}")
        if not all(is_number(value) and math.isfinite(value) for value in said.values()) or said["error"] < 0:
            raise ValueError("expected an expectation of finite numbers, with an error from 0")
        return cls(**said)


def distance(graph: ChannelGraph, one: Plan, other: Plan) -> float:
    """How far the widths of two plans are apart: the root of the mean square of their ratios' logarithms."""
    ratios = [ratios_of(graph, plan) for plan in (one, other)]
    logs = [math.log(ratios[0][name] / ratios[1][name]) for name in graph.free]
    return math.sqrt(statistics.fmean(log * log for log in logs)) if logs else 0.0


def fitted(seen: Sequence[Seen]) -> Expectation | None:
    """The line of least squares; None where what was seen is of too few families."""
    families = list(dict.fromkeys(each.family for each in seen))
    if len(families) < LEAST:
        return None
    level, slope = _line(seen)
    off = []
    for family in families:
        others = _line([each for each in seen if each.family != family])
        off += [each.gain - others[0] - others[1] * each.distance for each in seen if each.family == family]
    error = math.sqrt(statistics.fmean(value * value for value in off))
    shares = [each.share for each in seen]
    return Expectation(
        level, slope, error, max(each.distance for each in seen), min(shares), max(shares), len(families)
    )


def _line(seen: Sequence[Seen]) -> tuple[float, float]:
    """Level and slope; level alone where all distances are one."""
    distances, gains = [each.distance for each in seen], [each.gain for each in seen]
    if len(set(distances)) < 2:
        return statistics.fmean(gains), 0.0
    slope, level = statistics.linear_regression(distances, gains)
    return level, slope
