"""Tensors that are no parameters, buffers or inputs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.capture import capture
from metaprune.graph.literals import single_values, tables
from metaprune.saving import save


class Holds(nn.Module):
    """A table under a plain name, a list of them, and a number in a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.table, self.more = torch.rand(8), [torch.rand(8)]

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(y * self.table + self.more[0]) / torch.tensor(y.shape[-1]).sqrt()


def test_tables_and_single_values_are_told_apart() -> None:
    model = Holds()
    program = capture(model, mp.Call((torch.rand(2, 6),))).program
    assert list(tables(model, program).values()) == ["table"]
    assert {round(value, 4) for value in single_values(program).values()} == {8.0, 2.8284}


def test_what_cannot_be_followed_is_told_with_its_line() -> None:
    graph = mp.trace(Holds(), (torch.rand(2, 6),))
    [reason] = [axis.fixed for axis in graph.axes.values() if axis.size == 8]
    assert reason is not None
    assert "test_literals.py:" in reason


class Table(nn.Module):
    """Learned features times a table."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.table = torch.rand(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) * self.table)


def test_a_table_is_cut_and_the_given_one_is_untouched() -> None:
    model, x = Table(), torch.rand(2, 6)
    before = model.table.clone()
    graph = mp.trace(model, (x,))
    [name] = graph.free
    plan = mp.Plan({name: [1, 4, 6]})
    small = mp.slice(model, graph, plan)
    torch.testing.assert_close(small.table, before[[1, 4, 6]], rtol=0, atol=0)
    torch.testing.assert_close(model.table, before, rtol=0, atol=0)
    torch.testing.assert_close(small(x), mp.mask(model, graph, plan)(x))
    assert small.table.untyped_storage().data_ptr() != model.table.untyped_storage().data_ptr()


@pytest.mark.parametrize("model", [Table(), Holds()])
def test_cached_results_are_no_tables(model: nn.Module) -> None:
    """What a module keeps of an earlier call is of no size that counts."""
    model.kept = model.first(torch.rand(2, 6)).detach()
    graph = mp.trace(model, (torch.rand(2, 6),))
    model.kept = model.first(torch.rand(4, 6)).detach()
    assert "kept" not in graph.tables
    mp.slice(model, graph, mp.Plan({}))


def test_a_table_is_saved_and_loaded(tmp_path: Path) -> None:
    model, x = Table(), torch.rand(2, 6)
    graph = mp.trace(model, (x,))
    plan = mp.Plan({next(iter(graph.free)): [1, 4, 6]})
    small = mp.slice(model, graph, plan)
    save(tmp_path, small, plan, graph)
    torch.testing.assert_close(mp.load(tmp_path, model)(x), small(x), rtol=0, atol=0)
