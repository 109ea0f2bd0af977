"""Intra-Fusion: transport against brute force, matrices by hand, options, and a pruning from end to end."""

import copy
import importlib.util
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import ClassVar

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.cost.latency import latencies
from metaprune.graph.errors import MetapruneError
from metaprune.methods.intra_fusion.features import features
from metaprune.methods.intra_fusion.transport import distances, handed_on, nearest, transported
from metaprune.methods.method import Found, Problem
from metaprune.session import measuring
from tests.methods import small


@cache
def dense() -> nn.Module:
    """With fresh weights: what is asked here is the same of trained ones."""
    torch.manual_seed(0)
    return small.Small().eval()


def test_transport_is_the_best_of_all_matchings() -> None:
    """With twice as many channels that go as stay, each takes two: the cheapest of all ways."""
    cost = torch.rand(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plan = transported(cost)
    assert torch.allclose(plan.sum(1), torch.ones(6).double())
    assert torch.allclose(plan.sum(0), torch.full((3,), 2.0).double())
    ways = (way for way in itertools.product(range(3), repeat=6) if all(way.count(one) == 2 for one in range(3)))
    least = min(sum(float(cost[i, j]) for i, j in enumerate(way)) for way in ways)
    assert float((plan * cost).sum()) == pytest.approx(least)


def test_nearest_sends_all_of_a_channel_to_one() -> None:
    cost = torch.tensor([[0.2, 0.1], [0.3, 0.3]])
    assert nearest(cost).tolist() == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize("norm", [1, 2])
def test_distances_do_not_see_the_length(norm: int) -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)
    found = distances(rows, torch.tensor([[6.0, 8.0]], dtype=torch.float64), norm)
    assert found[0, 0] == pytest.approx(0.0, abs=1e-9)
    assert found[1, 0] == pytest.approx({1: 0.6 + 0.2, 2: (0.36 + 0.04) ** 0.5}[norm])


def test_what_stays_takes_over_what_is_sent() -> None:
    moved = torch.tensor([[1.0, 0.0], [0.25, 0.75]], dtype=torch.float64)
    share = torch.tensor([[0.5, 9.0], [1.0, 2.0]], dtype=torch.float64)
    found = handed_on(moved, torch.tensor([1, 3]), torch.tensor([0, 2]), share)
    assert found.tolist() == [[1.0, 0.5, 0.0, 0.25], [0.0, 0.0, 1.0, 1.5]]


def test_projection_hands_on_as_much_as_there_is() -> None:
    """A channel that is half of another hands on half of its columns; one that has nothing of it, none."""
    rows = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    fusion = mp.IntraFusion(matching="nearest").fusion(rows, (0,))
    assert fusion.writes is None
    assert fusion.reads is not None
    assert fusion.reads.tolist() == [[1.0, 0.5, 0.0]]
    assert mp.IntraFusion(recalibrate=False).fusion(rows, (0,)).reads.tolist() == [[1.0, 1.0, 1.0]]  # type: ignore[union-attr]
    published = mp.IntraFusion.published().fusion(rows, (0,))
    assert published.reads.tolist() == published.writes.tolist() == [[1.0, 1.0, 1.0]]  # type: ignore[union-attr]
    assert published.carries.flatten().tolist() == pytest.approx([1 / 3] * 3)  # type: ignore[union-attr]
    rows[0] = 0.0  # of nothing, all of it
    assert mp.IntraFusion(matching="nearest").fusion(rows, (0,)).reads.tolist() == [[1.0, 1.0, 1.0]]  # type: ignore[union-attr]


def test_features_are_what_a_norm_shows() -> None:
    """The scale of rows before a batch norm says nothing, nor does the convolution's bias; the norm's bias does."""
    model = copy.deepcopy(dense())
    graph = mp.trace(model, small.EXAMPLE)
    before = features(model, graph, "producers")
    with torch.no_grad():
        model.inner[0].weight.mul_(3.0)
        model.inner[1].running_var.mul_(9.0)
        model.inner[1].running_var.add_(8 * model.inner[1].eps)  # (v + eps) grows ninefold
        model.wide[0].bias.add_(1.0)
    after = features(model, graph, "producers")
    for axis in graph.free:
        assert torch.allclose(before[axis], after[axis], atol=1e-6)
    with torch.no_grad():
        model.inner[1].bias[3] += 1.0
    moved = features(model, graph, "producers")
    assert (moved["inner.0"] != after["inner.0"]).any(1).nonzero().flatten().tolist() == [3]
    assert features(model, graph, "both")["inner.0"].shape[1] > moved["inner.0"].shape[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"producer": "sums"}, "expected producer as one of"),
        ({"consumer": "all"}, "expected consumer as one of"),
        ({"matching": "best"}, "expected matching as one of"),
        ({"features": "columns"}, "expected features as one of"),
        ({"norm": 3}, "expected norm as 1 or 2, got 3"),
        ({"recalibrate": 1}, "expected recalibrate as True or False, got 1"),
        ({"ranking": mp.DHP()}, "decides without training"),
        ({"ranking": mp.Magnitude}, "decides without training"),
    ],
)
def test_options_are_checked(options: dict[str, object], said: str) -> None:
    with pytest.raises(MetapruneError, match=said):
        mp.IntraFusion(**options)  # type: ignore[arg-type]


def test_the_absence_of_pot_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MetapruneError, match=r"metaprune\[fusion\]"):
        mp.IntraFusion()
    mp.IntraFusion(matching="nearest")


