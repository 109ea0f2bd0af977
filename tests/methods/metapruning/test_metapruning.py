"""The whole method: budgets, seeds, kills, rewards, refusals."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.methods.metapruning.evolution import Candidate
from metaprune.methods.metapruning.generator import PruningNet
from metaprune.methods.metapruning.metapruning import Searched, _said, shortened
from metaprune.methods.method import Problem
from metaprune.train.recipe import Recipe
from tests.breaking import Breaks
from tests.laws import oracle
from tests.methods import small

BUDGET = mp.Budget(macs=0.5, multiple_of=1)
QUICK: dict[str, Any] = {"search": 0.5, "population": 4, "generations": 2, "parents": 2, "calibration": 2}


@pytest.fixture(scope="module")
def model() -> small.Small:
    return small.network()


@pytest.fixture(scope="module")
def graph(model: small.Small) -> mp.ChannelGraph:
    return mp.trace(model, small.EXAMPLE)


def problem_of(model: Any, graph: mp.ChannelGraph, **fields: Any) -> Problem:
    given: dict[str, Any] = {"task": small.task(), "recipe": small.recipe(2), "progress": False} | fields
    return Problem(model, graph, BUDGET, **given)


def test_from_network_to_result(model: small.Small) -> None:
    """Within the budget, the given network untouched, and the report says what the search cost."""
    before = oracle.fingerprint(model)
    fields: dict[str, Any] = {"task": small.task(), "recipe": small.recipe(2), "progress": False}
    result = mp.prune(model, small.EXAMPLE, method=mp.MetaPruning(**QUICK), budget=BUDGET, **fields)
    assert oracle.fingerprint(model) == before
    assert 0.45 < result.report.pruned.macs / result.report.dense.macs <= 0.5
    spent = dict(result.report.spent)
    evaluations = spent.pop("evaluations")
    assert 4 < evaluations <= 8
    assert spent == {"epochs": 1}
    assert [row.phase for row in result.report.history] == ["generator", "fine-tuning", "fine-tuning"]
    said = rf"{evaluations} vectors of widths were tried .* had accuracy \(%\) [\d.]+, uniform widths [\d.]+"
    assert any(re.fullmatch(said, note) for note in result.report.notes)


@pytest.mark.parametrize("fields", [{}, {"generator": "film"}, {"generator": "mlp", "fresh": False}])
def test_what_it_gives_back(model: small.Small, graph: mp.ChannelGraph, fields: Any) -> None:
    """The fittest widths, and the same again from the same seed; scores say the plan."""
    method, problem = mp.MetaPruning(**QUICK, **fields), problem_of(model, graph)
    found, fresh = method.find(problem), fields.get("fresh", True)
    Allocation(graph, BUDGET).check(found.plan, "MetaPruning")
    assert (found.fresh, found.epochs, found.model is model) == (fresh, 0 if fresh else 1, True)
    first = all(kept == tuple(range(len(kept))) for kept in found.plan.kept.values())
    assert first == fresh  # the given network's best channels are not its first
    for axis, kept in found.plan.kept.items():
        assert set(found.scores[axis].topk(len(kept)).indices.tolist()) == set(kept)
    assert method.find(problem).plan == found.plan


def test_fresh_weights_are_none_of_the_given(model: small.Small, graph: mp.ChannelGraph) -> None:
    """What is found does not hang on the weights that were given."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    one, two = (mp.MetaPruning(**QUICK).searched(problem_of(each, graph)) for each in (model, other))
    assert one.candidates == two.candidates


