"""Limits: patterns over axes and modules, and that whoever allocates obeys them."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.cost.lanes import lanes
from metaprune.graph.errors import BudgetError, MetapruneError
from metaprune.graph.graph import ChannelGraph
from tests.laws.case import case

NAMES = ("vgg", "resnet", "mobilenet_v2", "gpt", "resnext", "densenet")


def graph_of(name: str) -> ChannelGraph:
    return case(name).graph


def scores_of(graph: ChannelGraph, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(axis.size, generator=generator) for name, axis in graph.free.items()}


def widths_of(graph: ChannelGraph, plan: mp.Plan) -> dict[str, int]:
    return {name: plan.widths.get(name, axis.size) for name, axis in graph.axes.items()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_random_limits_are_obeyed_or_the_error_names_what_is_in_the_way(name: str, seed: int) -> None:
    graph = graph_of(name)
    generator = torch.Generator().manual_seed(seed)
    axes = list(graph.free)
    drawn = torch.rand(3, len(axes), generator=generator)
    keep = [axis for axis, draw in zip(axes, drawn[0], strict=True) if draw < 0.15]
    cut = [axis for axis in axes if axis not in keep]
    least = {axis: 0.2 + 0.3 * float(draw) for axis, draw in zip(axes, drawn[1], strict=True) if draw < 0.5}
    most = {axis: 0.6 + 0.4 * float(d) for axis, d in zip(axes, drawn[2], strict=True) if d < 0.5 and axis in cut}
    limited = mp.Limits(keep=keep, least=least, most=most).on(graph)
    for share in (0.9, 0.5, 0.2):
        budget = mp.Budget(macs=share, multiple_of=(1, 2)[seed % 2])
        narrowest = {name: lane.least for name, lane in lanes(limited, budget.multiple_of).items()}
        if mp.macs(limited, mp.Plan({name: range(width) for name, width in narrowest.items()})) > share * mp.macs(
            graph
        ):
            with pytest.raises(BudgetError, match="% of that is"):
                Allocation(limited, budget)
            continue
        allocation = Allocation(limited, budget)
        for plan in (allocation.plan(scores_of(limited)), allocation.proportional(scores_of(limited))):
            allocation.check(plan, "test")
            widths = widths_of(limited, plan)
            assert mp.macs(limited, plan) <= share * mp.macs(graph)
            assert all(widths[axis] == graph.axes[axis].size for axis in keep)
            assert all(widths[axis] >= value * graph.axes[axis].size - 1e-6 for axis, value in least.items())
            assert all(widths[axis] <= max(1, value * graph.axes[axis].size) + 1e-6 for axis, value in most.items())


class Block(torch.nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(16, hidden), torch.nn.Linear(hidden, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.up(x).relu())


@pytest.mark.parametrize("same", [False, True])
def test_axes_of_equal_blocks_are_made_alike(same: bool) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 16), *(Block((32, 32, 48, 32, 48)[i]) for i in range(5)))
    graph = mp.trace(model, (torch.randn(4, 3),))
    limited = mp.Limits(**{"alike_channels" if same else "alike": ("*",)}).on(graph)
    groups = limited.limits.alike_channels if same else limited.limits.alike
    assert groups == (("1.up", "2.up", "4.up"), ("3.up", "5.up"))
    for multiple_of in (1, 8):
        allocation = Allocation(limited, mp.Budget(macs=0.5, multiple_of=multiple_of))
        plan = allocation.plan(scores_of(limited))
        allocation.check(plan, "test")
        for group in groups:
            kept = {plan.kept.get(axis, tuple(range(graph.axes[axis].size))) for axis in group}
            assert len({len(stays) for stays in kept}) == 1
            assert len(kept) == 1 or not same
    free = Allocation(graph, mp.Budget(macs=0.5, multiple_of=1)).plan(scores_of(graph))
    assert any(len({free.widths.get(axis, 0) for axis in group}) > 1 for group in groups)  # not by themselves


def test_a_module_stands_for_what_it_puts_out() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 12), torch.nn.Linear(12, 2))
    graph = mp.trace(model, (torch.randn(4, 3),))
    assert set(mp.Limits(keep=["2"]).on(graph).free) == {"0"}
    assert "'2' is kept" in str(mp.Limits(keep=["2"]).on(graph).axes["2"].fixed)
    assert dict(mp.Limits(least={"*": 0.5, "2": 5}).on(graph).limits.least) == {"0": 4, "2": 5}
    assert dict(mp.Limits(least={"2": 5, "*": 0.5}).on(graph).limits.least) == {"0": 4, "2": 6}  # the last one counts
    assert dict(mp.Limits(most={"0": 0.5, "2": 0.55}).on(graph).limits.most) == {"0": 4, "2": 6}
    assert dict(mp.Limits(most={"0": 0.01, "2": 12}).on(graph).limits.most) == {"0": 1}  # one stays; all is no limit
    said = mp.Limits(least={"*": 0.5}, most={"2": 7}).on(graph).limits.said
    assert said == {"0": "least '*' 0.5", "2": "most '2' 7"}
    assert graph.limits.most == {}  # the graph given is what it was


@pytest.mark.parametrize(("value", "width"), [(1, 16), (1.0, 16), (0.5, 8), (0.51, 9), (2, 2), (100, 16)])
def test_a_number_up_to_one_is_a_share_and_another_a_width(value: float, width: int) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Linear(16, 2))
    graph = mp.trace(model, (torch.randn(2, 3),))
    [name] = graph.free
    assert mp.Limits(least={"0": value}).on(graph).limits.least[name] == width


def test_axes_alike_with_one_that_is_kept_are_kept() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(4)))
    graph = mp.trace(model, (torch.randn(4, 8),))
    limited = mp.Limits(keep=["1"], alike=["*"]).on(graph)
    assert not limited.free
    assert "width of 1" in str(limited.axes["0"].fixed)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"keep": "stem"}, "as patterns, got 'stem'"),
        ({"keep": [3]}, "as patterns"),
        ({"keep": ["no such"]}, "'no such' in keep fits no axis and no module"),
        ({"least": {"0": 1.5}}, "got 1.5"),
        ({"least": {"0": 0}}, "got 0"),
        ({"least": {"0": True}}, "got True"),
        ({"most": {"0": float("nan")}}, "got nan"),
        ({"most": 0.5}, "by pattern, got 0.5"),
        ({"most": {"0": 2}, "least": {"0": 5}}, "at least 5 channels and at most 2"),
        ({"most": {"0": 2}, "keep": ["0"]}, "most of '0' is 2, and 0 cannot be cut (limits: '0' is kept)"),
        ({"alike": "*"}, "alike as patterns"),
    ],
    ids=str,
)
def test_limits_that_make_no_sense(limits: dict[str, Any], said: str) -> None:
    graph = mp.trace(torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Linear(8, 2)), (torch.randn(4, 3),))
    with pytest.raises(MetapruneError, match=r"^limits: ") as caught:
        mp.Limits(**limits).on(graph)
    assert said in str(caught.value)


def of_one_share(graph: ChannelGraph, plan: mp.Plan, group: Sequence[str]) -> None:
    widths = widths_of(graph, plan)
    assert len({Fraction(widths[name], graph.axes[name].size) for name in group}) == 1


@pytest.mark.parametrize(("name", "seed"), [("gpt", 0), ("gpt", 1), ("resnet", 2), ("densenet", 3)])
@pytest.mark.parametrize("multiple_of", [1, 2])
def test_axes_that_are_tied_keep_one_share(name: str, seed: int, multiple_of: int) -> None:
    """Whoever allocates: by a ranking, in proportion, by ratios, and by soft masks, which cost what is allowed."""
    dense = graph_of(name)
    group = [axis for place, axis in enumerate(dense.free) if (place + seed) % 3]
    assert len({dense.axes[axis].size for axis in group}) > 1
    graph = mp.Limits(together=[group]).on(dense)
    allocation = Allocation(graph, mp.Budget(macs=0.6, multiple_of=multiple_of))
    scores = scores_of(graph, seed)
    ratios = {axis: 0.3 + 0.7 * float(score[0]) for axis, score in scores.items()}
    for plan in (allocation.plan(scores), allocation.proportional(scores), allocation.nearest(ratios)):
        allocation.check(plan, "test")
        of_one_share(dense, plan, group)
        assert plan.kept
    masks = allocation.soft(scores, 5.0)
    widths = torch.stack([masks[axis].double().sum() for axis in allocation.form.axes])
    assert float(allocation.form(widths)) == pytest.approx(allocation.limit, rel=1e-6)
    shares = [float(masks[axis].double().mean()) for axis in group]
    assert max(shares) == pytest.approx(min(shares), rel=1e-6)


def test_a_tie_of_axes_of_one_size_is_what_alike_is() -> None:
    dense = graph_of("gpt")
    kinds: dict[int, list[str]] = {}
    for name, axis in dense.free.items():
        kinds.setdefault(axis.size, []).append(name)
    group = max(kinds.values(), key=len)
    assert len(group) > 1
    scores, budget = scores_of(dense), mp.Budget(macs=0.6, multiple_of=1)
    tied = mp.Limits(together=[group]).on(dense)
    alike = replace(tied, limits=replace(tied.limits, together=(), alike=(tuple(group),)))
    assert Allocation(tied, budget).plan(scores) == Allocation(alike, budget).plan(scores)


def test_what_is_tied_to_a_whole_axis_stays_whole_through_other_ties() -> None:
    dense = graph_of("gpt")
    first, second, third, *_ = dense.free
    graph = mp.Limits(keep=[third], together=[(first, second), (second, third)]).on(dense)
    assert not {first, second, third} & graph.free.keys()
    assert "keeps the share of" in str(graph.axes[first].fixed)


def test_ties_that_leave_no_width_are_named() -> None:
    dense = graph_of("gpt")
    first, second, *_ = dense.free
    graph = mp.Limits(least={first: 0.9}, most={second: 0.3}, together=[(first, second)]).on(dense)
    with pytest.raises(MetapruneError, match=r"limits: .* are tied.*most .* 0.3.*least .* 0.9"):
        Allocation(graph, mp.Budget(macs=0.9))
    for odd in ("abc", [3], ["a*"]):
        with pytest.raises(MetapruneError, match="together as groups of patterns"):
            mp.Limits(together=odd)  # type: ignore[arg-type]


def test_a_plan_that_breaks_a_tie_is_refused() -> None:
    dense = graph_of("gpt")
    first, second, *_ = dense.free
    allocation = Allocation(mp.Limits(together=[(first, second)]).on(dense), mp.Budget(macs=1.0))
    with pytest.raises(BudgetError, match="leaves the same share"):
        allocation.check(mp.Plan({first: range(dense.axes[first].size // 2)}), "test")