def test_a_ranking_decides_and_is_asked_what_it_asks() -> None:
    model, task = dense(), small.task()
    graph, budget = mp.trace(model, small.EXAMPLE), mp.Budget(macs=0.5, multiple_of=1)
    ranking = mp.Taylor(batches=2)
    method = mp.IntraFusion(ranking)
    assert method.asks_data
    assert not mp.IntraFusion().asks_data
    plans = [
        mp.plan(model, small.EXAMPLE, method=one, budget=budget, task=task, graph=graph)
        for one in (method, ranking, mp.IntraFusion())
    ]
    assert plans[0] == plans[1] != plans[2]
    problem = Problem(model, graph, budget, task, small.recipe(1))
    own, theirs = (one.scores(problem) for one in (method, ranking))
    assert all(torch.equal(own[axis], scores) for axis, scores in theirs.items())


@dataclass(frozen=True)
class Edits:
    """A ranking that writes other weights, and trains them for an epoch of the schedule."""

    name: ClassVar[str] = "edits"
    reference: ClassVar[str] = "none"
    asks_data: ClassVar[bool] = False

    def scores(self, problem: Problem) -> Mapping[str, torch.Tensor]:
        return mp.Magnitude().scores(problem)

    def find(self, problem: Problem) -> Found:
        found = mp.Magnitude().find(problem)
        other = copy.deepcopy(problem.model)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(2)
        return replace(found, model=other, epochs=1, notes=("edited",), spent={"evaluations": 3})


def test_what_a_ranking_did_to_the_weights_stays_and_counts() -> None:
    model, budget = dense(), mp.Budget(macs=0.5, multiple_of=1)
    graph = mp.trace(model, small.EXAMPLE)
    problem = Problem(model, graph, budget, small.task(), small.recipe(2))
    edited, method = Edits().find(problem), mp.IntraFusion(Edits())
    found = method.find(problem)
    expected = method.fused(edited.model, graph, edited.plan)
    assert found.plan == edited.plan
    assert all(map(torch.equal, found.model.state_dict().values(), expected.state_dict().values()))
    assert (found.epochs, found.notes, found.spent) == (1, ("edited",), {"evaluations": 3})
    assert isinstance(found.before, nn.Module)
    assert all(map(torch.equal, found.before.state_dict().values(), edited.model.state_dict().values()))


def test_an_axis_that_cannot_be_fused_is_cut_and_the_report_says_why() -> None:
    class Spread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            return self.last(y / y.std(-1, keepdim=True))

    model = Spread()
    graph = mp.trace(model, (torch.randn(5, 3),))
    problem = Problem(model, graph, mp.Budget(macs=0.5, multiple_of=1), small.task(), small.recipe(1))
    found = mp.IntraFusion().find(problem)
    [note] = found.notes
    assert found.plan.widths == {"first": 3}
    assert note.startswith("first was cut without fusing: ")
    assert "aten.std" in note
    assert all(map(torch.equal, found.model.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize("recalibrate", [True, False])
def test_pruning(recalibrate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """From end to end: the figure before the cut is the dense network's; statistics are measured anew where asked."""
    monkeypatch.setattr(measuring, "latencies", partial(latencies, seconds=0.001))
    model = dense()
    method = mp.IntraFusion(recalibrate=recalibrate)
    result = mp.prune(
        model,
        small.EXAMPLE,
        method=method,
        budget=mp.Budget(macs=0.5, multiple_of=1),
        task=small.task(),
        recipe=small.recipe(1),
        progress=False,
    )
    report = result.report
    assert report.pruned.macs <= 0.5 * report.dense.macs
    assert report.before_cut == report.dense_val
    assert (report.as_cut is not None) == recalibrate
    graph = mp.trace(model, small.EXAMPLE)
    assert result.plan == mp.plan(
        model, small.EXAMPLE, method=mp.Magnitude(), budget=mp.Budget(macs=0.5, multiple_of=1), graph=graph
    )


def test_two_networks_must_be_of_one_architecture() -> None:
    one = dense()
    wider = small.Small()
    wider.head = torch.nn.Linear(24, 4)
    with pytest.raises(MetapruneError, match=r"head\.weight"):
        mp.fuse(one, wider, small.EXAMPLE)
    with pytest.raises(MetapruneError, match=r"share as a number inside \[0, 1\], got 2"):
        mp.fuse(one, one, small.EXAMPLE, share=2)
    with pytest.raises(MetapruneError, match=r"an nn\.Module"):
        mp.fuse(one, "other", small.EXAMPLE)  # type: ignore[arg-type]


def test_networks_pruned_to_equal_widths_are_fused() -> None:
    """Each network's own channels stay, as many of both."""
    networks = [dense(), small.Small().eval()]
    graph = mp.trace(networks[0], small.EXAMPLE)
    method, budget = mp.IntraFusion(mp.Uniform()), mp.Budget(macs=0.5, multiple_of=1)
    cut = []
    for network in networks:
        plan = mp.plan(network, small.EXAMPLE, method=method, budget=budget, graph=graph)
        cut.append(mp.slice(method.fused(network, graph, plan), graph, plan))
    both = mp.fuse(cut[0], cut[1], small.EXAMPLE)
    assert [tensor.shape for tensor in both.state_dict().values()] == [t.shape for t in cut[0].state_dict().values()]
    whole = mp.fuse(cut[0], cut[1], small.EXAMPLE, share=1.0)
    assert all(
        torch.allclose(a, b) for a, b in zip(whole.state_dict().values(), cut[0].state_dict().values(), strict=True)
    )
