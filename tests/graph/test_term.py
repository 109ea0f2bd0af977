"""Terms by hand: a product runs fastest at its end, a concatenation lies end to end."""

import pytest
import torch

from metaprune.graph.term import Axis, Concat, Product, Term, axes_of, channels, inside, places, size, width

A, B, C = Axis("a", 2), Axis("b", 3), Axis("c", 4, "why")
AB, BA = Product((A, B)), Product((B, A))
WHOLE = Concat((A, AB, C))


@pytest.mark.parametrize(
    ("term", "entries", "narrow"), [(A, 2, 1), (AB, 6, 2), (WHOLE, 12, 7), (Product(()), 1, 1), (Concat(()), 0, 0)]
)
def test_sizes_are_products_and_sums(term: Term, entries: int, narrow: int) -> None:
    assert size(term) == entries
    assert width(term, {"a": 1, "b": 2, "elsewhere": 9}) == narrow


def test_axes_come_from_left_to_right_each_time() -> None:
    assert [axis.name for axis in axes_of(WHOLE)] == ["a", "a", "b", "c"]


@pytest.mark.parametrize(
    ("term", "kept", "stays"),
    [
        (A, {"a": [1]}, [1]),
        (A, {"b": [1]}, [0, 1]),
        (AB, {"a": [1]}, [3, 4, 5]),
        (AB, {"b": [0, 2]}, [0, 2, 3, 5]),
        (AB, {"a": [1], "b": [0, 2]}, [3, 5]),
        (BA, {"a": [1], "b": [0, 2]}, [1, 5]),
        (WHOLE, {"a": [1], "b": [2]}, [1, 7, 8, 9, 10, 11]),
        (Product((A, Concat((B, A)))), {"a": [0], "b": [1]}, [1, 3]),
        (Product(()), {"a": [0]}, [0]),
        (Concat(()), {"a": [0]}, []),
    ],
)
def test_channels_that_stay(term: Term, kept: dict[str, list[int]], stays: list[int]) -> None:
    found = channels(term, kept)
    assert found.dtype == torch.int64
    assert found.tolist() == stays
    assert len(found) == width(term, {name: len(left) for name, left in kept.items()})


@pytest.mark.parametrize(
    ("term", "held"),
    [
        (A, [0, 1]),
        (B, [-1, -1, -1]),
        (AB, [0, 0, 0, 1, 1, 1]),
        (BA, [0, 1, 0, 1, 0, 1]),
        (WHOLE, [0, 1, 0, 0, 0, 1, 1, 1, -1, -1, -1, -1]),
        (Concat(()), []),
    ],
)
def test_which_channel_lies_at_each_place(term: Term, held: list[int]) -> None:
    assert places(term, "a").tolist() == held


def test_runs_of_factors_and_parts_are_inside() -> None:
    assert list(inside(A)) == [A]
    assert list(inside(WHOLE)) == [WHOLE, A, AB, A, B, C]
    product = Product((A, B, C))
    assert set(inside(product)) == {product, A, B, C, AB, Product((B, C))}
    assert Product((A, C)) not in set(inside(product)), "they are no neighbours"


def test_an_axis_is_shown_without_all_that_hold_it() -> None:
    assert str(Axis("a", 3, "why", ("a.weight:0",) * 99)) == "Axis(name='a', size=3, fixed='why')"