def test_killed_it_goes_on_to_the_same_bits(
    model: small.Small, graph: mp.ChannelGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the generator's second epoch, and after the search; no candidate is measured twice."""
    method, recipe = mp.MetaPruning(**QUICK), small.recipe(4)
    whole = method.searched(problem_of(model, graph, recipe=recipe))
    batches = len(small.task().train)
    broken = replace(small.task(), train=Breaks(small.task().train, 2 + int(1.5 * batches)))
    with pytest.raises(KeyboardInterrupt):
        method.find(problem_of(model, graph, recipe=recipe, task=broken, checkpoint=tmp_path))
    made: list[mp.Plan] = []
    original = PruningNet.copy
    monkeypatch.setattr(PruningNet, "copy", lambda net, plan: made.append(plan) or original(net, plan))  # type: ignore[func-returns-value]
    for _ in range(2):
        again = method.searched(problem_of(model, graph, recipe=recipe, checkpoint=tmp_path))
        assert len(made) == 1 + len(whole.candidates)  # one evaluation is that of the epoch
        assert again.candidates == whole.candidates
        assert oracle.fingerprint(again.net.network) == oracle.fingerprint(whole.net.network)


@pytest.mark.parametrize("window", [0.9, 0.0])
@pytest.mark.parametrize("fitness", ["rewarded", mp.rewarded(90.0, 0.4)])
def test_a_reward_spends_what_it_likes_of_a_window(
    model: small.Small, graph: mp.ChannelGraph, fitness: Any, window: float
) -> None:
    """By default the last tenth of the budget, since the smallest network of all may have the highest reward."""
    settings = {} if window == 0.9 else {"window": window}
    method = mp.MetaPruning(**(QUICK | {"population": 8}), fitness=fitness, **settings)
    problem = problem_of(model, graph)
    found = method.searched(problem)
    shares = [one.share for one in found.candidates]
    assert all(0.5 * window <= share <= 0.5 for share in shares)
    assert (min(shares) < 0.35) == (window == 0)
    base = mp.evaluate(model, problem.task.val, problem.task, problem.recipe)
    reward = mp.rewarded(base) if fitness == "rewarded" else fitness
    assert [one.fitness for one in found.candidates] == [reward(one.metric, one.share) for one in found.candidates]


def test_where_less_is_better_the_least_is_the_fittest(model: small.Small, graph: mp.ChannelGraph) -> None:
    task = replace(small.task(), metric=lambda output, batch: (task_loss(output, batch), 1), higher_is_better=False)
    found = mp.MetaPruning(**QUICK, batches=1).searched(problem_of(model, graph, task=task))
    assert found.candidates[0].metric == min(one.metric for one in found.candidates)


def task_loss(output: Any, batch: Any) -> Any:
    return torch.nn.functional.cross_entropy(output, batch[1])


def test_the_figures_that_are_said_are_those_of_the_fittest_and_of_uniform_widths() -> None:
    genes: Any = SimpleNamespace(whole=lambda: (9, 9), within=lambda widths: (4, 4))
    tried = tuple(
        Candidate(widths, metric, 0.5, metric) for widths, metric in [((5, 3), 8.5), ((4, 4), 7.25), ((3, 5), 1)]
    )
    said = _said(Searched(None, genes, tried, ()), small.task())  # type: ignore[arg-type]
    assert said == (
        "3 vectors of widths were tried with generated weights; the one taken had accuracy (%) 8.5, uniform widths 7.25"
    )
    assert _said(Searched(None, genes, tried[:1], ()), small.task()).endswith("had accuracy (%) 8.5")  # type: ignore[arg-type]


@pytest.mark.parametrize("better", [True, False])
def test_the_search_is_as_the_settings_say(
    model: small.Small, graph: mp.ChannelGraph, monkeypatch: pytest.MonkeyPatch, better: bool
) -> None:
    """Candidates are asked so many batches, and more of the metric is fitter, or less."""
    asked: dict[str, Any] = {}

    def evolve(genes: Any, measure: Any, fitness: Any, *, after: Any, **settings: Any) -> list[Any]:
        asked.update(settings, fitness=fitness(3.0, 0.5), measured=measure((16, 12, 5)))
        return []

    def evaluate(network: Any, data: Any, task: Any, recipe: Any) -> Any:
        return network.widths, len(data)

    class Net(torch.nn.Module):
        def copy(self, plan: mp.Plan) -> mp.Plan:
            return plan

    monkeypatch.setattr("metaprune.methods.metapruning.metapruning.evolve", evolve)
    monkeypatch.setattr("metaprune.methods.metapruning.metapruning.evaluate", evaluate)
    settings: dict[str, Any] = {"population": 5, "generations": 7, "parents": 3, "mutation": 0.375}
    task = replace(small.task(), higher_is_better=better)
    problem = problem_of(model, graph, recipe=small.recipe(2, seed=9), task=task)
    for batches in (1, None):
        mp.MetaPruning(batches=batches, **settings).evolved(problem, Net())  # type: ignore[arg-type]
        assert asked.pop("measured") == ({"wide.0": 5}, batches or 2)
        assert asked.pop("fitness") == (3.0 if better else -3.0)
        assert asked == settings | {"seed": 9}


def test_evidence_ranks_the_given_channels(model: small.Small, graph: mp.ChannelGraph) -> None:
    problem = problem_of(model, graph)
    norm, evidence = (mp.MetaPruning(fresh=False, ranking=how).genes(problem).order for how in ("norm", "evidence"))
    assert norm != evidence
    assert mp.MetaPruning().genes(problem).order == {axis: list(range(size)) for axis, size in sizes(problem).items()}


def sizes(problem: Problem) -> dict[str, int]:
    return {name: axis.size for name, axis in problem.graph.free.items()}


def test_a_shorter_schedule_has_the_same_form() -> None:
    recipe = Recipe(8, lr=0.1, schedule="steps", milestones=(4, 6), warmup=2)
    short = shortened(recipe, 2)
    assert (short.epochs, short.milestones, short.warmup) == (2, (1.0, 1.5), 0.5)
    assert short.lr_at(1.2) == recipe.lr_at(4.8)


def test_of_a_part_of_a_longer_schedule_the_whole_is_shortened() -> None:
    """Its epochs have as many steps as those of the recipe."""
    recipe = Recipe(4, lr=0.1, warmup=2, before=4, after=2, max_steps=70)
    short = shortened(recipe, 1)
    assert (short.length, short.warmup, short.lr_at(0.2)) == (1, 0.2, 0.1)
    assert short.batches(100) == recipe.batches(100) == 7


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"generator": "gan"}, "'shared', 'film' or 'mlp'"),
        ({"search": 0.0}, "search in"),
        ({"population": 0}, "population"),
        ({"generations": 2.5}, "generations"),
        ({"mutation": 1.5}, "mutation"),
        ({"batches": 0}, "batches"),
        ({"ranking": "size"}, "ranking"),
        ({"fitness": "macs"}, "fitness"),
        ({"fitness": 3}, "fitness"),
        ({"window": -0.1}, "window"),
        ({"window": 1.1}, "window"),
    ],
)
def test_bad_settings(fields: Any, words: str) -> None:
    with pytest.raises(MetapruneError, match=f"MetaPruning: expected .*{words}"):
        mp.MetaPruning(**fields)


