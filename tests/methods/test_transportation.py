"""Transportation: the budget holds at every step, the mask hardens by itself, and its plan is that of transport."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.methods.gates.running import Running
from metaprune.methods.method import Found, Problem
from metaprune.methods.saliency import group_norms
from metaprune.methods.transportation.annealing import DECIDED, LANDED, Annealing
from metaprune.methods.transportation.masks import Sweep, Threshold, sinkhorn, squared_distances
from metaprune.methods.transportation.transportation import standardised
from metaprune.surgery.slice import Cut
from tests.laws import oracle
from tests.methods import small
from tests.methods.rough import rough_cut

SOLVERS = ("threshold", "sinkhorn")
BUDGET = mp.Budget(macs=0.4, multiple_of=1)
EPOCHS = 2
TRAIN = DataLoader(small.pictures(96, 1), batch_size=8)
STEPS = EPOCHS * len(TRAIN)


@cache
def dense() -> tuple[nn.Module, ChannelGraph]:
    model = small.network()
    return model, mp.trace(model, small.EXAMPLE)


def find(method: mp.Transportation, budget: mp.Budget = BUDGET, epochs: int = 4, **fields: Any) -> Found:
    return method.find(Problem(*dense(), budget, small.task(), small.recipe(epochs, **fields), progress=False))


class Loop:
    """A plain training loop with a search in it."""

    def __init__(self, budget: mp.Budget = BUDGET, given: Any = None, **fields: Any) -> None:
        self.search: Running[Annealing] = mp.Transportation(**fields).start(*(given or dense()), budget, steps=STEPS)
        self.optimizer = torch.optim.SGD(self.search.groups(0.05), 0.05, momentum=0.9)
        self.hardness: list[float] = []
        self.shares: list[float] = []

    def run(self, first: int, last: int, looking: bool = False) -> Loop:
        steps = [batch for _ in range(EPOCHS) for batch in TRAIN]
        self.search.model.train()
        for images, labels in steps[first:last]:
            self.optimizer.zero_grad()
            F.cross_entropy(self.search.model(images), labels).backward()
            self.optimizer.step()
            if looking:
                self.look()
            self.search.step(0.05)
        return self

    def look(self) -> None:
        """What the masks of this step cost, over the budget, and how hard they are."""
        allocation, masks = self.search.search.allocation, self.search.model.latents.named()
        widths = torch.stack([masks[name].detach().double().sum() for name in allocation.form.axes])
        self.shares.append(max(float(bound.form(widths)) / bound.limit for bound in allocation.bounds))
        self.hardness.append(self.search.search.masks.hardness())


@cache
def wide() -> tuple[nn.Module, ChannelGraph]:
    """Enough channels that the one which pays the budget's last digit does not show."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 3)
    )
    return model, mp.trace(model, small.EXAMPLE)


PARAMS, BOTH = mp.Budget(params=0.35, multiple_of=4), mp.Budget(macs=0.6, params=0.4, multiple_of=2)


