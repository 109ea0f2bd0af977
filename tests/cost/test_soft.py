"""Soft widths: they cost the budget and obey what widths obey, and their gradient is that of finite differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.cost.latency_form import LatencyForm
from metaprune.cost.signature import pieces
from metaprune.cost.soft import Softness
from metaprune.cost.table import Table
from metaprune.cost.table_sum import TableSum
from metaprune.graph.graph import ChannelGraph
from tests.laws.case import case
from tests.methods.small import EXAMPLE, Small
from tests.zoo import networks

BUDGETS = (
    mp.Budget(macs=0.5, multiple_of=1),
    mp.Budget(macs=0.3, multiple_of=4),
    mp.Budget(params=0.4, multiple_of=1),
    mp.Budget(macs=0.6, params=0.45, multiple_of=2),
)
SHARPNESS = (0.01, 1.0, 30.0, 1e4, 1e7)
LIMITS: dict[str, dict[str, Any]] = {
    "free": {},
    "least": {"least": {"inner": 9}},
    "most": {"most": {"wide": 8}},
}


@cache
def traced() -> ChannelGraph:
    return mp.trace(Small(), EXAMPLE)


def drawn(graph: ChannelGraph, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(axis.size, generator=generator) for name, axis in graph.free.items()}


def shares(allocation: Allocation, masks: dict[str, Tensor]) -> list[float]:
    """What the sums of masks cost, over each bound's limit."""
    widths = torch.stack([masks[name].detach().double().sum() for name in allocation.form.axes])
    return [float(bound.form(widths)) / bound.limit for bound in allocation.bounds]


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("sharpness", SHARPNESS)
def test_it_costs_the_budget(budget: mp.Budget, sharpness: float, limits: str) -> None:
    graph = mp.Limits(**LIMITS[limits]).on(traced())
    allocation = Allocation(graph, budget)
    masks = allocation.soft(drawn(graph), sharpness)
    assert max(shares(allocation, masks)) == pytest.approx(1, abs=1e-6)
    for lane in allocation.lanes.values():
        for axis in lane.axes:
            assert masks[axis].min() >= 0
            assert masks[axis].max() <= 1
            assert lane.least - 1e-4 <= masks[axis].sum() <= lane.most + 1e-4


