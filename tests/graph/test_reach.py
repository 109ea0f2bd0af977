"""Containers and objects are brought back in place to what was noted of them."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

import pytest

from metaprune.graph.reach import contents, restore


class Holder:
    """A plain object."""

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)


@pytest.mark.parametrize(
    ("value", "changed"),
    [
        ({"a", "b"}, {"c"}),
        ({"a", "b"}, set()),
        ([1, 2], [3]),
        (deque([1, 2]), deque([2, 1, 0])),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (OrderedDict(a=1), OrderedDict(b=1)),
    ],
    ids=["another set", "an empty set", "list", "deque", "order", "ordered"],
)
def test_a_container_holds_again_what_was_noted(value: Any, changed: Any) -> None:
    before, noted = value.copy(), contents(value)
    value.clear()
    getattr(value, "extend" if isinstance(value, list | deque) else "update")(changed)
    assert value != before or list(value) != list(before)
    restore(value, noted)
    assert value == before
    assert list(value) == list(before) or isinstance(value, set)


def test_an_object_holds_again_what_was_noted() -> None:
    value = Holder(a=1, b=[2])
    noted = contents(value)
    del value.b  # type: ignore[attr-defined]
    value.c = 3  # type: ignore[attr-defined]
    restore(value, noted)
    assert vars(value) == {"a": 1, "b": [2]}
