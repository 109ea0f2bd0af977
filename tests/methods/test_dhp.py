"""The search of DHP: it lands on its budget with a network that already ignores what the plan removes."""

import copy
import itertools
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.methods.dhp import search as search_module
from metaprune.methods.dhp.dhp import initial_latents
from metaprune.methods.dhp.search import Search, proximal_step, share_allowed
from metaprune.methods.gates.latents import Latents
from metaprune.methods.method import Found, Problem
from tests.laws import oracle
from tests.methods import small
from tests.methods.rough import rough_cut


@cache
def dense() -> tuple[nn.Module, ChannelGraph]:
    model = small.network()
    return model, mp.trace(model, small.EXAMPLE)


def find(method: mp.DHP, budget: mp.Budget, epochs: int = 2, **fields: Any) -> Found:
    return method.find(Problem(*dense(), budget, small.task(), small.recipe(epochs, **fields), progress=False))


@pytest.mark.parametrize("z", [-1.5, -0.3, -0.05, 0.0, 0.2, 0.7, 2.0])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.7, 3.0])
def test_proximal_step_minimises(z: float, threshold: float) -> None:
    """Its definition: the minimiser of (x - z)^2 / 2 + t |x|, looked for on a grid."""
    grid = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
    best = grid[((grid - z).square() / 2 + threshold * grid.abs()).argmin()].item()
    assert proximal_step(torch.tensor([z]), threshold).item() == pytest.approx(best, abs=1e-4)


def test_proximal_step_is_elementwise() -> None:
    step = proximal_step(torch.tensor([1.0, -1.0, 0.3, -2.0]), torch.tensor([0.25, 0.5, 0.4, 0.0]))
    assert step.tolist() == [0.75, -0.5, 0.0, -2.0]


def test_share_allowed() -> None:
    assert [share_allowed(p, 0.4) for p in (-1, 0, 0.5, 1, 7)] == pytest.approx([1, 1, 0.7, 0.4, 0.4])
    falling = [share_allowed(p / 10, 0.25) for p in range(11)]
    assert falling == sorted(falling, reverse=True)


def test_latents_start_from_saliency() -> None:
    norms = {"a": torch.tensor([0.0, 0.25, 1.0, 4.0, 1e6]).double()}
    assert initial_latents(norms)["a"].tolist() == pytest.approx([0.1, 0.5, 1.0, 2.0, 10.0])
    latents = mp.DHP().generate(*dense()).latents.named()
    for name, axis in dense()[1].free.items():
        assert latents[name].shape == (axis.size,)
        assert len(latents[name].unique()) == axis.size  # in lockstep, a whole axis would die at once


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"form": "hypernetwork"},
        {"form": "hypernetwork", "scratch": True},
        {"form": "hypernetwork", "offsets": True},
        {"search": 1.0},
        {"sparsity": 20.0},  # the paper's threshold alone would kill every latent
        {"ranking": "latent"},
        {"steering": "threshold", "sparsity": 30.0},
        {"steering": "threshold", "sparsity": 0.0},  # never there by itself
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "budget",
    [
        pytest.param(mp.Budget(macs=0.5, multiple_of=1), marks=pytest.mark.slow),
        mp.Budget(params=0.35, multiple_of=4),
    ],
    ids=str,
)
def test_it_lands_on_the_budget(fields: dict[str, Any], budget: mp.Budget) -> None:
    model, graph = dense()
    method = mp.DHP(**fields)
    before = oracle.fingerprint(model)
    found = find(method, budget)
    check(found, Allocation(graph, budget))
    assert oracle.fingerprint(model) == before
    assert found.epochs == max(1, round(method.search * 2))
    assert [row.epoch for row in found.history] == list(range(1, found.epochs + 1))
    assert {row.phase for row in found.history} == {"search"}
    assert found.exact == (not method.offsets)
    if found.exact:
        cut = rough_cut(found.model, graph, found.plan)
        example = (torch.randn(4, 1, 8, 8),)
        for network in (found.model, cut):
            network.eval()
        assert oracle.distance(oracle.call(found.model, example, {}), oracle.call(cut, example, {})) < 1e-5


