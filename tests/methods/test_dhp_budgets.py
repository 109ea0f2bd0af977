"""The plans that searches of DHP end with, on every network of the zoo: within the budget, and near to it."""

import itertools
import math

import pytest
import torch

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.graph import ChannelGraph
from metaprune.methods.dhp.search import Search
from metaprune.methods.gates.latents import Latents
from tests.laws.case import case
from tests.zoo import networks

METHODS = [
    mp.DHP(steering=steering, ranking=ranking, sparsity=0.05)  # type: ignore[arg-type]
    for steering, ranking in itertools.product(("ramp", "threshold"), ("latent", "taylor"))
]
ENUMERABLE = 1_000


def allocation_of(graph: ChannelGraph, cost: str, part: float, multiple_of: int = 1) -> Allocation:
    """For a budget that is this part of the way from the smallest cost that can be met to the dense one."""
    whole = Allocation(graph, mp.Budget(**{cost: 1.0}, multiple_of=multiple_of))
    least = whole.form.at(whole.least) / whole.dense
    return Allocation(graph, mp.Budget(**{cost: min(least + (1 - least) * part, 1.0)}, multiple_of=multiple_of))


def searched(method: mp.DHP, allocation: Allocation, steps: int = 8) -> mp.Plan:
    """What a search ends with if batches say random things: latents wander, and evidence turns."""
    generator = torch.Generator().manual_seed(0)
    start = {axis: 0.5 + torch.rand(size, generator=generator) for axis, size in allocation.sizes.items()}
    latents = Latents(start)
    search = Search(method, latents, allocation)
    for step in range(steps):
        for z in latents.vectors:
            z.grad = torch.randn(z.shape, generator=generator)
            z.data.add_(0.05 * torch.randn(z.shape, generator=generator))
        search.after(step + 1, steps, 0.05)
    return search.plan()


def nearest(allocation: Allocation) -> int:
    """The largest cost inside the budget, over all widths there are."""
    sizes, steps, least = allocation.sizes, allocation.steps, allocation.least
    ladders = [torch.tensor(sorted({*range(least[axis], size, steps[axis]), size})) for axis, size in sizes.items()]
    assert math.prod(map(len, ladders)) <= ENUMERABLE, "widths as fine as these come nearer than 1 %"
    costs = allocation.form.many(torch.cartesian_prod(*ladders).reshape(-1, len(ladders)))
    return int(costs[costs <= allocation.limit].max())


def check(plan: mp.Plan, allocation: Allocation) -> None:
    """Within the budget and less than 1 % of the dense cost below it; where no widths are, as near as any."""
    cost = allocation.form.at(plan.widths)
    assert cost <= allocation.limit
    assert cost > allocation.limit - 0.01 * allocation.dense or cost == nearest(allocation)
    for axis, width in plan.widths.items():
        assert allocation.least[axis] <= width < allocation.sizes[axis]
        assert width % allocation.steps[axis] == 0


@pytest.mark.parametrize("name", networks(families=8))
@pytest.mark.parametrize(("cost", "parts"), [("macs", (0.2, 0.8)), ("params", (0.5,))], ids=["macs", "params"])
def test_a_search_ends_on_its_budget(name: str, cost: str, parts: tuple[float, ...]) -> None:
    for part in parts:
        allocation = allocation_of(case(name).graph, cost, part)
        for method in METHODS:
            check(searched(method, allocation), allocation)


@pytest.mark.parametrize("name", networks(families=8))
def test_a_search_ends_on_its_budget_in_aligned_widths(name: str) -> None:
    for cost in ("macs", "params"):
        allocation = allocation_of(case(name).graph, cost, 0.5, multiple_of=4)
        for method in METHODS:
            check(searched(method, allocation), allocation)


@pytest.mark.parametrize(
    "name", ["swin", "mobilenet_v3", "center_net", pytest.param("diffusion_unet", marks=pytest.mark.slow)]
)
def test_a_plan_is_near_where_changes_of_few_axes_are_not(name: str) -> None:
    """A step of a head, or of a trunk beside slim layers, is larger than what three other steps make up for."""
    graph = case(name).graph
    generator = torch.Generator().manual_seed(0)
    for part, _ in itertools.product((0.2, 0.5, 0.8), range(4)):
        allocation = allocation_of(graph, "macs", part)
        scores = {axis: torch.rand(size, generator=generator) for axis, size in allocation.sizes.items()}
        plan = allocation.plan(scores)
        check(plan, allocation)
        assert allocation.plan(scores) == plan
