"""The network of unaligned widths: what is timed runs, also where its code cannot be asked without values."""

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.cost.latency import Latency
from metaprune.methods.method import Found
from metaprune.methods.saliency import group_norms
from metaprune.report.report import Figures
from metaprune.session import reporting
from tests.methods import small
from tests.surgery.test_shapes import CALL, Asking


@pytest.mark.parametrize(
    ("model", "args", "verified"), [(small.Small().eval(), small.EXAMPLE, False), (Asking().eval(), CALL.args, True)]
)
def test_it_is_verified_only_where_its_code_may_not_run(
    model: nn.Module, args: tuple[torch.Tensor, ...], verified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = mp.trace(model, args)
    cuts: list[mp.Plan] = []
    carve = reporting.carve
    monkeypatch.setattr(reporting, "carve", lambda *given: (cuts.append(given[2]), carve(*given))[1])
    found = Found(mp.Plan({}), model, group_norms(model, graph))
    unaligned = reporting.unaligned(found, graph, mp.Budget(macs=0.6, multiple_of=4))
    assert unaligned is not None
    rough, plan = unaligned
    assert bool(cuts) == verified
    assert plan.kept
    assert sum(p.numel() for p in rough.parameters()) == mp.params(graph, plan) < mp.params(graph)
    assert rough(*args).shape == model(*args).shape
    assert reporting.unaligned(found, graph, mp.Budget(macs=0.6, multiple_of=1)) is None


@pytest.mark.parametrize(
    ("budget", "bound"),
    [
        (mp.Budget(macs=0.5), None),
        (mp.Budget(latency=2.0), 2.0),
        (mp.Budget(speedup=4.0), 1.5),
        (mp.Budget(latency=2.0, speedup=4.0), 1.5),
        (mp.Budget(latency=2.0, speedup=1.5), 2.0),
    ],
)
def test_the_time_that_is_allowed(budget: mp.Budget, bound: float | None) -> None:
    """Beside a dense network that takes six milliseconds."""
    dense = Figures(1, 1, 4, 50.0, Latency(6.0, 0.0, 1, 2, "cpu", "32-true", 1))
    assert reporting._bound(budget, dense) == bound
