"""From widths to a ranking: the budget leaves what was said, and the order inside an axis is the criterion's."""

import math

import pytest
import torch

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.plan import ratios_of
from metaprune.graph.tensors import named_tensors
from metaprune.methods.graph_metanetwork.widths import widened
from metaprune.methods.saliency import relative_norms
from tests.methods import small


@pytest.mark.parametrize(("multiple_of", "share"), [(1, 0.4), (1, 0.2), (4, 0.4)])
def test_a_budget_leaves_the_widths_that_were_said(multiple_of: int, share: float) -> None:
    """Of those that cost what it allows the nearest, where axes count by the roots of their elasticities; by hand."""
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    allocation = Allocation(graph, mp.Budget(macs=share, multiple_of=multiple_of))
    heights = relative_norms(named_tensors(model), graph)
    origin = allocation.plan(heights)
    plain, grows = ratios_of(graph, origin), allocation.elasticities(origin.widths)
    g = torch.tensor([grows[axis] for axis in graph.free], dtype=torch.float64)
    for name, said in [(name, said) for name in graph.free for said in (-0.5, 0.5)]:
        tilts = dict.fromkeys(graph.free, 0.0) | {name: said}
        t = torch.tensor([tilts[axis] for axis in graph.free], dtype=torch.float64)
        level = t - g.sqrt() * (g @ t) / (g @ g.sqrt())
        assert abs(float(g @ level)) < 1e-9, "costs neither more nor less"
        said_so = dict(zip(graph.free, level.tolist(), strict=True))
        wanted = {axis: min(1.0, ratio * math.exp(said_so[axis])) for axis, ratio in plain.items()}
        expected = allocation.nearest(wanted, heights)
        ranked = widened(allocation, heights, tilts)
        plan = allocation.plan(ranked)
        allocation.check(plan, "widened")
        assert plan == expected
        for axis, own in heights.items():
            assert torch.equal(own.argsort(stable=True), ranked[axis].argsort(stable=True))


def test_what_is_dead_has_no_height_and_goes_first() -> None:
    """No channel of an axis weighs anything but two: nothing is divided by zero."""
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    allocation = Allocation(graph, mp.Budget(macs=0.4, multiple_of=1))
    heights = relative_norms(named_tensors(model), graph)
    [first, *_] = graph.free
    heights[first] = torch.zeros_like(heights[first])
    heights[first][3:5] = 1.0
    for said in (-1.0, 0.0, 1.0):
        ranked = widened(allocation, heights, dict.fromkeys(graph.free, 0.0) | {first: said})
        assert all(height.isfinite().all() for height in ranked.values())
        plan = allocation.plan(ranked)
        allocation.check(plan, "widened")
        assert {3, 4} & set(plan.kept[first])