def test_it_costs_another_limit() -> None:
    allocation = Allocation(traced(), mp.Budget(macs=0.3, params=0.4, multiple_of=1))
    masks = allocation.soft(drawn(traced()), 5.0, limit=0.8 * allocation.dense)
    widths = torch.stack([masks[name].detach().double().sum() for name in allocation.form.axes])
    done = (allocation.dense - 0.8 * allocation.dense) / (allocation.dense - allocation.limit)
    allowed = [bound.dense - done * (bound.dense - bound.limit) for bound in allocation.bounds]
    costs = [float(bound.form(widths)) for bound in allocation.bounds]
    assert max(cost / most for cost, most in zip(costs, allowed, strict=True)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("limits", ["free", "least"])
@pytest.mark.parametrize("multiple_of", [1, 4])
def test_sharp_it_is_a_plan(multiple_of: int, limits: str) -> None:
    """All channels but one are 0 or 1; the order is the scores', and but for one axis widths are steps."""
    graph = mp.Limits(**LIMITS[limits]).on(traced())
    allocation = Allocation(graph, mp.Budget(macs=0.45, multiple_of=multiple_of))
    scores = drawn(traced(), 3)
    masks = allocation.soft(scores, 1e9)
    assert max(shares(allocation, masks)) == pytest.approx(1, abs=1e-6)
    assert sum(int(((mask > 1e-6) & (mask < 1 - 1e-6)).sum()) for mask in masks.values()) <= 1
    fits, over = taken_by_score(allocation, scores)
    for name, mask in masks.items():
        order = scores[name].argsort(descending=True)
        assert all(after <= before for before, after in itertools.pairwise(mask[order].tolist()))
        assert fits[name] - 1e-6 <= float(mask.sum()) <= over[name] + 1e-6
    assert sum(fits[name] < over[name] for name in masks) == 1


def taken_by_score(allocation: Allocation, scores: dict[str, Tensor]) -> tuple[dict[str, int], dict[str, int]]:
    """Blocks of all axes are taken one by one, the best mean first: the last widths that fit, and the next."""
    blocks = sorted(
        (-float(block.mean()), name, len(block))
        for name, score in scores.items()
        for block in score.sort(descending=True).values.split(allocation.steps[name])
    )
    widths, before = dict.fromkeys(scores, 0), {}
    for _, name, count in blocks:
        widths[name] += count
        held = {axis: max(width, allocation.least[axis]) for axis, width in widths.items()}
        if allocation.form.at(held) > allocation.limit:
            return before, held
        before = held
    raise AssertionError("all of it fits")


def test_axes_of_one_lane_count_alike_whatever_their_sizes() -> None:
    """A unit of `b` has twice the channels; the score of a unit is the mean of its axes' means."""
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    graph = mp.Limits(together=(("0", "2"),)).on(mp.trace(model, (torch.randn(2, 5),)))
    allocation = Allocation(graph, mp.Budget(macs=0.5, multiple_of=1))
    flat = torch.tensor([4.0, 3, 2, 1, 9, 7, 6, 6, 1, 3, 0, 0], dtype=torch.float64)
    pooled = allocation._softness.ranked(flat).pooled
    assert pooled.tolist() == [6, 4.5, 2, 0.5, 6, 6, 4.5, 4.5, 2, 2, 0.5, 0.5]
    one, other = allocation.soft({"0": flat[:4], "2": flat[4:]}, 2.0).values()
    assert float(other.sum()) == pytest.approx(2 * float(one.sum()))
    assert max(shares(allocation, {"0": one, "2": other})) == pytest.approx(1, abs=1e-6)


def test_a_block_competes_as_one_and_is_shared_out_among_its_channels() -> None:
    """Widths are what they are where a block's channels have one mask; within it, better ones are given more."""
    graph = traced()
    scores = drawn(graph)
    step = 4
    masks = Allocation(graph, mp.Budget(macs=0.5, multiple_of=step)).soft(scores, 2.0)
    even = {}
    for name, score in scores.items():
        order = score.argsort(descending=True)
        for block in order.split(step):
            even[name] = even.get(name, score.clone()).index_copy(0, block, score[block].mean().expand(len(block)))
            assert masks[name][block].diff().max() < 0
    expected = Allocation(graph, mp.Budget(macs=0.5, multiple_of=step)).soft(even, 2.0)
    for name, mask in masks.items():
        order = scores[name].argsort(descending=True)
        for block in order.split(step):
            assert float(mask[block].sum()) == pytest.approx(float(expected[name][block].sum()), abs=1e-5)
            assert len(expected[name][block].unique()) == 1


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_on_the_way_to_a_plan_the_cost_moves_to_the_plans(budget: mp.Budget) -> None:
    """In proportion; each mask in a straight line, but for what holds the cost; and the gradient is still right."""
    allocation = Allocation(traced(), budget)
    scores = {name: score.double() for name, score in drawn(traced(), 1).items()}
    plan = allocation.plan(drawn(traced(), 2))
    costs = [bound.form.at(plan.widths) / bound.limit for bound in allocation.bounds]
    for share in (0.0, 0.3, 0.9):
        masks = allocation.soft(scores, 1.7, towards=(plan, share))
        over = [
            found / (1 - share + share * cost) for found, cost in zip(shares(allocation, masks), costs, strict=True)
        ]
        assert max(over) == pytest.approx(1, abs=1e-6)
    masks = allocation.soft(scores, 1.7, towards=(plan, 1.0))
    for name, mask in masks.items():
        assert torch.nonzero(mask == 1)[:, 0].tolist() == list(plan.kept.get(name, range(len(mask))))
        assert set(mask.tolist()) <= {0.0, 1.0}
    score = scores["stem"].requires_grad_()
    weight = torch.arange(16.0).double()
    (allocation.soft(scores, 1.7, towards=(plan, 0.6))["stem"] * weight).sum().backward()
    ends = []
    for sign in (1, -1):
        moved = {**scores, "stem": score.detach() + sign * 1e-5 * torch.eye(16)[3].double()}
        ends.append(float((allocation.soft(moved, 1.7, towards=(plan, 0.6))["stem"] * weight).sum()))
    assert score.grad is not None
    assert float(score.grad[3]) == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-6)


def test_where_all_fits_all_stays() -> None:
    allocation = Allocation(traced(), mp.Budget(macs=1.0))
    scores = {name: score.requires_grad_() for name, score in drawn(traced()).items()}
    masks = allocation.soft(scores, 2.0)
    assert all((mask == 1).all() for mask in masks.values())
    sum(mask.sum() for mask in masks.values()).backward()  # type: ignore[union-attr]
    assert all((score.grad == 0).all() for score in scores.values())