def wordy(metric: float, share: float) -> str:
    return f"{metric} at {share}"


class Pairs:
    """A metric that wants more examples than one batch has."""

    def __init__(self) -> None:
        self.seen = 0

    def update(self, output: torch.Tensor, labels: torch.Tensor) -> None:
        self.seen += len(labels)

    def compute(self) -> float:
        if self.seen <= 24:
            raise ValueError("too few examples")
        return 1.0


@pytest.mark.parametrize(
    ("settings", "metric", "said"),
    [
        ({"fitness": wordy}, None, "MetaPruning: expected a fitness that gives a number, got '.* at 1.0'"),
        ({"batches": 1}, Pairs(), "too few examples"),
    ],
)
def test_what_ranks_candidates_is_tried_before_anything_trains(
    settings: dict[str, Any], metric: Any, said: str, model: small.Small, graph: mp.ChannelGraph
) -> None:
    task = small.task() if metric is None else replace(small.task(), metric=metric, metric_name="pairs")
    task = replace(task, loss=lambda output, batch: pytest.fail("it trained"))
    with pytest.raises(MetapruneError, match=said):
        mp.MetaPruning(**QUICK, **settings).searched(problem_of(model, graph, task=task))


def test_a_run_knows_its_fitness_by_name() -> None:
    """Where a function stood in memory would be another each time."""
    assert repr(mp.MetaPruning(fitness=task_loss)).count("test_metapruning.task_loss,") == 1
    assert "Rewarded(base_metric=70.0" in repr(mp.MetaPruning(fitness=mp.rewarded(70.0)))


def test_nothing_to_search() -> None:
    model = torch.nn.Linear(3, 2)
    graph = mp.trace(model, (torch.zeros(2, 3),))
    with pytest.raises(MetapruneError, match="no free axis"):
        mp.MetaPruning().find(Problem(model, graph, BUDGET, small.task(), small.recipe(2)))
