"""Budgets, and the plans that use them up."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.cost.lanes import alignment
from metaprune.graph.errors import BudgetError, MetapruneError
from metaprune.graph.graph import ChannelGraph, WidthLimits
from metaprune.graph.limits import limited
from metaprune.graph.term import axes_of, size, width
from tests.laws.case import case

NAMES = (
    *("vgg", "resnet", "resnet_bottleneck", "densenet", "unet", "mobilenet_v2", "efficientnet", "resnext"),
    *("edsr", "gpt", "mixer"),
)
MANY_WIDTHS = ("vgg", "resnet", "densenet", "unet", "mobilenet_v2", "efficientnet")


def graph_of(name: str) -> ChannelGraph:
    return case(name).graph


def random_scores(graph: ChannelGraph, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(axis.size, generator=generator) for name, axis in graph.free.items()}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, ("macs", "params", "latency", "none")),
        ({"macs": 0.5, "params": 0}, ("params", "above 0")),
        ({"macs": 0}, ("macs", "above 0", "0.5 keeps half")),
        ({"macs": -1}, ("macs", "above 0", "-1")),
        ({"macs": 1.5}, ("macs", "up to 1", "1.5")),
        ({"params": 1e6 + 0.5}, ("params", "whole number")),
        ({"macs": math.nan}, ("macs", "nan")),
        ({"macs": math.inf}, ("macs", "inf")),
        ({"macs": True}, ("macs", "True")),
        ({"macs": "50%"}, ("macs", "50%")),
        ({"macs": [0.5]}, ("macs", "[0.5]")),
        ({"latency": 0.0}, ("latency", "above 0")),
        ({"latency": -2.0}, ("latency", "-2")),
        ({"speedup": 0.99}, ("speedup from 1", "0.99", "2 is twice as fast")),
        ({"macs": 0.5, "speedup": 0}, ("speedup above 0", "got 0")),
        ({"macs": 0.5, "multiple_of": 0}, ("multiple_of", "from 1", "0")),
        ({"macs": 0.5, "multiple_of": -8}, ("multiple_of", "-8")),
        ({"macs": 0.5, "multiple_of": 8.0}, ("multiple_of", "8.0")),
        ({"macs": 0.5, "multiple_of": "8"}, ("multiple_of", "'8'")),
        ({"macs": 0.5, "multiple_of": True}, ("multiple_of", "True")),
    ],
    ids=str,
)
def test_bad_values(fields: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(BudgetError) as caught:
        mp.Budget(**fields)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("budget: ")
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (mp.Budget(macs=0.5), "0.5 of the MACs"),
        (mp.Budget(macs=1), "1 of the MACs"),
        (mp.Budget(params=270_000), "270,000 parameters"),
        (mp.Budget(latency=1.25), "1.25 ms"),
        (mp.Budget(speedup=1), "1 times the speed"),
        (mp.Budget(macs=0.5, speedup=2.5), "0.5 of the MACs and 2.5 times the speed"),
        (mp.Budget(macs=0.5, params=0.6, latency=3), "0.5 of the MACs and 0.6 of the parameters and 3 ms"),
    ],
)
def test_in_words(budget: mp.Budget, words: str) -> None:
    assert str(budget) == words


def test_a_latency_is_not_allocated() -> None:
    for budget in (mp.Budget(latency=2.0), mp.Budget(speedup=2.0), mp.Budget(macs=0.5, latency=2.0)):
        with pytest.raises(BudgetError, match="a latency is measured, not computed"):
            Allocation(graph_of("resnet"), budget)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cost", ["macs", "params"])
@pytest.mark.parametrize("multiple_of", [1, 4])
def test_plans(name: str, cost: str, multiple_of: int) -> None:
    """Within the limit, in steps, above the floors, the best of each axis, and monotone in the budget."""
    graph = graph_of(name)
    scores = random_scores(graph)
    loosest = Allocation(graph, mp.Budget(**{cost: 1.0}, multiple_of=multiple_of))
    assert loosest.plan(scores).kept == {}
    smallest = loosest.form.at(loosest.least) / loosest.dense
    before = 0
    for part in (0.05, 0.2, 0.4, 0.6, 0.8, 1.0):
        budget = mp.Budget(**{cost: smallest + (1 - smallest) * part}, multiple_of=multiple_of)
        allocation = Allocation(graph, budget)
        plan = allocation.plan(scores)
        plan.check(graph)
        price = allocation.form.at(plan.widths)
        assert price <= allocation.limit
        if multiple_of == 1 and name in MANY_WIDTHS and part < 1:
            assert price >= allocation.limit - 0.005 * allocation.dense - 1
        assert price >= before
        before = price
        for axis, kept in plan.kept.items():
            step, least, size = allocation.steps[axis], allocation.least[axis], graph.axes[axis].size
            assert len(kept) % step == 0 or len(kept) == size
            assert math.ceil(0.1 * size) <= least <= len(kept) < size
            best = scores[axis].topk(len(kept)).indices.sort().values.tolist()
            assert list(kept) == best


@pytest.mark.parametrize("name", NAMES)
def test_an_impossible_budget_names_one_that_is_possible(name: str) -> None:
    """Both as a share and as a number: who asks for what the error says gets it."""
    graph = graph_of(name)
    for cost, multiple_of in (("macs", 1), ("macs", 8), ("params", 1), ("params", 4)):
        loosest = Allocation(graph, mp.Budget(**{cost: 1.0}, multiple_of=multiple_of))
        if loosest.form.at(loosest.least) == loosest.dense:
            continue
        with pytest.raises(BudgetError) as caught:
            Allocation(graph, mp.Budget(**{cost: 1e-6}, multiple_of=multiple_of))
        line = str(caught.value)
        assert "\n" not in line
        assert ("smaller multiple_of" in line) == (multiple_of > 1)
        found = re.search(r"smallest possible is ([\d.]+) \(([\d,]+) of ([\d,]+) ", line)
        assert found, line
        share, number, dense = float(found[1]), int(found[2].replace(",", "")), int(found[3].replace(",", ""))
        assert dense == loosest.dense
        for value in (number, share):
            allocation = Allocation(graph, mp.Budget(**{cost: value}, multiple_of=multiple_of))
            price = allocation.form.at(allocation.plan(random_scores(graph)).widths)
            assert number <= price <= max(number, share * dense)
        with pytest.raises(BudgetError):
            Allocation(graph, mp.Budget(**{cost: number - 1}, multiple_of=multiple_of))


@pytest.mark.parametrize("name", ["resnet", "densenet", "mobilenet_v2", "gpt"])
@pytest.mark.parametrize("multiple_of", [1, 4])
def test_the_dead_never_stay(name: str, multiple_of: int) -> None:
    graph = graph_of(name)
    allocation = Allocation(graph, mp.Budget(macs=0.7, multiple_of=multiple_of))
    scores = random_scores(graph)
    for axis, score in scores.items():
        dead = graph.axes[axis].size - allocation.least[axis]
        score[torch.randperm(len(score))[: dead // 2]] = -torch.inf
    for limit in (None, allocation.dense, (allocation.dense + allocation.limit) / 2):
        plan = allocation.plan(scores, limit)
        for axis, score in scores.items():
            kept = list(plan.kept.get(axis, range(len(score))))
            assert (score[kept] > -torch.inf).all()


@pytest.mark.parametrize("way", ["plan", "proportional"])
def test_scores_that_are_no_numbers_are_refused_by_the_axis(way: str) -> None:
    """They would be sorted somewhere: a diverged network would be cut, and nobody told."""
    allocation = Allocation(graph_of("resnet"), mp.Budget(macs=0.5, multiple_of=1))
    scores = random_scores(graph_of("resnet"))
    scores["layer2.0.conv1"][3] = torch.inf
    getattr(allocation, way)(scores)
    scores["layer2.0.conv1"][3] = torch.nan
    with pytest.raises(MetapruneError, match=r"numbers as the scores of layer2\.0\.conv1, got NaN.*not finite"):
        getattr(allocation, way)(scores)


def test_another_limit_on_the_way() -> None:
    allocation = Allocation(graph_of("resnet"), mp.Budget(macs=0.3, multiple_of=1))
    scores = random_scores(graph_of("resnet"))
    for share in (0.9, 0.6, 0.3):
        price = allocation.form.at(allocation.plan(scores, share * allocation.dense).widths)
        assert (share - 0.1) * allocation.dense < price <= share * allocation.dense
    assert allocation.plan(scores, allocation.dense).kept == {}


def test_the_ranking_decides() -> None:
    """All axes together: those with small scores pay."""
    graph = graph_of("resnet")
    scores = {axis: torch.rand(graph.axes[axis].size) + 1 for axis in graph.free}
    scores["layer2.0.conv1"] -= 1
    plan = Allocation(graph, mp.Budget(macs=0.85, multiple_of=1)).plan(scores)
    cut = {axis: graph.axes[axis].size - stays for axis, stays in plan.widths.items()}
    assert cut["layer2.0.conv1"] >= 5
    assert sum(cut.values()) - cut["layer2.0.conv1"] <= 4


def test_ties_of_scores_are_settled_the_same_way_each_time() -> None:
    graph = graph_of("resnet")
    scores = {axis: torch.ones(graph.axes[axis].size) for axis in graph.free}
    allocation = Allocation(graph, mp.Budget(params=0.5, multiple_of=1))
    plan = allocation.plan(scores)
    assert plan == Allocation(graph, mp.Budget(params=0.5, multiple_of=1)).plan(scores)
    assert plan.kept
    for axis, kept in plan.kept.items():  # the last of equals stay
        assert kept == tuple(range(graph.axes[axis].size - len(kept), graph.axes[axis].size))
    assert allocation.form.at(plan.widths) <= allocation.limit


@pytest.mark.parametrize("multiple_of", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("name", ["resnet", "channel_shuffle", "gpt", "edsr", "resnext"])
def test_aligned_steps_align_every_dimension(name: str, multiple_of: int) -> None:
    """Whatever the steps allow: where a dimension was aligned before the cut, it is aligned after it."""
    graph = graph_of(name)
    steps = alignment(graph, multiple_of)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        widths = {
            axis: min(steps[axis] * int(torch.randint(1, 20, (), generator=generator)), graph.axes[axis].size)
            for axis in graph.free
        }
        for name_of_tensor, dims in graph.tensors.items():
            for term in dims:
                if any(graph.is_free(axis) for axis in axes_of(term)) and size(term) % multiple_of == 0:
                    whole = any(
                        widths.get(axis.name) == axis.size and axis.size % steps[axis.name]
                        for axis in axes_of(term)
                        if axis.name in widths
                    )
                    assert whole or width(term, widths) % multiple_of == 0, name_of_tensor


def test_steps_of_heads_and_their_sizes() -> None:
    """Heads of a fixed aligned size leave one by one."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.size = 4, 8
            self.q, self.out = nn.Linear(16, 32), nn.Linear(32, 16)

        def forward(self, x: Tensor) -> Tensor:
            split = self.q(x).unflatten(-1, (self.heads, self.size))
            return self.out((split * split.softmax(-1)).flatten(-2))

    graph = mp.trace(Heads(), (torch.zeros(2, 3, 16),))
    assert alignment(graph, 8) == {"q[0]": 1, "q[1]": 8}


