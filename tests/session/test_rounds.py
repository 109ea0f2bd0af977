"""Pruning a result further, and going down in steps: plans compose, and all is against the first dense network."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.graph.errors import MetapruneError
from metaprune.report.page import render
from metaprune.report.report import from_json, to_json
from metaprune.session.rounds import budgets, parts
from metaprune.train.task import First
from tests.laws import oracle
from tests.methods import small


@cache
def dense() -> nn.Module:
    return small.network()


@cache
def task() -> mp.Task:
    whole = small.task()
    return replace(whole, train=First(whole.train, 4), val=First(whole.val, 1))


def pruned(model: Any, share: float, **fields: Any) -> mp.Result:
    given: dict[str, Any] = {
        "method": mp.Magnitude(),
        "task": task(),
        "recipe": small.recipe(1),
        "budget": mp.Budget(macs=share, multiple_of=1),
        "progress": False,
    }
    args = () if isinstance(model, mp.Result) else (small.EXAMPLE,)
    return mp.prune(model, *args, **(given | fields))


@cache
def first() -> mp.Result:
    return pruned(dense(), 0.7, limits=mp.Limits(keep=["inner"], least={"wide": 14}))


@pytest.mark.parametrize("method", [mp.Magnitude(), mp.DHP()], ids=lambda method: method.name)
def test_a_result_is_pruned_further(method: Any, tmp_path: Path) -> None:
    before, known = oracle.fingerprint(first().model), oracle.fingerprint(dense())
    result = pruned(first(), 0.4, method=method, recipe=small.recipe(2), out=tmp_path / "run")
    assert oracle.fingerprint(first().model) == before
    assert oracle.fingerprint(dense()) == known
    graph, report = mp.trace(dense(), small.EXAMPLE), result.report
    assert 0.3 * mp.macs(graph) < mp.macs(graph, result.plan) <= 0.4 * mp.macs(graph)
    assert all(set(kept) <= set(first().plan.kept.get(name, kept)) for name, kept in result.plan.kept.items())
    assert report.dense.macs == mp.macs(graph)
    assert report.pruned.macs == mp.macs(graph, result.plan) == oracle.counted_macs(result.model, small.EXAMPLE, {})
    assert report.dense_val == first().report.dense_val
    begun = mp.evaluate(first().model, task().val, task(), small.recipe())
    assert report.before_cut == pytest.approx(report.after_cut if method.name == "DHP" else begun)
    assert "inner.0" not in result.plan.kept  # what limited the first cut still holds
    assert result.plan.widths.get("wide.0", 24) >= 14
    assert [epoch.epoch for epoch in report.history] == [1, 2, 3]
    share = first().report.pruned.macs / mp.macs(graph)
    assert report.history[0] == replace(first().report.history[0], macs=share)
    assert "it was pruned before, by magnitude to 0.7 of the MACs" in report.notes
    result.save(tmp_path / "saved")
    loaded = mp.load(tmp_path / "saved", small.Small())
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(loaded.eval()(x), copy.deepcopy(result.model).eval()(x))
    assert from_json(to_json(report)) == report
    assert "<html" in render(report)


def test_further_in_a_folder_goes_on_and_is_another_run(tmp_path: Path) -> None:
    one = pruned(first(), 0.4, out=tmp_path)
    two = pruned(first(), 0.4, out=tmp_path)
    assert one.plan == two.plan
    assert all(map(torch.equal, one.model.state_dict().values(), two.model.state_dict().values()))
    with pytest.raises(MetapruneError, match="holds another run"):
        pruned(dense(), 0.4, out=tmp_path)


def test_three_results_after_one_another() -> None:
    result = first()
    for share in (0.55, 0.4):
        result = pruned(result, share)
    assert result.report.pruned.macs <= 0.4 * result.report.dense.macs
    assert result.dense is dense()
    assert [epoch.epoch for epoch in result.report.history] == [1, 2, 3]


def test_what_a_result_cannot_be_given() -> None:
    with pytest.raises(MetapruneError, match="a result knows its example inputs"):
        mp.prune(first(), small.EXAMPLE, method=mp.Magnitude(), budget=mp.Budget(macs=0.4), task=task())
    with pytest.raises(MetapruneError, match="does not hold the dense network"):
        pruned(replace(first(), dense=None), 0.4)
    with pytest.raises(MetapruneError, match="expected example inputs as a tuple, got none"):
        mp.prune(dense(), method=mp.Magnitude(), budget=mp.Budget(macs=0.4), task=task())


class Budgets(mp.Magnitude):
    """Magnitude that notes what it was asked."""

    asked: list[Any] = []  # noqa: RUF012

    def find(self, problem: Any) -> Any:
        self.asked.append((problem.budget, problem.recipe, mp.macs(problem.graph)))
        return super().find(problem)


def test_three_steps_in_one_schedule(tmp_path: Path) -> None:
    """Costs fall by the same factor, each step has its part of the schedule, and the end is on the budget."""
    Budgets.asked.clear()
    recipe = small.recipe(5, warmup=0.5)
    rates: list[float] = []

    class Told(mp.Callback):
        def on_step(self, moment: Any) -> None:
            rates.append(moment.lr)

    fields = {"method": Budgets(), "recipe": recipe, "steps": 3, "out": tmp_path}
    result = pruned(dense(), 0.4, callbacks=[Told()], **fields)
    report = result.report
    whole = report.dense.macs
    assert [each.epochs for _, each, _ in Budgets.asked] == [2, 1, 2]
    shares = [budget.macs / whole for budget, _, _ in Budgets.asked]
    assert shares == pytest.approx([0.4 ** (i / 3) for i in (1, 2, 3)], rel=0.01)
    assert [macs / whole for _, _, macs in Budgets.asked] == pytest.approx([1, *shares[:2]], rel=0.05)
    assert rates == pytest.approx([recipe.lr_at((i + 0.5) / 4) for i in range(20)])
    assert 0.35 * whole < report.pruned.macs <= 0.4 * whole
    assert report.pruned.macs == mp.macs(result.graph, result.plan)
    assert [epoch.epoch for epoch in report.history] == [1, 2, 3, 4, 5]
    left = [epoch.macs for epoch in report.history]
    assert left[0] == left[1] > left[2]  # type: ignore[operator]
    assert left[3:] == [None, None]  # nothing more is cut
    assert any("cut in 3 steps" in note for note in report.notes)
    assert report.settings["steps"] == "3"
    again = pruned(dense(), 0.4, **fields)
    assert again.plan == result.plan
    assert all(map(torch.equal, again.model.state_dict().values(), result.model.state_dict().values()))
    assert from_json(to_json(report)) == report


def test_steps_of_a_search() -> None:
    result = pruned(dense(), 0.4, method=mp.DHP(search=0.5), recipe=small.recipe(4), steps=2)
    assert result.report.pruned.macs <= 0.4 * result.report.dense.macs
    assert [epoch.phase for epoch in result.report.history] == ["search", "fine-tuning"] * 2
    left = [epoch.macs for epoch in result.report.history]
    assert left[0] == left[1] == pytest.approx(0.4**0.5, abs=0.05)  # type: ignore[comparison-overlap]
    assert left[2] == pytest.approx(0.4, abs=0.03)


def test_one_step_is_what_there_was() -> None:
    budget = mp.Budget(macs=0.5)
    assert budgets(budget, first().graph, 1) == [budget]
    recipe = small.recipe(5)
    assert parts(recipe, 1) == [recipe]
    for bad in (0, 1.5, True, "three"):
        with pytest.raises(MetapruneError, match="steps as a whole number from 1"):
            pruned(dense(), 0.5, steps=bad)
    with pytest.raises(MetapruneError, match="at least an epoch for each of the 3 steps, got 2"):
        pruned(dense(), 0.5, steps=3, recipe=small.recipe(2))


def test_both_costs_fall_and_the_parts_are_the_whole() -> None:
    graph = first().graph
    found = budgets(mp.Budget(macs=0.25, params=0.5, multiple_of=2), graph, 2)
    assert found[1] == mp.Budget(macs=mp.macs(graph) // 4, params=mp.params(graph) // 2, multiple_of=2)
    assert found[0].macs == pytest.approx(0.5 * mp.macs(graph), rel=0.01)
    assert found[0].params == pytest.approx(0.5**0.5 * mp.params(graph), rel=0.01)
    whole = mp.Recipe(epochs=7, warmup=1.0, schedule="linear", max_steps=70)
    pieces = parts(whole, 3)
    rates = [piece.lr_at(epoch + 0.5) for piece in pieces for epoch in range(piece.epochs)]
    assert rates == pytest.approx([whole.lr_at(epoch + 0.5) for epoch in range(7)])
    assert [piece.batches(100) for piece in pieces] == [10] * 3
