"""Pieces of work that several processes share are each done once, by whoever comes to them first."""

from pathlib import Path

import pytest
from filelock import FileLock

from metaprune.methods.graph_metanetwork.learning.turns import shared
from metaprune.train.processes import is_apart


def test_what_another_has_in_hand_is_waited_for_in_the_end(tmp_path: Path) -> None:
    """It lets go once the others are done; results come in the order of the pieces all the same."""
    (tmp_path / "b").mkdir()
    other, order = FileLock(tmp_path / "b" / "lock"), list[str]()
    other.acquire()

    def work(piece: str) -> str:
        assert is_apart()
        order.append(piece)
        if piece == "c":
            other.release()
        return piece.upper()

    assert shared("abc", lambda piece: tmp_path / piece / "lock", work) == ["A", "B", "C"]
    assert order == ["a", "c", "b"]
    assert not list(tmp_path.glob("*/lock"))
    assert not is_apart()


def test_a_fault_lets_go_of_the_piece(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        shared([1], lambda _: tmp_path / "lock", lambda piece: piece / 0)
    assert shared([1], lambda _: tmp_path / "lock", lambda piece: piece) == [1]