def test_one_axis_alone() -> None:
    graph = mp.trace(nn.Sequential(nn.Linear(5, 10), nn.Linear(10, 5)), (torch.zeros(2, 5),))
    for stays in range(1, 11):
        plan = Allocation(graph, mp.Budget(macs=stays / 10, multiple_of=1)).plan({"0": torch.arange(10.0)})
        assert plan.kept.get("0", tuple(range(10))) == tuple(range(10 - stays, 10))


def test_no_axis_at_all() -> None:
    graph = mp.trace(nn.Linear(5, 3), (torch.zeros(2, 5),))
    assert Allocation(graph, mp.Budget(macs=1.0)).plan({}).kept == {}
    with pytest.raises(BudgetError, match="smallest possible is 1"):
        Allocation(graph, mp.Budget(macs=0.5))


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v2", "gpt"])
@pytest.mark.parametrize(("macs", "params"), [(0.7, 0.5), (0.4, 0.9), (0.6, 0.6)])
def test_every_bound_that_is_given_holds(name: str, macs: float, params: float) -> None:
    graph = graph_of(name)
    scores = random_scores(graph)
    both = Allocation(graph, mp.Budget(macs=macs, params=params, multiple_of=1))
    plan = both.plan(scores)
    assert mp.macs(graph, plan) <= macs * mp.macs(graph)
    assert mp.params(graph, plan) <= params * mp.params(graph)
    both.check(plan, "test")
    assert 0 <= both.left_unspent(plan) <= 0.03
    for one in ({"macs": macs}, {"params": params}):  # neither bound alone says so much
        loose = Allocation(graph, mp.Budget(**one, multiple_of=1)).plan(scores)
        over = {
            "macs": mp.macs(graph, loose) > both.bounds[0].limit,
            "params": mp.params(graph, loose) > both.bounds[1].limit,
        }
        assert plan == loose or any(over.values())
    halfway = both.plan(scores, limit=(both.dense + both.limit) / 2)
    assert mp.params(graph, halfway) <= (1 + params) / 2 * mp.params(graph)