def check(found: Found, allocation: Allocation) -> None:
    """Within the budget and at most 1 % of the dense cost below it, aligned, above the floors."""
    graph = allocation.graph
    cost = allocation.form.at(found.plan.widths)
    slack = 0.01 if allocation.budget.multiple_of == 1 else 0.05
    assert allocation.limit - slack * allocation.dense <= cost <= allocation.limit
    for axis, width in found.plan.widths.items():
        assert allocation.least[axis] <= width <= allocation.sizes[axis]
        assert width % allocation.steps[axis] == 0 or width == allocation.sizes[axis]
    assert found.shares[-1][1] == pytest.approx(cost / allocation.dense)
    epochs, shares = zip(*found.shares, strict=True)
    assert list(epochs) == sorted(epochs)
    assert epochs[-1] == found.epochs
    assert all(after <= before for before, after in itertools.pairwise(shares))  # the dead stay dead
    assert set(found.scores) == set(graph.free)
    assert all(score.shape == (graph.axes[axis].size,) for axis, score in found.scores.items())


def test_the_plan_is_the_living_latents() -> None:
    """At every step: what is doomed falls to zero in time and stays there; the rest is not touched."""
    _, graph = dense()
    allocation = Allocation(graph, mp.Budget(macs=0.4, multiple_of=4))
    latents = Latents({axis: 0.5 + torch.rand(graph.axes[axis].size) for axis in graph.free})
    start = copy.deepcopy(latents)
    search = Search(mp.DHP(), latents, allocation)
    dead: set[tuple[str, int]] = set()
    for step in range(200):
        with torch.no_grad():
            for z in latents.vectors:
                z.add_(0.001 * torch.randn(z.shape))  # the optimizer wakes the dead
        search.after(step + 1, 200, 0.05)
        now = {(axis, c) for axis, z in latents.named().items() for c in (z == 0).nonzero()[:, 0].tolist()}
        assert dead <= now
        dead = now
        kept = {axis: tuple(z.nonzero()[:, 0].tolist()) for axis, z in latents.named().items()}
        assert search.plan() == mp.Plan({a: k for a, k in kept.items() if len(k) < graph.axes[a].size})
    assert search.plan() == allocation.plan(search.ranking)
    for axis, z in latents.named().items():
        alive = z != 0
        assert (z - start.named()[axis])[alive].abs().max() < 0.1
    assert search.shares[0][1] > 0.95
    assert search.shares[-1] == [1.0, allocation.form.at(search.plan().widths) / allocation.dense]


def test_the_ranking_of_the_latents_decides() -> None:
    _, graph = dense()
    allocation = Allocation(graph, mp.Budget(params=0.6, multiple_of=1))
    latents = Latents({axis: 0.5 + torch.rand(graph.axes[axis].size) for axis in graph.free})
    expected = allocation.plan({axis: z.detach().clone() for axis, z in latents.named().items()})
    search = Search(mp.DHP(), latents, allocation)
    for step in range(50):
        search.after(step + 1, 50, 0.05)
    assert search.plan() == expected


@pytest.mark.parametrize(
    ("decay", "steps"),
    [
        *((decay, steps) for decay in (0.01, 0.2) for steps in (1, 2, 3, 7, 10, 11)),
        *((0.01, 99), (0.01, 101)),  # a decay that takes just less, and just more than a step
    ],
)
def test_it_lands_in_however_few_steps(decay: float, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "DECAY", decay)
    _, graph = dense()
    allocation = Allocation(graph, mp.Budget(macs=0.3, multiple_of=1))
    latents = Latents({axis: 0.5 + torch.rand(graph.axes[axis].size) for axis in graph.free})
    search = Search(mp.DHP(), latents, allocation)
    for step in range(steps):
        search.after(step + 1, steps, 0.05)
    cost = allocation.form.at(search.plan().widths)
    assert allocation.limit - 0.01 * allocation.dense <= cost <= allocation.limit


@pytest.mark.parametrize("steering", ["ramp", "threshold"])
def test_what_lives_is_told_at_each_ranking_and_at_the_end(steering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "RANKINGS", 4)
    _, graph = dense()
    allocation = Allocation(graph, mp.Budget(macs=0.5, multiple_of=1))
    latents = Latents({axis: 1 + torch.rand(graph.axes[axis].size) for axis in graph.free})
    told: list[mp.Plan] = []
    search = Search(mp.DHP(steering=steering), latents, allocation, told.append)
    for done in range(1, 43):
        search.after(done, 42, 0.05)
    assert [progress for progress, _ in search.shares] == [done / 42 for done in (10, 20, 30, 40, 42)]
    assert [share for _, share in search.shares] == [search.share(plan) for plan in told]
    assert told[-1] == search.plan()


