"""Channels priced by MACs, on a clock that measures whole networks; and the page."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.cost.closed_form import macs
from metaprune.timing import form_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def by_time(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import by_time

    return by_time


def test_time_is_a_straight_line_in_the_macs(by_time: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the dense and the smallest network, which here takes as much less time as it has fewer parameters."""

    def ratio(clock: Any, network: nn.Module, other: nn.Module, *rest: Any, **settings: Any) -> float:
        one, all_of_it = (sum(p.numel() for p in each.parameters()) for each in (network, other))
        return one / all_of_it

    monkeypatch.setattr(by_time.ClockOfMacs, "ratio", ratio)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    graph = mp.trace(net, (torch.randn(1, 3, 8, 8),))
    form = form_of(net, graph, by_time.ClockOfMacs(threads=1, batch=2, seconds=0.002))
    dense, least = form.anchors
    assert dense.ms > least.ms
    plan = mp.Plan({"0": range(16), "2": range(8)})
    at = [macs(graph), macs(graph, mp.Plan({n: range(least.widths[n]) for n in graph.free})), macs(graph, plan)]
    share = (at[2] - at[1]) / (at[0] - at[1])
    assert form.at(plan.widths) / 1e6 == pytest.approx(least.ms + share * (dense.ms - least.ms), rel=1e-3)


def test_the_page_has_what_was_measured(by_time: Any) -> None:
    rows = [
        {"arm": arm, "speedup": 1.5, "seed": seed, "dense": 70.0, "metric": 60.0 + seed, "measured": 1.5, "macs": 0.6}
        for arm in by_time.ARMS
        for seed in (0, 1)
    ]
    page = by_time.table(rows, "resnet20", 10, 32)
    assert "| DHP by time | 60.50 ± 0.71 (2) | 1.50×, 0.60 |" in page
    assert page.count("\n| ") == 1 + len(by_time.ARMS)
