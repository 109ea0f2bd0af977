"""Widths that operators take."""

import math
import warnings

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.cost.lanes import alignment
from metaprune.graph.steps import align, steps_of_operators
from metaprune.graph.term import Axis, Concat, Product, Term
from metaprune.surgery.trial import trial


class Experts(nn.Module):
    """Two matrices for each expert, and rows sorted by expert, in one grouped product, which is for bfloat16."""

    def __init__(self, dim: int = 16, hidden: int = 24) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(6, dim), nn.Linear(dim, 5)
        self.up, self.down = nn.Parameter(torch.randn(2, dim, hidden)), nn.Parameter(torch.randn(2, hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        ends = torch.tensor([4, 8], dtype=torch.int32)
        y = torch._grouped_mm(self.embed(x), self.up, offs=ends)
        return self.head(torch._grouped_mm(y.relu(), self.down, offs=ends))


def test_trials_and_budgets_use_widths_that_the_operator_takes() -> None:
    model, x = Experts().bfloat16(), torch.randn(8, 6, dtype=torch.bfloat16)
    graph = mp.trace(model, (x,))
    assert sorted(axis.size for axis in graph.free.values()) == [16, 16, 24]
    assert set(steps_of_operators(graph).values()) == set(alignment(graph, 1).values()) == {8}
    assert all(width % 8 == 0 for width in trial(graph).widths.values())


A, B, C = Axis("a", 4), Axis("b", 6), Axis("c", 10)


@pytest.mark.parametrize(
    ("terms", "steps"),
    [
        ([A], {"a": 8, "b": 1, "c": 3}),
        ([C], {"a": 1, "b": 1, "c": 24}),  # of 3 and of 8
        ([Product((A, B))], {"a": 4, "b": 8, "c": 3}),  # 4 × 6 is a multiple of 8
        ([Product((B, A))], {"a": 8, "b": 2, "c": 3}),
        ([Product((A, Axis("", 16), B))], {"a": 1, "b": 8, "c": 3}),  # what is nobody's channels helps as well
        ([Concat((A, Product((B, C))))], {"a": 8, "b": 4, "c": 24}),
        ([Product((A, B, C))], {"a": 2, "b": 4, "c": 24}),  # by 10, then by 60
        ([A, Product((A, B))], {"a": 8, "b": 8, "c": 3}),
        ([Axis("fixed", 5)], {"a": 1, "b": 1, "c": 3}),
    ],
)
def test_sizes_stay_multiples_of_a_number(terms: list[Term], steps: dict[str, int]) -> None:
    found = {"a": 1, "b": 1, "c": 3}
    align(found, terms, 8)
    assert found == steps


@pytest.mark.parametrize("width", [8, 5])
def test_other_widths_are_undone_and_said(width: int) -> None:
    model, x = Experts().bfloat16(), torch.randn(8, 6, dtype=torch.bfloat16)
    graph = mp.trace(model, (x,))
    plan = mp.Plan({name: range(width) for name in graph.free})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small = mp.slice(model, graph, plan)
    assert len(caught) == (0 if width == 8 else 3)
    assert all("test_steps.py:" in str(warning.message) for warning in caught)
    assert math.isfinite(small(x).sum().item())
