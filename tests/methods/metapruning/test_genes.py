"""Vectors of widths: plans, projections, children."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.graph import WidthLimits
from metaprune.methods.metapruning.genes import Genes
from tests.methods import small

BUDGET = mp.Budget(macs=0.5, multiple_of=1)


@pytest.fixture(scope="module")
def graph() -> mp.ChannelGraph:
    torch.manual_seed(0)
    return mp.trace(small.Small(), small.EXAMPLE)


def test_narrower_widths_lie_inside_wider_ones(graph: mp.ChannelGraph) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(axis.size, generator=generator) for name, axis in graph.free.items()}
    for given in (None, scores):
        genes = Genes(Allocation(graph, BUDGET), given)
        narrow, wide = genes.plan((3, 2, 5)), genes.plan((7, 6, 24))
        assert genes.of(narrow) == (3, 2, 5)
        assert genes.of(wide) == (7, 6, 24)
        assert list(graph.free)[2] not in wide.kept  # whole
        for axis, stays in narrow.kept.items():
            assert set(stays) < set(wide.kept.get(axis, range(graph.axes[axis].size)))
            best = range(len(stays)) if given is None else given[axis].topk(len(stays)).indices.sort().values.tolist()
            assert list(stays) == list(best)
            falling = genes.shrinking((3, 2, 5))[axis]
            assert set(falling.topk(len(stays)).indices.tolist()) == set(stays)
            assert falling[list(stays)].min() == 1.0


@pytest.mark.parametrize("window", [1.0, 0.9, 0.6, 0.0])
def test_all_that_is_bred_is_within_the_budget(graph: mp.ChannelGraph, window: float) -> None:
    """And costs no less than the window's lower end."""
    allocation = Allocation(graph, BUDGET)
    genes, numbers = Genes(allocation, window=window), random.Random(0)
    one, other = genes.anywhere(numbers), genes.anywhere(numbers)
    for child in (one, other, genes.mutated(one, 0.5, numbers), genes.crossed([one, other], numbers)):
        allocation.check(genes.plan(child), "genes")
        assert genes.within(child) == child
        assert allocation.left_unspent(genes.plan(child)) < 0.03 or window < 1
        assert window == 1 or genes.share(child) >= window * allocation.limit / allocation.dense
        assert genes.share(child) == allocation.form.at(genes.plan(child).widths) / allocation.dense


def test_a_budget_that_is_only_a_bound_leaves_alone_what_is_within(graph: mp.ChannelGraph) -> None:
    genes = Genes(Allocation(graph, BUDGET), window=0.0)
    assert genes.within((2, 2, 3)) == (2, 2, 3)
    assert genes.within((16, 12, 24)) != (16, 12, 24)
    assert Genes(Allocation(graph, BUDGET)).within((2, 2, 3)) > (2, 2, 3)


def test_widths_below_the_window_grow_by_a_common_factor_and_no_further_than_they_must(
    graph: mp.ChannelGraph,
) -> None:
    genes = Genes(Allocation(graph, BUDGET), window=0.8)
    least = 0.8 * genes.allocation.limit / genes.allocation.dense
    narrow = (2, 2, 3)
    grown = genes.within(narrow)
    assert genes.share(narrow) < least <= genes.share(grown) < 1.1 * least
    factors = [wide / width for wide, width in zip(grown, narrow, strict=True)]
    assert max(factors) - min(factors) <= 0.5
    inside = genes.within((16, 12, 24))
    assert genes.share(inside) > least  # from above they shrink to the budget, not to the window's lower end


def test_children_are_like_their_parents(graph: mp.ChannelGraph) -> None:
    genes, numbers = Genes(Allocation(graph, mp.Budget(macs=1.0, multiple_of=1)), window=0.0), random.Random(0)
    one, other = (4, 5, 6), (9, 8, 7)
    assert genes.mutated(one, 0.0, numbers) == one
    assert all(a != b for a, b in zip(genes.mutated(one, 1.0, numbers), one, strict=True))
    crossed = {genes.crossed([one, other], numbers) for _ in range(60)}
    assert len(crossed) == 8
    assert all(width in pair for child in crossed for width, *pair in zip(child, one, other, strict=True))


def test_axes_that_are_alike_have_one_gene(graph: mp.ChannelGraph) -> None:
    torch.manual_seed(0)
    even = mp.trace(torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(3))), (torch.zeros(2, 8),))
    pair = tuple(even.free)
    alike = replace(even, limits=WidthLimits(alike=(pair,), most=dict.fromkeys(pair, 6)))
    genes = Genes(Allocation(alike, mp.Budget(macs=1.0, multiple_of=1)))
    assert genes.whole() == (6,)
    assert genes.plan((3,)).widths == dict.fromkeys(pair, 3)