@pytest.mark.parametrize("there_at", [None, 40])
def test_the_papers_search_ends_when_its_threshold_leaves_the_budget(there_at: int | None) -> None:
    """And not a step sooner; or at its end, if it is never there."""
    _, graph = dense()
    allocation = Allocation(graph, mp.Budget(macs=0.5, multiple_of=1))
    latents = Latents({axis: 1 + torch.rand(graph.axes[axis].size) for axis in graph.free})
    search = Search(mp.DHP(steering="threshold", threshold=0.5, sparsity=0.0), latents, allocation)
    landed = None
    for done in range(1, 101):
        if done == there_at:
            with torch.no_grad():
                for z in latents.vectors:
                    z[: len(z) * 3 // 4] = 0.1
        if done == (there_at or 100):
            expected = allocation.plan({axis: z.detach().clone() for axis, z in latents.named().items()})
        search.after(done, 100, 0.05)
        if search.landed and landed is None:
            landed = done
    assert landed == (there_at or 100)
    assert search.plan() == expected


@pytest.mark.parametrize("threshold", [0.0, 54 / 64, 9.0])
def test_as_many_latents_stay_above_the_threshold_as_must(threshold: float) -> None:
    """One that is at the threshold is not below it, whatever its sign; of those below, the largest stay."""
    _, graph = dense()
    allocation = Allocation(graph, mp.Budget(macs=0.5, multiple_of=1))
    falling = {axis: (64 - torch.arange(graph.axes[axis].size)) / 64 for axis in graph.free}
    latents = Latents({axis: z * (1 - 2 * (torch.arange(len(z)) % 2)) for axis, z in falling.items()})
    above = Search(mp.DHP(steering="threshold", threshold=threshold), latents, allocation).above()
    widths = {0.0: {}, 54 / 64: dict.fromkeys(graph.free, 11), 9.0: dict(allocation.least)}[threshold]
    assert above == mp.Plan({axis: range(width) for axis, width in widths.items()})


def test_the_papers_setting_starts_from_scratch() -> None:
    model, graph = dense()
    method = mp.DHP.paper(search=0.5, sparsity=0.3)
    start = method.generate(model, graph, seed=1)
    assert set(start.terms) == {
        name for name, p in model.named_parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[0] > 1
    } | {"head.weight"}
    assert torch.equal(start.network.get_parameter("norm.weight"), torch.ones(16))
    assert oracle.fingerprint(start) == oracle.fingerprint(method.generate(model, graph, seed=1))
    assert not torch.equal(start.latents.vectors[0], method.generate(model, graph, seed=2).latents.vectors[0])
    budget = mp.Budget(macs=0.5, multiple_of=1)
    found = find(method, budget)
    check(found, Allocation(graph, budget))
    assert not found.exact
    *_, latents = method.start(model, graph, budget, steps=2).groups(0.1)
    assert (latents["lr"], latents.get("weight_decay")) == (0.1, None)  # the optimizer's own


def test_for_generators_latents_have_the_rate_of_weights() -> None:
    """The search is longer, and the gate form stays, so that the cut is exact."""
    model, graph = dense()
    method = mp.DHP.generator(search=0.7)
    *_, latents = method.start(model, graph, mp.Budget(macs=0.5), steps=2).groups(0.1)
    assert (latents["lr"], latents["weight_decay"]) == (0.1, 0.0)
    assert (method.search, method.form, method.offsets, mp.DHP.generator().search) == (0.7, "gate", False, 0.5)


def test_evidence_is_the_change_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """(z dL/dz)^2, added up: what the loss would lose, to first order, if the channel went."""
    monkeypatch.setattr(search_module, "MEMORY", 0.5)
    _, graph = dense()
    allocation = Allocation(graph, mp.Budget(macs=0.5, multiple_of=1))
    latents = Latents({axis: 0.5 + torch.rand(graph.axes[axis].size) for axis in graph.free})
    search = Search(
        mp.DHP(ranking="taylor", cost_power=0.0, sparsity=0.0),
        latents,
        allocation,
    )
    expected = {axis: torch.zeros_like(z) for axis, z in latents.named().items()}
    for _ in range(3):
        for axis, z in latents.named().items():
            z.grad = torch.randn(z.shape)
            expected[axis] = 0.5 * expected[axis] + (z * z.grad).detach().square()
        search.observe()
    for axis, score in search.rank().items():
        torch.testing.assert_close(score.float(), expected[axis].sqrt())
    dear = Search(mp.DHP(ranking="taylor", cost_power=1.0), latents, allocation)
    dear.evidence = search.evidence
    price = allocation.prices({})
    for axis, score in dear.rank().items():
        torch.testing.assert_close(score.float(), (expected[axis] / price[axis]).sqrt())


def test_prices_are_differences_of_the_cost() -> None:
    _, graph = dense()
    allocation = Allocation(graph, mp.Budget(macs=0.5, multiple_of=1))
    widths = {axis: graph.axes[axis].size - 3 for axis in graph.free}
    for axis, price in allocation.prices(widths).items():
        more, less = (allocation.form.at(widths | {axis: widths[axis] + step}) for step in (1, -1))
        assert price == pytest.approx((more - less) / 2 / allocation.dense)


def test_a_budget_of_everything_kills_nothing() -> None:
    found = find(mp.DHP(search=0.5), mp.Budget(macs=1.0))
    assert found.plan.kept == {}
    assert {share for _, share in found.shares} == {1.0}


def test_same_seed_same_plan_and_weights() -> None:
    budget = mp.Budget(macs=0.5, multiple_of=1)
    one = find(mp.DHP(), budget)
    torch.rand(5)
    two = find(mp.DHP(), budget)
    other = find(mp.DHP(), budget, seed=3)
    assert one.plan == two.plan
    assert oracle.fingerprint(one.model) == oracle.fingerprint(two.model)
    assert oracle.fingerprint(one.model) != oracle.fingerprint(other.model)


def test_frozen_weights_are_not_trained() -> None:
    model, graph = dense()
    model = copy.deepcopy(model)
    model.get_parameter("head.weight").requires_grad_(False)
    problem = Problem(model, graph, mp.Budget(macs=0.5), small.task(), small.recipe(2), progress=False)
    found = mp.DHP().find(problem)
    start, end = mp.DHP().generate(model, graph).network, found.before.network  # type: ignore[union-attr]
    assert torch.equal(end.get_parameter("head.weight"), start.get_parameter("head.weight"))
    assert not torch.equal(end.get_parameter("stem.weight"), start.get_parameter("stem.weight"))
    assert not found.model.get_parameter("head.weight").requires_grad
    assert {name for name, p in found.model.named_parameters() if not p.requires_grad} == {"head.weight"}


def test_state_survives_a_checkpoint() -> None:
    """Interrupted between any two steps, the search goes on as if nothing had been."""
    _, graph = dense()
    allocation = Allocation(graph, mp.Budget(macs=0.5))
    start = Latents({axis: 0.5 + torch.rand(graph.axes[axis].size) for axis in graph.free})

    def search() -> Search:
        return Search(mp.DHP(), copy.deepcopy(start), allocation)

    def take(search: Search, step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        for z in search.latents.vectors:
            z.grad = torch.randn(z.shape, generator=generator)
        search.after(step + 1, 50, 0.05)

    whole, first = search(), search()
    for step in range(50):
        take(whole, step)
        if step < 31:
            take(first, step)
    second = search()
    second.latents.load_state_dict(first.latents.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert all(torch.equal(second.ranking[axis], ranks) for axis, ranks in first.ranking.items())
    assert any(due.any() for due in first.due.values())
    assert all(torch.equal(second.due[axis], due) for axis, due in first.due.items())
    for step in range(31, 50):
        take(second, step)
    assert second.plan() == whole.plan()
    assert all(torch.equal(second.evidence[axis], said) and said.any() for axis, said in whole.evidence.items())
    assert second.shares == whole.shares
    assert all(map(torch.equal, whole.latents.vectors, second.latents.vectors))


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3)
        self.norm = nn.GroupNorm(1, 16)
        self.more = nn.Conv2d(16, 16, 3)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.more(self.norm(self.stem(x)).relu()).relu().mean((2, 3)))


@cache
def normed() -> tuple[nn.Module, ChannelGraph]:
    model = Normed()
    return model, mp.trace(model, small.EXAMPLE)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_axes_that_are_averaged_over_are_searched_too(precision: str) -> None:
    """The norm of what is left: the searched network is the cut one, the folded one at full width is not."""

    model, graph = normed()
    recipe = replace(small.recipe(2), precision=precision)
    problem = Problem(model, graph, mp.Budget(macs=0.3, multiple_of=1), small.task(), recipe, progress=False)
    found = mp.DHP().find(problem)
    assert set(found.plan) == {"stem", "more"}
    cut = rough_cut(found.model, graph, found.plan).eval()
    example = (torch.randn(4, 1, 8, 8),)
    assert isinstance(found.before, nn.Module)
    searched = oracle.call(found.before.eval(), example, {})
    assert oracle.distance(searched, oracle.call(cut, example, {})) < 1e-5
    assert oracle.distance(searched, oracle.call(found.model.eval(), example, {})) > 1e-3


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"search": 0}, "search"),
        ({"search": 1.5}, "search"),
        ({"form": "mask"}, "form"),
        ({"offsets": True}, "hypernetwork"),
        ({"scratch": True}, "hypernetwork"),
        ({"form": "hypernetwork", "embedding": 0}, "embedding"),
        ({"sparsity": -1.0}, "sparsity"),
        ({"latent_lr": -0.1}, "latent_lr"),
        ({"cost_power": -1.0}, "cost_power"),
        ({"threshold": -1.0}, "threshold"),
        ({"ranking": "size"}, "ranking"),
        ({"steering": "wheel"}, "steering"),
    ],
    ids=str,
)
def test_bad_settings(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(MetapruneError) as caught:
        mp.DHP(**fields)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_loader_is_refused() -> None:
    model, graph = dense()
    empty = replace(small.task(), train=DataLoader([]))
    with pytest.raises(MetapruneError, match="empty"):
        mp.DHP().find(Problem(model, graph, mp.Budget(macs=0.5), empty, small.recipe(), progress=False))


def test_the_living_shrink_by_the_rates_of_the_schedule() -> None:
    """Over a search, a latent that nothing else moves loses the sum of the rates times the latents' own and lambda."""
    method = mp.DHP(latent_lr=0.5, sparsity=0.02, search=1.0)
    model, graph = dense()
    started = method.generate(model, graph).latents.named()
    recipe = replace(small.recipe(2), lr=0.3)
    task = replace(small.task(), loss=lambda output, batch: 0 * output.sum())
    found = method.find(Problem(model, graph, mp.Budget(macs=1.0, multiple_of=1), task, recipe, progress=False))
    steps = 2 * len(task.train)
    lost = 0.5 * 0.02 * sum(recipe.lr_at(2 * done / steps) for done in range(1, steps + 1))
    assert lost > 0.01
    ended = found.before.latents.named()  # type: ignore[union-attr]
    for axis, z in started.items():
        torch.testing.assert_close(ended[axis].detach(), (z - lost).clamp(min=0).detach(), rtol=1e-4, atol=1e-5)


def test_halfway_down_the_ramp_half_of_the_way_is_gone() -> None:
    """What is doomed at a place is dead a tenth of the search later, when the share allowed is that of the ramp."""
    _, graph = dense()
    allocation = Allocation(graph, mp.Budget(macs=0.4, multiple_of=1))
    latents = Latents({axis: 0.5 + torch.rand(graph.axes[axis].size) for axis in graph.free})
    search = Search(mp.DHP(), latents, allocation)
    for step in range(200):
        search.after(step + 1, 200, 0.05)
    shares = dict(map(tuple, search.shares))
    target = allocation.limit / allocation.dense
    for place in (0.45, 0.7, 0.9):
        assert shares[place] == pytest.approx(1 - (1 - target) * place / 0.9, abs=0.03)
    assert shares[0.05] == 1.0


def test_what_died_never_comes_back_into_the_ranking() -> None:
    """A dead channel with the largest evidence stays dead, and its place is not held open."""
    _, graph = dense()
    allocation = Allocation(graph, mp.Budget(params=0.6, multiple_of=1))
    latents = Latents({axis: 0.5 + torch.rand(graph.axes[axis].size) for axis in graph.free})
    search = Search(mp.DHP(), latents, allocation)
    for step in range(30):
        search.after(step + 1, 50, 0.05)
    dead = {axis: (z == 0).nonzero()[:, 0] for axis, z in latents.named().items()}
    assert any(map(len, dead.values()))
    for axis, channels in dead.items():
        search.evidence[axis] += 1.0
        search.evidence[axis][channels] = 1e6
    for step in range(30, 50):
        search.after(step + 1, 50, 0.05)
    assert all((latents.named()[axis][channels] == 0).all() for axis, channels in dead.items())
    cost = allocation.form.at(search.plan().widths)
    assert allocation.limit - 0.01 * allocation.dense <= cost <= allocation.limit


def test_a_search_that_goes_on_hides_what_had_died() -> None:
    _, graph = dense()
    allocation = Allocation(graph, mp.Budget(params=0.6, multiple_of=1))
    latents = Latents({axis: 0.5 + torch.rand(graph.axes[axis].size) for axis in graph.free})
    search = Search(mp.DHP(), latents, allocation)
    for step in range(30):
        search.after(step + 1, 50, 0.05)
    hidden: list[mp.Plan] = []
    Search(mp.DHP(), latents, allocation, hidden.append).load_state_dict(search.state_dict())
    assert hidden == [search.plan()]
    assert hidden[0].kept
