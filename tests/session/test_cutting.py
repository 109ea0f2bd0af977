"""What a method may say of the way from its decision to a trained network."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.methods.method import Found, Problem
from metaprune.report import words
from metaprune.report.page import render
from metaprune.report.report import from_json, to_json
from metaprune.session.measuring import moved
from metaprune.train.task import First
from tests.methods import small

BUDGET = mp.Budget(macs=0.5, multiple_of=1)


@cache
def dense() -> nn.Module:
    return small.network()


@dataclass(frozen=True)
class Saying(mp.Magnitude):
    """Magnitude, with something to say beside the plan."""

    said: Any = None

    name: ClassVar[str] = "saying"

    def find(self, problem: Problem) -> Found:
        return replace(super().find(problem), **self.said(problem))


def pruned(**said: Any) -> mp.Result:
    return told(lambda problem: said)


def told(said: Any, epochs: int = 1) -> mp.Result:
    task = small.task()
    task = replace(task, train=First(task.train, 3), val=First(task.val, 1))
    recipe = small.recipe(epochs)
    return mp.prune(
        dense(), small.EXAMPLE, method=Saying(said), budget=BUDGET, task=task, recipe=recipe, progress=False
    )


def test_the_figure_before_recalibration_is_shown_beside_the_one_after() -> None:
    report = pruned().report
    assert report.as_cut is not None
    assert report.as_cut != report.after_cut
    before, raw, after = (words.metric(report, x) for x in (report.before_cut, report.as_cut, report.after_cut))
    assert (
        words.cut(report) == f"The cut itself took it from {before} to {raw}, and recalibrated statistics to {after}."
    )
    assert words.cut(report) in render(report)
    assert from_json(to_json(report)) == report


def test_statistics_are_recalibrated_as_the_method_says() -> None:
    left, asked = pruned(recalibrate=False).report, pruned(recalibrate=True, exact=True).report
    assert left.as_cut is None
    assert left.after_cut == asked.as_cut
    assert asked.after_cut != asked.as_cut


def test_a_cut_that_was_to_change_nothing_and_did_is_said_and_made_up_for() -> None:
    report = pruned(exact=True).report
    assert report.as_cut is not None
    (note,) = (note for note in report.notes if note.startswith("the cut was meant to change nothing"))
    assert re.search(r"changed the outputs by \d+\.\d% of the largest$", note)
    assert not any(note.startswith("the cut was meant") for note in pruned().report.notes)


def test_how_far_outputs_moved() -> None:
    """As a share of the largest of the network's own."""
    large, less = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    for network, diagonal in ((large, [4.0, 1.0]), (less, [3.0, -0.5])):
        network.weight.data.copy_(torch.diag(torch.tensor(diagonal)))
    graph = mp.trace(large, (torch.ones(3, 2),))
    assert moved(large, less, graph) == pytest.approx(1.5 / 4)
    assert moved(large, large, graph) == 0


def test_nothing_stands_for_the_network_before_the_cut() -> None:
    report = pruned(before=None).report
    assert report.before_cut is None
    assert words.cut(report).startswith("Right after the cut it was")
    assert words.cut(pruned(before=None, recalibrate=False).report) == ""


def test_another_network_stands_for_it() -> None:
    def said(problem: Problem) -> dict[str, Any]:
        silent = copy.deepcopy(problem.model)
        silent.get_parameter("head.weight").data.zero_()
        return {"before": silent}

    report = told(said).report
    assert report.before_cut != report.dense_val
    assert report.before_cut == pytest.approx(100 / 3)  # one answer to all of three kinds, as many of each


def test_weights_drawn_anew_begin_the_schedule_again() -> None:
    """What they were cut from does not matter, and what the method spent of the schedule does not shorten it."""

    def said(problem: Problem) -> dict[str, Any]:
        rows = tuple(mp.fit(problem.model, problem.task, problem.recipe, stop=1, name="search", progress=False).rows)
        return {"fresh": True, "epochs": 1, "history": rows, "spent": {"epochs": 3, "evaluations": 1200}}

    one = told(said, 2)
    report = one.report
    assert [(row.epoch, row.phase) for row in report.history] == [(1, "search"), (2, "fine-tuning"), (3, "fine-tuning")]
    assert report.after_cut is report.as_cut is None
    assert report.spent == {"epochs": 3, "evaluations": 1200}
    assert "the search cost 3 epochs and 1,200 evaluations" in report.notes
    assert any("drawn anew" in note for note in report.notes)
    two = told(lambda problem: {"fresh": True, "plan": one.plan, "model": fresh_at_full_width(problem.model)}, 2)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
    assert from_json(to_json(report)) == report


def fresh_at_full_width(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.data.normal_()
    return other


def test_what_cannot_be_drawn_anew_is_named() -> None:
    class Scaled(small.Small):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.full((3,), 2.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.scale

    torch.manual_seed(0)
    method = Saying(lambda problem: {"fresh": True})
    result = mp.prune(
        Scaled(),
        small.EXAMPLE,
        method=method,
        budget=BUDGET,
        task=small.task(),
        recipe=small.recipe(1, warmup=0.0),
        progress=False,
    )
    assert "no module could draw these anew, and they are what they were: scale" in result.report.notes
