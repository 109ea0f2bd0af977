"""A surface through what was measured: its peak is found through noise, and lies within the budget and the tries."""

import math
from dataclasses import replace

import pytest
import torch

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.graph.plan import ratios_of
from metaprune.methods.graph_metanetwork.learning.lessons.halving import Rung, Searched
from metaprune.methods.graph_metanetwork.learning.lessons.surface import peak, summit
from metaprune.methods.graph_metanetwork.learning.lessons.trials import Trial
from metaprune.methods.saliency import group_norms
from tests.methods import small


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_summit_of_a_paraboloid(noise: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = 0.5 * torch.randn(60, 4, generator=generator, dtype=torch.float64)
    x[0] = 0
    true = torch.tensor([0.4, -0.3, 0.0, 0.2], dtype=torch.float64)
    y = -(x - true).square().sum(1)
    spread = y.std()
    y = (y - y.mean()) / spread + noise * torch.randn(60, generator=generator, dtype=torch.float64)
    found = summit(x, y, torch.full_like(y, noise**2))
    assert (found - true).norm() < (0.2 if noise else 0.06)


def test_what_says_nothing_moves_nothing() -> None:
    """Nothing but luck: the summit stays near to where the surface begins."""
    generator = torch.Generator().manual_seed(1)
    x = 0.5 * torch.randn(30, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(30, generator=generator, dtype=torch.float64)
    assert summit(x, y, torch.ones_like(y)).norm() < 0.5 * x.norm(dim=1).mean()


@pytest.fixture(scope="module")
def allocation() -> Allocation:
    torch.manual_seed(0)
    graph = mp.trace(small.Small(), small.EXAMPLE)
    return Allocation(graph, mp.Budget(macs=0.4, multiple_of=1))


def searched(allocation: Allocation, higher_is_better: bool = True) -> tuple[Searched, dict[str, torch.Tensor], str]:
    """Networks are better the wider one axis is, whichever plan it comes with."""
    heights = group_norms(small.Small(), allocation.graph)
    names = list(allocation.graph.free)
    start = ratios_of(allocation.graph, allocation.plan(heights))
    generator = torch.Generator().manual_seed(0)
    trials = {}
    for number in range(20):
        moved = 0.5 * torch.randn(len(names), generator=generator) * (number > 0)
        ratios = {name: min(1.0, start[name] * math.exp(by)) for name, by in zip(names, moved.tolist(), strict=True)}
        plan = allocation.nearest(ratios, heights)
        metric = 70 + 10 * math.log(ratios_of(allocation.graph, plan)[names[0]])
        sign = 1 if higher_is_better else -1
        trials[f"try {number}"] = Trial(f"try {number}", plan, {0: sign * metric})
    return Searched(0.4, trials, ("try 0",), (Rung(20, (0,)),), higher_is_better), heights, names[0]


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_peak_goes_where_networks_get_better(allocation: Allocation, higher_is_better: bool) -> None:
    found, heights, axis = searched(allocation, higher_is_better)
    plan = peak(found, allocation, heights)
    allocation.check(plan, "peak")
    ratios = [ratios_of(allocation.graph, trial.plan)[axis] for trial in found.trials.values()]
    assert ratios[0] < ratios_of(allocation.graph, plan)[axis] <= max(ratios)
    failed = Trial("failed", found.trials["try 3"].plan, {0: math.nan})
    assert peak(replace(found, trials={**found.trials, "failed": failed}), allocation, heights) == plan


def test_what_has_no_peak(allocation: Allocation) -> None:
    found, heights, _ = searched(allocation)
    few = {name: found.trials[name] for name in list(found.trials)[:3]}
    with pytest.raises(MetapruneError, match="four tries or more"):
        peak(replace(found, trials=few), allocation, heights)
    alike = {name: replace(trial, metrics={0: 1.0}) for name, trial in found.trials.items()}
    with pytest.raises(MetapruneError, match="tries that differ"):
        peak(replace(found, trials=alike), allocation, heights)