def test_a_bound_that_cannot_be_met_names_what_is_in_the_way() -> None:
    graph = graph_of("vgg")
    whole = graph.fixing(dict.fromkeys(list(graph.free)[1:], "it is mine"))
    with pytest.raises(
        BudgetError, match=r"\d+% of that is features.3 \(conv2d\), where .* stays whole \(it is mine\)"
    ):
        Allocation(whole, mp.Budget(macs=0.3))
    with pytest.raises(BudgetError, match=r"0\.1 of the parameters cannot be met; .* is features.7.weight, where"):
        Allocation(whole, mp.Budget(macs=1.0, params=0.1))
    with pytest.raises(BudgetError, match=r"\d+% of that is features.0 \(conv2d\), where"):
        Allocation(graph, mp.Budget(macs=0.01, multiple_of=1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("multiple_of", [1, 2, 4])
def test_proportional_widths_are_the_same_share_everywhere(name: str, multiple_of: int) -> None:
    """No axis is further from the common share than half a step, or its least; a larger share would not fit."""
    graph = graph_of(name)
    allocation = Allocation(graph, mp.Budget(macs=0.7, multiple_of=multiple_of))
    plan = allocation.proportional(random_scores(graph))
    allocation.check(plan, "test")
    widths = {axis: plan.widths.get(axis, size) for axis, size in allocation.sizes.items()}

    def off(share: float, axis: str) -> float:
        size, step, least = allocation.sizes[axis], allocation.steps[axis], allocation.least[axis]
        wanted = min(max(share * size, least), size)
        return abs(widths[axis] - wanted) - step / 2

    shares = [i / 1000 for i in range(1001)]
    fitting = [share for share in shares if all(off(share, axis) <= 1e-9 for axis in widths)]
    assert fitting
    wider = Allocation(graph, mp.Budget(macs=1.0, multiple_of=multiple_of)).lanes
    next_up = {axis: wider[axis].nearest(max(fitting) + 0.002) for axis in widths}
    assert next_up == widths or allocation.form.at(next_up) > allocation.limit


def test_proportional_to_given_ratios() -> None:
    graph = graph_of("vgg")
    ratios = {name: 1.0 if place % 2 else 0.5 for place, name in enumerate(graph.free)}
    allocation = Allocation(graph, mp.Budget(macs=0.4, multiple_of=1))
    plan = allocation.proportional(random_scores(graph), ratios)
    shares = {name: plan.widths.get(name, size) / size for name, size in allocation.sizes.items()}
    wide = [share for name, share in shares.items() if ratios[name] == 1]
    slim = [share for name, share in shares.items() if ratios[name] == 0.5]
    assert max(slim) < min(wide)
    assert sum(wide) / len(wide) == pytest.approx(2 * sum(slim) / len(slim), rel=0.1)
    assert 0 <= allocation.left_unspent(plan) < 0.1


@pytest.mark.parametrize("share", [1.0, 0.6, 0.2])
def test_a_ratio_of_zero_is_the_smallest_width(share: float) -> None:
    graph = graph_of("vgg")
    names = list(graph.free)
    allocation = Allocation(graph, mp.Budget(macs=share, multiple_of=1))
    for zeros in (names[:1], names[::2], names):
        plan = allocation.proportional(random_scores(graph), {name: float(name not in zeros) for name in names})
        allocation.check(plan, "test")
        widths = {name: plan.widths.get(name, size) for name, size in allocation.sizes.items()}
        assert all(widths[name] == allocation.least[name] for name in zeros)
        if share == 1.0:
            assert all(widths[name] == size for name, size in allocation.sizes.items() if name not in zeros)


@pytest.mark.parametrize("ratio", [-1, math.nan, math.inf, None, "0.5", True])
def test_ratios_that_are_none(ratio: Any) -> None:
    graph = graph_of("vgg")
    allocation = Allocation(graph, mp.Budget(macs=0.5, multiple_of=1))
    ratios = dict.fromkeys(graph.free, 1.0) | {next(iter(graph.free)): ratio}
    for project in (lambda: allocation.proportional(random_scores(graph), ratios), lambda: allocation.nearest(ratios)):
        with pytest.raises(BudgetError, match="expected a ratio from 0 for each free axis"):
            project()


def test_a_plan_is_checked() -> None:
    graph = graph_of("vgg")
    with pytest.raises(BudgetError, match=r"expected a plan of someone within 0.5 of the MACs, got 1.0000"):
        Allocation(graph, mp.Budget(macs=0.5, multiple_of=1)).check(mp.Plan({}), "someone")
    both = Allocation(graph, mp.Budget(macs=1.0, params=0.5, multiple_of=1))
    with pytest.raises(BudgetError, match=r"of someone within .*, got 1.0000 \([\d,]+ of [\d,]+ params\)"):
        both.check(mp.Plan({}), "someone")


@pytest.mark.parametrize(
    ("limits", "good", "bad", "said"),
    [
        ({"least": {"0": 4}}, {"0": range(4)}, {"0": range(3)}, "obeys least of 0, got 3 of 12 channels of 0"),
        ({"most": {"0": 8}}, {"0": range(8)}, {"0": range(9)}, "obeys most of 0, got 9 of 12 channels of 0"),
        ({"most": {"0": 8}}, {"0": range(8)}, {}, "obeys most of 0, got 12 of 12 channels of 0"),
        (
            {"alike": (("0", "2"),)},
            {"0": [0, 1], "2": [2, 3]},
            {"0": [0, 1]},
            r"makes 0, 2 alike, got widths \[2, 12\]",
        ),
        (
            {"alike_channels": (("0", "2"),)},
            {"0": [0, 1], "2": [0, 1]},
            {"0": [0, 1], "2": [0, 2]},
            r"makes 0, 2 alike, got widths \[2, 2\]",
        ),
        (
            {"together": (("0", "4"),)},
            {"0": range(6), "4": range(3)},
            {"0": range(6), "4": range(4)},
            r"leaves the same share of 0, 4, got widths \[6, 4\]",
        ),
    ],
    ids=["least", "most", "whole is more than most", "alike", "alike_channels", "together"],
)
def test_a_plan_that_breaks_a_limit_is_a_fault_of_the_method(
    limits: dict[str, Any], good: dict[str, Any], bad: dict[str, Any], said: str
) -> None:
    """As narrow, and as wide, as limits allow is fine."""
    layers = (nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3))
    graph = mp.trace(nn.Sequential(*layers), (torch.zeros(2, 5),))
    words = {name: f"{kind} of {name}" for kind in ("least", "most") for name in limits.get(kind, ())}
    given = WidthLimits(limits.pop("least", {}), limits.pop("most", {}), **limits, said=words)
    allocation = Allocation(replace(graph, limits=given), mp.Budget(macs=1.0, multiple_of=1))
    allocation.check(mp.Plan(good), "someone")
    with pytest.raises(BudgetError, match=f"expected a plan of someone that {said}.*this is a fault of the method"):
        allocation.check(mp.Plan(bad), "someone")


def test_prices_by_hand() -> None:
    """What a channel more costs, as a share of the dense cost; of two bounds, the mean."""
    graph = mp.trace(nn.Sequential(nn.Linear(5, 10), nn.Linear(10, 4)), (torch.zeros(2, 5),))
    macs, params = (5 + 4) / 90, (5 + 1 + 4) / 104
    for given, price in (({"macs": 0.5}, macs), ({"params": 0.5}, params), ({"macs": 0.5, "params": 0.9}, None)):
        expected = (macs + params) / 2 if price is None else price
        assert Allocation(graph, mp.Budget(**given, multiple_of=1)).prices({}) == pytest.approx({"0": expected})


def test_elasticities_by_hand() -> None:
    """A width twice as large: by how much the cost grows; of two bounds, the mean."""
    graph = mp.trace(nn.Sequential(nn.Linear(5, 10), nn.Linear(10, 8), nn.Linear(8, 4)), (torch.zeros(2, 5),))
    widths = {"0": 6, "1": 3}
    macs, params = 5 * 6 + 6 * 3 + 3 * 4, 6 * 6 + 7 * 3 + 4 * 4
    of_macs = {"0": 6 * (5 + 3) / macs, "1": 3 * (6 + 4) / macs}
    of_params = {"0": 6 * (6 + 3) / params, "1": 3 * (7 + 4) / params}
    both = {name: (of_macs[name] + of_params[name]) / 2 for name in widths}
    for given, expected in (
        ({"macs": 0.5}, of_macs),
        ({"params": 0.5}, of_params),
        ({"macs": 0.5, "params": 0.9}, both),
    ):
        found = Allocation(graph, mp.Budget(**given, multiple_of=1)).elasticities(widths)
        assert found == pytest.approx(expected)


def test_what_is_left_unspent_is_of_the_nearest_bound() -> None:
    graph = mp.trace(nn.Sequential(nn.Linear(5, 10), nn.Linear(10, 4)), (torch.zeros(2, 5),))
    both = Allocation(graph, mp.Budget(macs=0.8, params=0.9, multiple_of=1))
    assert both.left_unspent(mp.Plan({"0": range(5)})) == pytest.approx(min((72 - 45) / 90, (93 - 54) / 104))


def drawn_ratios(graph: ChannelGraph, seed: int) -> dict[str, float]:
    shares = torch.rand(len(graph.free), generator=torch.Generator().manual_seed(seed))
    return dict(zip(graph.free, shares.tolist(), strict=True))


def as_ratios(graph: ChannelGraph, plan: mp.Plan) -> dict[str, float]:
    return {name: plan.widths.get(name, axis.size) / axis.size for name, axis in graph.free.items()}


@pytest.mark.parametrize("name", ["resnet", "densenet", "mobilenet_v2", "gpt"])
@pytest.mark.parametrize("budget", [mp.Budget(macs=0.5, multiple_of=2), mp.Budget(params=0.5, macs=0.6, multiple_of=1)])
def test_nearest_is_a_projection(name: str, budget: mp.Budget) -> None:
    """Within the budget and near to it, first channels only, and what it gave is left alone."""
    graph = graph_of(name)
    allocation = Allocation(graph, budget)
    for seed in range(3):
        plan = allocation.nearest(drawn_ratios(graph, seed))
        allocation.check(plan, "nearest")
        assert all(kept == tuple(range(len(kept))) for kept in plan.kept.values())
        assert allocation.nearest(as_ratios(graph, plan)) == plan
        assert allocation.nearest(as_ratios(graph, plan), spend=False) == plan
        if name != "gpt" and budget.multiple_of == 1:
            assert allocation.left_unspent(plan) < 0.01


def test_nearest_keeps_proportions() -> None:
    """Ratios that all are too wide, or too narrow, by one factor are the same widths; in between they stay."""
    graph = graph_of("resnet")
    allocation = Allocation(graph, mp.Budget(macs=0.4, multiple_of=1))
    ratios = drawn_ratios(graph, 5)
    wide, narrow = (allocation.nearest({axis: r * f for axis, r in ratios.items()}) for f in (10.0, 1e-3))
    assert wide == narrow
    assert allocation.form.at(allocation.nearest(ratios, spend=False).widths) <= allocation.limit
    thin = dict.fromkeys(graph.free, 0.25)
    widths = allocation.nearest(thin, spend=False).widths
    assert all(abs(widths[axis] - 0.25 * graph.axes[axis].size) <= 0.5 for axis in graph.free)
    assert all(widths[axis] <= width for axis, width in allocation.nearest(thin).widths.items())


def test_nearest_keeps_the_channels_with_the_highest_scores() -> None:
    graph = graph_of("vgg")
    allocation, scores = Allocation(graph, mp.Budget(macs=0.5, multiple_of=1)), random_scores(graph)
    first, best = (allocation.nearest(drawn_ratios(graph, 1), which) for which in (None, scores))
    assert first.widths == best.widths
    assert first != best
    for axis, kept in best.kept.items():
        assert list(kept) == scores[axis].topk(len(kept)).indices.sort().values.tolist()


def test_nearest_obeys_limits() -> None:
    graph = graph_of("densenet")
    sizes = {name: axis.size for name, axis in graph.free.items()}
    one, two = next((a, b) for a in sizes for b in sizes if a < b and sizes[a] == sizes[b])
    rest = [name for name in sizes if name not in (one, two)]
    half = {name: sizes[name] // 2 for name in rest}
    limits = WidthLimits(
        {rest[0]: half[rest[0]]}, {rest[1]: half[rest[1]]}, alike=((one, two),), said=dict.fromkeys(sizes, "x")
    )
    allocation = Allocation(replace(graph, limits=limits), mp.Budget(macs=0.5, multiple_of=1))
    for seed in range(3):
        ratios = {**drawn_ratios(graph, seed), rest[0]: 0.0, rest[1]: 1.0}
        plan = allocation.nearest(ratios)
        allocation.check(plan, "nearest")
        assert allocation.nearest(as_ratios(graph, plan)) == plan


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -0.1, "0.5", True])
def test_nearest_wants_a_ratio_for_each_axis(bad: Any) -> None:
    graph = graph_of("vgg")
    ratios = dict.fromkeys(graph.free, 0.5)
    if bad is None:
        ratios.popitem()
    else:
        ratios[list(ratios)[1]] = bad
    with pytest.raises(BudgetError, match="ratio from 0 for each free axis"):
        Allocation(graph, mp.Budget(macs=0.9)).nearest(ratios)


def test_what_the_user_said_is_named_before_what_the_network_says() -> None:
    """Even where more channels are fixed for another reason at the same operator."""
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))
    graph = mp.trace(model, (torch.rand(1, 64),))
    held = limited(graph, mp.Limits(keep=("0",)))
    with pytest.raises(BudgetError, match=r"0 \(linear\), where 0 stays whole \(limits: '0' is kept"):
        Allocation(held, mp.Budget(macs=0.5))
    with pytest.raises(
        BudgetError, match=r"0 \(linear\), where 0 has 16 of 16 channels at least \(limits: least '0' 12"
    ):
        Allocation(limited(graph, mp.Limits(least={"0": 12})), mp.Budget(macs=0.5))
