"""What a metanetwork can expect to gain, by hand."""

import math

import pytest

import metaprune as mp
from metaprune.methods.graph_metanetwork.expectation import Expectation, Seen, distance, fitted
from tests.methods import small

GROWING = [Seen(family, 0.3, x, 1 + 2 * x) for family in "abcd" for x in (0.0, 0.5, 1.0)]


def test_a_line_is_found_with_no_error() -> None:
    found = fitted(GROWING)
    assert found is not None
    assert found.gain(0.25) == pytest.approx(1.5)
    assert found.error == pytest.approx(0.0, abs=1e-12)
    assert (found.furthest, found.low, found.high, found.families) == (1.0, 0.3, 0.3, 4)


def test_the_error_is_that_of_families_left_out() -> None:
    """One family is three above: it is off a line through the others by three, each of them by one."""
    seen = [*GROWING[:9], *(Seen("d", 0.1, each.distance, each.gain + 3) for each in GROWING[9:])]
    found = fitted(seen)
    assert found is not None
    assert found.gain(0.5) == pytest.approx(2 + 3 / 4)
    assert found.error == pytest.approx(math.sqrt((9 + 3 * 1) / 4))
    assert (found.low, found.high) == (0.1, 0.3)


def test_of_too_few_families_nothing_is_said() -> None:
    assert fitted([each for each in GROWING if each.family in "ab"]) is None
    assert fitted([]) is None


def test_at_one_distance_it_is_the_mean() -> None:
    found = fitted([Seen(family, 0.3, 0.5, gain) for family, gain in zip("abc", (1.0, 2.0, 3.0), strict=True)])
    assert found is not None
    assert (found.level, found.slope) == (2.0, 0.0)


@pytest.mark.parametrize(
    ("share", "away", "sure"),
    [
        (0.2, 0.9, 1),
        (0.2, 0.0, -1),
        (0.2, 0.5, 0),  # within two errors of nothing
        (0.2, 1.1, 0),  # further than anything that was seen
        (0.5, 0.9, 0),  # more stays than it was seen to leave
        (0.05, 0.9, 0),
        (0.0999, 0.9, 1),  # as good as a tenth
    ],
)
def test_it_is_sure_of_what_is_far_from_nothing_and_was_seen(share: float, away: float, sure: int) -> None:
    assert Expectation(-2.0, 5.0, 1.0, 1.0, 0.1, 0.3, 5).sure(share, away) == sure


def test_nothing_is_no_gain() -> None:
    assert Expectation(0.0, 0.0, 0.0, 1.0, 0.1, 0.3, 5).sure(0.2, 0.5) == 0


def test_the_distance_of_plans() -> None:
    """An axis that a plan does not name is whole."""
    graph = mp.trace(small.network(), small.EXAMPLE)
    sizes = {name: axis.size for name, axis in graph.free.items()}
    half = mp.Plan({name: range(size // 2) for name, size in sizes.items()})
    assert distance(graph, half, half) == 0
    assert distance(graph, half, mp.Plan({})) == pytest.approx(math.log(2))
    name = next(iter(sizes))
    one = mp.Plan({name: range(sizes[name] // 2)})
    assert distance(graph, mp.Plan({}), one) == pytest.approx(math.log(2) / math.sqrt(len(sizes)))


def test_it_goes_to_a_file_and_back() -> None:
    found = Expectation(1.0, 2.0, 0.5, 1.0, 0.1, 0.3, 5)
    said = found.to_dict()
    assert Expectation.of(said) == found
    for bad in ({}, said | {"more": 1}, said | {"error": -1.0}, said | {"slope": math.nan}, said | {"families": "5"}):
        with pytest.raises(ValueError, match="expectation"):
            Expectation.of(bad)
