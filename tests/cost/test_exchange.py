"""Exchanges: the cheapest that comes near, found without looking at all."""

import itertools

import torch
from torch import Tensor

from metaprune.cost.exchange import _moves, close


def test_moves_are_all_changes_of_a_few_lanes_by_a_step() -> None:
    for lanes in (1, 2, 4):
        every = [move for move in itertools.product((-1, 0, 1), repeat=lanes) if sum(map(abs, move)) <= 3]
        found = [tuple(move) for move in _moves(lanes).tolist()]
        assert sorted(found) == sorted(every)
    assert len(_moves(24)) == 1 + 2 * 24 + 4 * 276 + 8 * 2024  # up to three of 24
    assert len(_moves(25)) == 1 + 2 * 25 + 4 * 300  # more lanes: up to two


def test_the_cheapest_exchange_is_found_and_few_are_looked_at() -> None:
    """With 100 lanes there are 20,000 exchanges of two; those that leave the ranking least come first."""
    lanes = [f"lane{place}" for place in range(100)]
    ladders = {name: [40 - step for step in range(33)] for name in lanes}
    spread = {name: [float(width * (1 + place)) for width in range(41)] for place, name in enumerate(lanes)}
    asked = []

    def left(widths: Tensor) -> Tensor:
        asked.append(len(widths))
        return 2001 - widths.sum(1)

    found = close(dict.fromkeys(lanes, 20), ladders, spread, left, near=0.5, most=5000.0)
    assert {name: width for name, width in found.items() if width != 20} == {"lane0": 21}
    assert sum(asked) < 1000


def test_the_nearest_is_taken_where_none_is_near() -> None:
    ladders = {"a": [30, 20, 10], "b": [30, 20, 10]}
    spread = {name: [float(width) for width in range(31)] for name in ladders}

    def left(widths: Tensor) -> Tensor:
        return 55 - widths.sum(1)

    found = close({"a": 20, "b": 20}, ladders, spread, left, near=1, most=100.0)
    assert sum(found.values()) == 50
    assert torch.tensor(sorted(found.values())).tolist() == [20, 30]