def test_the_smallest_that_can_be_met() -> None:
    whole = Allocation(traced(), mp.Budget(macs=1.0, multiple_of=1))
    allocation = Allocation(traced(), mp.Budget(macs=whole.form.at(whole.least), multiple_of=1))
    masks = allocation.soft(drawn(traced()), 3.0)
    assert {name: float(mask.sum()) for name, mask in masks.items()} == pytest.approx(allocation.least)


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_the_gradient_is_that_of_finite_differences(budget: mp.Budget, limits: str) -> None:
    graph = mp.Limits(**LIMITS[limits]).on(traced())
    allocation = Allocation(graph, budget)
    scores = {name: score.double().requires_grad_() for name, score in drawn(graph, 1).items()}
    weights = {name: weight.double() for name, weight in drawn(graph, 2).items()}

    def value(given: dict[str, Tensor]) -> Tensor:
        masks = allocation.soft(given, 1.7)
        return torch.stack([(weights[name] * mask).sum() for name, mask in masks.items()]).sum()

    value(scores).backward()
    step = 1e-5
    for name, score in scores.items():
        for channel in range(0, len(score), 5):
            ends = []
            for sign in (1, -1):
                moved = {axis: other.detach().clone() for axis, other in scores.items()}
                moved[name][channel] += sign * step
                ends.append(float(value(moved)))
            assert score.grad is not None
            assert float(score.grad[channel]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7)


def test_in_a_block_each_channel_has_a_gradient_of_its_own() -> None:
    """So that channels of one block can change places."""
    allocation = Allocation(traced(), mp.Budget(macs=0.5, multiple_of=4))
    scores = {name: score.requires_grad_() for name, score in drawn(traced()).items()}
    masks = allocation.soft(scores, 1.0)
    mask, score = masks["stem"], scores["stem"]
    (mask * torch.arange(16.0)).sum().backward()
    best = score.detach().argsort(descending=True)[:4]
    assert score.grad is not None
    assert len(score.grad[best].unique()) == 4


def test_axes_that_are_alike_have_one_width() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))
    graph = mp.trace(model, (torch.randn(2, 5),))
    for same in (False, True):
        limits = mp.Limits(alike_channels=("*",)) if same else mp.Limits(alike=("*",))
        allocation = Allocation(limits.on(graph), mp.Budget(macs=0.5, multiple_of=1))
        one, other = allocation.soft(drawn(graph), 2.0).values()
        assert float(one.sum()) == pytest.approx(float(other.sum()))
        assert torch.equal(one, other) == same
        assert torch.allclose(one.sort().values, other.sort().values)


@pytest.mark.parametrize("name", networks(families=3))
def test_it_costs_the_budget_on_every_network(name: str) -> None:
    graph = case(name).graph
    if not graph.free:
        return
    for cost in ("macs", "params"):
        whole = Allocation(graph, mp.Budget(**{cost: 1.0}, multiple_of=1))
        limit = max((whole.dense + whole.form.at(whole.least)) // 2, 2)
        for multiple_of in (1, 4):
            try:
                allocation = Allocation(graph, mp.Budget(**{cost: limit}, multiple_of=multiple_of))
            except mp.MetapruneError:
                continue  # so coarse, it cannot be met
            most = allocation.form.at({axis: lane.most for lane in allocation.lanes.values() for axis in lane.axes})
            found = max(shares(allocation, allocation.soft(drawn(graph), 4.0)))
            assert found == pytest.approx(min(1.0, most / limit), abs=1e-6)


def test_they_are_made_on_the_cpu_whatever_the_default_device() -> None:
    graph = traced()
    allocation = Allocation(graph, mp.Budget(macs=0.5, multiple_of=1))
    expected = Softness(allocation.lanes, allocation.bounds)
    with torch.device("meta"):
        found = Softness(allocation.lanes, allocation.bounds)
    for name, value in vars(expected).items():
        assert torch.equal(getattr(found, name), value) if isinstance(value, Tensor) else getattr(found, name) == value


def test_it_takes_as_long_as_is_allowed() -> None:
    """A time that is known as a function of the widths is a bound like others."""
    graph = traced()
    allocation = Allocation(graph, mp.Budget(speedup=2.0, multiple_of=1, form=counted(graph)))
    scores = {name: score.requires_grad_() for name, score in drawn(graph).items()}
    masks = allocation.soft(scores, 3.0)
    assert max(shares(allocation, masks)) == pytest.approx(1, abs=1e-6)
    sum(mask.square().sum() for mask in masks.values()).backward()  # type: ignore[union-attr]
    assert all(score.grad is not None and score.grad.isfinite().all() for score in scores.values())


def counted(graph: ChannelGraph) -> LatencyForm:
    """A time that is what operators multiply."""
    given = {"device": torch.device("cpu"), "precision": "32-true", "channels_last": False}
    found = pieces(graph, graph.inferences[0], **given)  # type: ignore[arg-type]
    known = Table(lambda call: multiplications(call), given["device"], rounds=1)  # type: ignore[arg-type]
    known.learn(piece.signature for piece in found)
    return LatencyForm(graph, TableSum((p.operator.where, p.signature.key, p.terms, known[p.signature]) for p in found))


def multiplications(call: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2e6 + 1e-9
