"""The reward, where it was at fault as published; and Pareto fronts."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from typing import Any

import pytest

import metaprune as mp
from metaprune.graph.errors import MetapruneError
from metaprune.methods.metapruning.rewarded import POLE, front


def test_by_hand() -> None:
    assert mp.rewarded(70.0)(60.0, 0.5) == pytest.approx((70 / 10) ** 2 * math.log(2))
    assert mp.rewarded(70.0, 0.8, exponent=1)(35.0, 0.4) == pytest.approx(2 * math.log(2))
    assert mp.rewarded(20.0, higher_is_better=False)(30.0, 0.5) == pytest.approx(4 * math.log(2))


@pytest.mark.parametrize("reward", [mp.rewarded(70.0, 0.6), mp.rewarded(30.0, 0.6, higher_is_better=False)])
def test_better_is_never_worse(reward: Any) -> None:
    """Nor is cheaper: past the pole and past the base's cost too, where the published form turns about."""
    metrics = [10.0, 50.0, 69.0, 69.9999, 70.0, 70.1, 90.0]
    metrics = metrics if reward.higher_is_better else [100 - metric for metric in metrics]
    shares = [0.1, 0.3, 0.599, 0.6, 0.7, 1.0]
    for share in shares:
        values = [reward(metric, share) for metric in metrics]
        assert all(map(math.isfinite, values))
        assert values == sorted(values)
    for metric in metrics:
        values = [reward(metric, share) for share in shares]
        assert all(cheap > dear for cheap, dear in itertools.pairwise(values))


def test_the_pole_is_clipped() -> None:
    assert mp.rewarded(70.0)(70.0, 0.5) == mp.rewarded(70.0)(75.0, 0.5) == pytest.approx(POLE**-2 * math.log(2))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0.0,), "base metric other than 0"),
        ((math.nan,), "base metric"),
        ((70.0, 0.0), "base cost"),
        ((70.0, 2_000_000), "base cost as a share"),
    ],
)
def test_bases_that_nothing_can_be_compared_with(arguments: tuple[float, ...], words: str) -> None:
    with pytest.raises(MetapruneError, match=words):
        mp.rewarded(*arguments)
    with pytest.raises(MetapruneError, match="exponent"):
        mp.rewarded(70.0, exponent=0)


@dataclass(frozen=True)
class Point:
    metric: float
    share: float


@pytest.mark.parametrize("higher", [True, False])
def test_a_front_by_brute_force(higher: bool) -> None:
    numbers = random.Random(0)
    points = [Point(numbers.randrange(8), numbers.randrange(8) / 8) for _ in range(40)]
    sign = 1 if higher else -1

    def beats(one: Point, other: Point) -> bool:
        at_least = sign * one.metric >= sign * other.metric and one.share <= other.share
        return at_least and (one.metric, one.share) != (other.metric, other.share)

    expected = {point for point in points if not any(beats(other, point) for other in points)}
    found = front(points, higher_is_better=higher)
    assert set(found) == expected
    assert len(found) == len(expected)
    assert [point.share for point in found] == sorted(point.share for point in found)