@pytest.mark.parametrize(
    ("given", "budget"),
    [
        *((wide, BUDGET), (dense, PARAMS), (dense, BOTH)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((dense, BUDGET), (wide, PARAMS), (wide, BOTH))),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_budget_holds_at_every_step_and_the_mask_hardens_by_itself(given: Any, budget: mp.Budget) -> None:
    decided, landed = int(DECIDED * STEPS), int(LANDED * STEPS)
    loop = Loop(budget, given()).run(0, landed - 1, looking=True)
    search = loop.search.search
    assert loop.shares[:decided] == pytest.approx([1.0] * decided, abs=1e-6)
    costs = [bound.form.at(search.plan().widths) / bound.limit for bound in search.allocation.bounds]
    moved = torch.arange(1, landed - decided) / (landed - decided)
    falling = torch.stack([(1 - moved) + moved * cost for cost in costs])
    assert torch.all(torch.tensor(loop.shares[decided:]) <= falling.amax(0) + 1e-6)
    assert torch.any((torch.tensor(loop.shares[decided:]) - falling).abs() < 1e-6, 0).all()
    assert loop.hardness[decided - 1] == search.hardness
    channels = sum(search.allocation.sizes.values())
    assert search.hardness < (2e-3 if given is wide else 0.25 / channels + 1e-3)  # one channel pays the last digit
    assert loop.hardness[0] > 2 * search.hardness
    assert search.masks.hardness() == 0
    loop.run(landed - 1, landed)
    assert search.masks.plan == search.masks.towards[0]
    loop.run(landed, STEPS)
    assert 0 <= search.allocation.left_unspent(loop.search.plan) < (0.01 if budget.multiple_of == 1 else 0.05)
    cut = loop.search.finish()
    x = torch.randn(4, 1, 8, 8)
    assert oracle.distance(loop.search.model.eval()(x), cut.model.eval()(x)) < 1e-5


@pytest.mark.parametrize("solver", SOLVERS)
def test_becoming_hard_changes_nothing(solver: Any) -> None:
    """The masks are at their plan when they become it, however coarse its steps: the network had time to follow."""
    loop = Loop(mp.Budget(macs=0.4, multiple_of=4), solver=solver).run(0, int(LANDED * STEPS) - 1)
    x = torch.randn(4, 1, 8, 8)
    model = loop.search.model.eval()
    soft = model(x)
    assert loop.search.search.masks.plan is None
    loop.search.search.harden(loop.search.plan)
    assert oracle.distance(soft, model(x)) < 1e-6


def test_converged_sinkhorn_is_the_closed_form() -> None:
    """With the masses that channels have at the widths found, the plan of many sweeps is the one threshold's."""
    _, graph = dense()
    allocation = Allocation(graph, BUDGET)
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(sum(allocation.sizes.values()), generator=generator, dtype=torch.float64)
    exact = Threshold(allocation, flat, temperature=0.5).masks(flat)
    one = Sweep(allocation, flat, temperature=0.5).double()
    one.widths = torch.stack([mask.sum() for mask in exact.values()])
    mass, kept = one._linearised()
    cost = -squared_distances(flat) / 1.0  # its difference is 2 s - 1: a temperature twice as high gives s
    plan = sinkhorn(mass.log()[:, None] + cost, mass, kept, sweeps=500).exp()
    torch.testing.assert_close(plan.sum(1), mass)
    torch.testing.assert_close(plan.sum(0), torch.stack([1 - kept, kept]))
    torch.testing.assert_close(plan[:, 1] / mass, torch.cat(list(exact.values())), rtol=0, atol=1e-6)


def test_logits_add_up_and_only_this_step_has_a_gradient() -> None:
    """m = sigmoid(A / e - t) with A the sum of all scores: what the proximal recursion unrolls to."""
    _, graph = dense()
    allocation = Allocation(graph, BUDGET)
    flat = torch.linspace(-1, 1, sum(allocation.sizes.values()))
    transport = Threshold(allocation, flat, temperature=3.0)
    for step in (2.0, 3.0):
        transport.advance(step * flat)
    scores = (3.0 * flat).requires_grad_()
    masks = transport.masks(scores)
    parts = dict(zip(allocation.sizes, torch.split(6 * flat / 3, list(allocation.sizes.values())), strict=True))
    expected = allocation.soft(parts, 1.0)
    assert all(torch.allclose(masks[name], expected[name], atol=1e-5) for name in masks)
    parts = {name: part.clone().requires_grad_() for name, part in parts.items()}
    weights = {name: torch.randn(size) for name, size in allocation.sizes.items()}

    def value(masks: dict[str, Tensor]) -> Tensor:
        return torch.stack([(weights[name] * mask).sum() for name, mask in masks.items()]).sum()

    value(masks).backward()
    value(allocation.soft(parts, 1.0)).backward()
    expected_grad = torch.cat([part.grad for part in parts.values() if part.grad is not None]) / 3.0
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, expected_grad, atol=1e-5, rtol=1e-4)


def test_a_sweep_by_hand() -> None:
    """Rows to their masses, then columns to the target's, which hold exactly."""
    kernel = torch.rand(5, 2, dtype=torch.float64)
    mass = torch.tensor([0.1, 0.3, 0.2, 0.15, 0.25], dtype=torch.float64)
    rows = kernel * (mass / kernel.sum(1))[:, None]
    by_hand = rows * torch.tensor([0.7, 0.3], dtype=torch.float64) / rows.sum(0)
    torch.testing.assert_close(sinkhorn(kernel.log(), mass, 0.3).exp(), by_hand)


@pytest.mark.parametrize("solver", SOLVERS)
def test_it_lands_on_the_budget(solver: Any) -> None:
    model, graph = dense()
    before = oracle.fingerprint(model)
    found = find(mp.Transportation(solver=solver))
    allocation = Allocation(graph, BUDGET)
    allocation.check(found.plan, "transportation")
    assert allocation.left_unspent(found.plan) < 0.01
    assert oracle.fingerprint(model) == before
    assert found.epochs == 2
    assert found.exact
    cut = rough_cut(found.model, graph, found.plan).eval()
    x = torch.randn(4, 1, 8, 8)
    assert oracle.distance(found.before.eval()(x), cut(x)) < 1e-5  # type: ignore[union-attr]
    again = find(mp.Transportation(solver=solver))
    assert again.plan == found.plan
    assert oracle.fingerprint(again.model) == oracle.fingerprint(found.model)


def test_another_seed_is_another_search() -> None:
    one, other = (find(mp.Transportation(), epochs=2, seed=seed).model for seed in (2, 3))
    assert oracle.fingerprint(one) != oracle.fingerprint(other)


@cache
def whole(solver: Any) -> tuple[Loop, Cut]:
    """A search that nothing interrupts, and its cut."""
    loop = Loop(solver=solver).run(0, STEPS)
    return loop, loop.search.finish()


@pytest.mark.parametrize(
    ("solver", "at"),
    [("threshold", 11), ("threshold", 20), ("sinkhorn", 11), pytest.param("sinkhorn", 20, marks=pytest.mark.slow)],
)
def test_interrupted_between_any_two_steps_it_goes_on(solver: Any, at: int) -> None:
    """While it is free, and once it is decided."""
    uninterrupted, one = whole(solver)
    first, second = (Loop(solver=solver) for _ in range(2))
    first.run(0, at)
    second.search.model.load_state_dict(copy.deepcopy(first.search.model.state_dict()))
    second.search.load_state_dict(copy.deepcopy(first.search.state_dict()))
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.run(at, STEPS)
    other = second.search.finish()
    assert one.plan == other.plan
    assert all(map(torch.equal, one.model.state_dict().values(), other.model.state_dict().values()))
    third = Loop(solver=solver)
    third.search.model.load_state_dict(uninterrupted.search.model.state_dict())
    third.search.load_state_dict(uninterrupted.search.state_dict())
    assert third.search.search.masks.plan == third.search.plan == one.plan
    assert third.search.search.masks.hardness() == 0


def test_renumbered_channels_give_the_renumbered_plan() -> None:
    model, graph = dense()
    generator = torch.Generator().manual_seed(0)
    orders = {axis: torch.randperm(graph.axes[axis].size, generator=generator).tolist() for axis in graph.free}
    permuted = oracle.permute(model, graph, orders)
    plan = mp.Transportation(score_lr=0.0).start(model, graph, BUDGET, steps=1).plan
    assert plan == Allocation(graph, BUDGET).plan(group_norms(model, graph))
    other = mp.Transportation(score_lr=0.0).start(permuted, graph, BUDGET, steps=1).plan
    assert {axis: sorted(orders[axis][channel] for channel in kept) for axis, kept in other.kept.items()} == {
        axis: list(kept) for axis, kept in plan.kept.items()
    }


def test_norms_over_channels_leave_out_what_is_gone() -> None:
    """The hard network is the cut one where a norm runs over the channels that went."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 12, 3), nn.GroupNorm(1, 12), nn.ReLU(), nn.Conv2d(12, 8, 3), nn.Flatten(2))
    model = nn.Sequential(model, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3))
    graph = mp.trace(model, small.EXAMPLE)
    problem = Problem(model, graph, mp.Budget(macs=0.4, multiple_of=1), small.task(), small.recipe(2), progress=False)
    found = mp.Transportation(search=1.0).find(problem)
    assert "0.0" in found.plan.kept
    cut = rough_cut(found.model, graph, found.plan).eval()
    x = torch.randn(4, 1, 8, 8)
    assert oracle.distance(found.before.eval()(x), cut(x)) < 1e-5  # type: ignore[union-attr]


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_last_logit_of_a_score_one_deviation_above_is_the_sharpness(solver: Any) -> None:
    """Steps over temperature; scores have the rate that was asked for, and do not decay."""
    search = mp.Transportation(sharpness=50.0, score_lr=3.0, solver=solver).start(*dense(), BUDGET, steps=200)
    assert search.model.latents.transport.temperature == 200 / 50
    scores = search.groups(0.5)[2]
    assert (scores["lr"], scores["weight_decay"]) == (1.5, 0.0)
    assert set(scores["params"]) == set(search.model.latents.scores)


def test_of_an_axis_whose_masks_are_all_low_as_many_stay_as_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """What averages over none is no number."""
    budget = mp.Budget(macs=0.4, multiple_of=2)
    steering = mp.Transportation().start(*dense(), budget, steps=9).search
    masks = {name: mask.detach().clone() for name, mask in steering.masks.named().items()}
    low, *others = masks
    masks[low] = torch.full_like(masks[low], 1e-9)
    masks[low][1] = masks[low][4] = 1e-6
    monkeypatch.setattr(steering.masks, "named", lambda: masks)
    plan = steering.living()
    assert plan.kept[low] == (1, 4)
    high = {name: (masks[name] > 1e-3).nonzero()[:, 0].tolist() for name in others}
    assert {name: list(plan.kept.get(name, range(len(masks[name])))) for name in others} == high
    masks[low][0] = torch.nan
    with pytest.raises(MetapruneError, match=rf"Transportation: expected finite gates, got others for axis {low}:"):
        steering.living()


def test_standardised() -> None:
    found = standardised({"a": torch.tensor([1.0, 2.0]).double(), "b": torch.tensor([6.0]).double()})
    flat = torch.cat(list(found.values()))
    assert flat.tolist() == pytest.approx([each / (14 / 3) ** 0.5 for each in (-2, -1, 3)])
    assert standardised({"a": torch.ones(3)})["a"].tolist() == [0, 0, 0]


def test_a_budget_of_everything_cuts_nothing() -> None:
    for solver in SOLVERS:
        found = find(mp.Transportation(solver=solver), mp.Budget(macs=1.0), epochs=2)  # type: ignore[arg-type]
        assert found.plan.kept == {}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"search": 0}, "search"),
        ({"search": 1.5}, "search"),
        ({"sharpness": 0}, "sharpness"),
        ({"sharpness": float("nan")}, "sharpness"),
        ({"score_lr": -1.0}, "score_lr"),
        ({"solver": "newton"}, "solver"),
    ],
    ids=str,
)
def test_bad_settings(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(MetapruneError) as caught:
        mp.Transportation(**fields)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
