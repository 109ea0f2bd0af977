"""Caches: numbers that a helper remembers from an earlier call are followed all the same, and nothing stays patched."""

import contextlib
import functools
import sys
import types
from unittest.mock import patch

import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.caches import nothing_remembered
from tests.laws import oracle


@functools.lru_cache(256)
def split(shape: tuple[int, ...], heads: int) -> tuple[int, ...]:
    """As libraries do that work out layouts once."""
    return (*shape[:-1], heads, shape[-1] // heads)


class Heads(nn.Module):
    """Lays out its heads by a helper that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 3
        self.a, self.b = nn.Linear(4, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y.reshape(split(tuple(y.shape), self.heads)).relu().flatten(-2))


def test_what_a_helper_remembers_is_followed() -> None:
    model, x = Heads().eval(), torch.ones(2, 4)
    expected = model(x)  # the helper knows all numbers now
    before = split
    graph = mp.trace(model, (x,))
    assert split is before
    assert sorted(axis.size for axis in graph.free.values()) == [3, 4]
    assert ("", "heads") in graph.numbers
    assert oracle.half(graph).widths == mp.Plan({name: range(2) for name in graph.free}).widths
    assert mp.slice(model, graph, oracle.half(graph))(x).shape == expected.shape


def test_only_some_numbers_are_worked_out_anew_and_all_is_put_back() -> None:
    split.cache_clear()
    before = split
    with nothing_remembered(bool):
        assert split((2, 6), 3) == split((2, 6), 3) == (2, 3, 2)
        assert split.cache_info().hits == 1
        assert split((2, 6), True) == (2, 1, 6)
        assert split.cache_info().currsize == 1
    assert split is before


def test_all_is_put_back_after_an_error() -> None:
    before = split
    with contextlib.suppress(KeyError), nothing_remembered(bool):
        raise KeyError
    assert split is before


def test_a_library_that_comes_to_hold_more_is_looked_through_again() -> None:
    library = types.ModuleType("library_that_grows")
    library.__file__ = "/somewhere/site-packages/library_that_grows.py"
    with patch.dict(sys.modules, {library.__name__: library}):
        with nothing_remembered(bool):
            pass
        library.late = late = functools.lru_cache(8)(lambda value: [value])  # type: ignore[attr-defined]
        for _ in range(2):
            with nothing_remembered(bool):
                assert library.late(2) is library.late(2)
                assert library.late(True) is not library.late(True)
            assert library.late is late
        library.late = late = functools.lru_cache(8)(lambda value: [value, value])  # type: ignore[attr-defined]
        with nothing_remembered(bool):
            assert library.late(True) == [True, True]
            assert library.late(True) is not library.late(True)
        assert library.late is late
