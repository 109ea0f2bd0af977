"""One shot: group norms by hand, and the controls."""

import copy

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.methods.method import Found, Method, Problem
from metaprune.methods.saliency import group_norms
from tests.laws import oracle
from tests.methods import small


class Pair(nn.Module):
    """Two layers that share one axis of four channels, and flatten it over two pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).relu().flatten(1))


def pair() -> tuple[Pair, ChannelGraph]:
    model = Pair()
    return model, mp.trace(model, (torch.zeros(2, 1, 2),))


def find(method: Method, model: nn.Module, graph: ChannelGraph, budget: mp.Budget) -> Found:
    return method.find(Problem(model, graph, budget, small.task(), small.recipe()))


def test_group_norms_by_hand() -> None:
    model, graph = pair()
    rows = [
        model.conv.weight.detach().square().flatten(),
        model.conv.bias.detach().square(),
        model.fc.weight.detach().square().reshape(3, 4, 2).sum((0, 2)),
    ]
    expected = torch.stack([row / row.mean() for row in rows]).mean(0).sqrt()
    [norm] = group_norms(model, graph).values()
    assert norm.dtype == torch.float64
    torch.testing.assert_close(norm, expected.double(), rtol=1e-6, atol=0)


def test_group_norms_do_not_see_the_scale_of_a_tensor() -> None:
    model, graph = pair()
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled.fc.weight.mul_(1000)
        model.conv.bias.zero_()
        scaled.conv.bias.zero_()  # says nothing, and does not count
    for name, norm in group_norms(model, graph).items():
        torch.testing.assert_close(norm, group_norms(scaled, graph)[name])
        assert norm.square().mean().item() == pytest.approx(1)


def test_the_smallest_go() -> None:
    model, graph = pair()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model.conv.weight[2] = 0.01
        model.conv.weight[0] = 0.1
    found = find(mp.Magnitude(), model, graph, mp.Budget(macs=0.5, multiple_of=1))
    assert list(found.plan.kept.values()) == [(1, 3)]
    assert found.epochs == 0
    assert not found.exact


def test_uniform_keeps_one_share_of_every_axis() -> None:
    model = small.Small()
    graph = mp.trace(model, small.EXAMPLE)
    found = find(mp.Uniform(), model, graph, mp.Budget(params=0.3, multiple_of=1))
    widths = found.plan.widths
    halves = [((width - 0.5) / (size := graph.axes[axis].size), (width + 0.5) / size) for axis, width in widths.items()]
    assert len(halves) == len(graph.free)
    assert max(low for low, _ in halves) <= min(high for _, high in halves)  # there is such a share
    norms = group_norms(model, graph)
    for axis, kept in found.plan.kept.items():
        best = norms[axis].topk(len(kept)).indices.tolist()
        assert sorted(best) == list(kept)
        assert found.scores[axis].sort().values.tolist() == pytest.approx(
            [(c + 1) / len(norms[axis]) for c in range(len(norms[axis]))]
        )
        assert found.scores[axis].argsort().tolist() == norms[axis].argsort().tolist()


def test_what_uniform_widths_leave_of_the_budget_is_said() -> None:
    """From half a per cent of the dense cost on; nothing where nothing is cut."""
    model = small.Small()
    graph = mp.trace(model, small.EXAMPLE)
    coarse, whole = (find(mp.Uniform(), model, graph, mp.Budget(macs=share)) for share in (0.5, 1.0))
    left = Allocation(graph, mp.Budget(macs=0.5)).left_unspent(coarse.plan)
    assert left > 0.005
    assert coarse.notes == (
        f"widths are uniform to half a step each, which leaves {100 * left:.2f}% of the dense cost unspent",
    )
    assert whole.notes == ()


@pytest.mark.parametrize("share", [0.3, 0.45, 0.6])
def test_uniform_widths_may_be_a_step_wider_where_that_fits(share: float) -> None:
    model = small.Small()
    graph = mp.trace(model, small.EXAMPLE)
    budget = mp.Budget(macs=share, multiple_of=1)
    allocation = Allocation(graph, budget)
    plain, wider = (find(mp.Uniform(spend), model, graph, budget) for spend in (False, True))
    assert 0 <= allocation.left_unspent(wider.plan) < allocation.left_unspent(plain.plan)
    for axis, width in wider.plan.widths.items():
        assert width - plain.plan.widths[axis] in (0, 1)
        more = wider.plan.kept | {axis: tuple(range(width + 1))}
        assert width > plain.plan.widths[axis] or mp.macs(graph, mp.Plan(more)) > allocation.limit
    (said,) = wider.notes
    assert said.startswith("widths are uniform to a step and a half each, which leaves")


def test_what_is_no_switch_is_refused() -> None:
    with pytest.raises(MetapruneError, match="Uniform: expected spend as True or False, got 'yes'"):
        mp.Uniform("yes")  # type: ignore[arg-type]


def test_random_is_its_seed() -> None:
    model = small.Small()
    graph = mp.trace(model, small.EXAMPLE)
    budget = mp.Budget(macs=0.5, multiple_of=1)
    plans = [find(mp.Random(seed), model, graph, budget).plan for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]


@pytest.mark.parametrize("method", [mp.Magnitude(), mp.Uniform(), mp.Random()], ids=lambda m: m.name)
def test_the_model_is_left_alone(method: Method) -> None:
    model = small.Small()
    graph = mp.trace(model, small.EXAMPLE)
    before = oracle.fingerprint(model)
    random = torch.get_rng_state()
    find(method, model, graph, mp.Budget(macs=0.5))
    assert oracle.fingerprint(model) == before
    assert torch.equal(torch.get_rng_state(), random)
