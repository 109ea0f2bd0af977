"""A measured search: what is better is tried again, rivals to the end, and nothing twice."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.graph.plan import ratios_of
from metaprune.methods.graph_metanetwork.learning.lessons import trials as tries
from metaprune.methods.graph_metanetwork.learning.lessons.allocations import between
from metaprune.methods.graph_metanetwork.learning.lessons.halving import Rung, Searched, search
from metaprune.methods.graph_metanetwork.learning.lessons.trials import Trial
from metaprune.methods.method import Found, Problem
from metaprune.methods.saliency import group_norms
from metaprune.train.run import TrainError
from tests.methods import small

RUNGS = (Rung(6, (0,)), Rung(3, (1,)), Rung(1, (5, 6)))


@cache
def problem() -> Problem:
    torch.manual_seed(0)
    model = small.Small()
    graph = mp.trace(model, small.EXAMPLE)
    return Problem(model, graph, mp.Budget(macs=0.4, multiple_of=1), small.task(), small.recipe(1))


class Judge:
    """In place of tuning: the wider the axis, the better; and a little luck."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, bool]] = []
        self.fails: Sequence[int] = ()

    def __call__(self, problem: Problem, plan: mp.Plan, number: int, tested: bool) -> dict[str, float | None]:
        self.asked.append((plan.to_json(), number, tested))
        if len(self.asked) in self.fails:
            raise KeyboardInterrupt
        [axis] = [name for name, axis in problem.graph.free.items() if axis.size == 12]
        metric = plan.widths.get(axis, 12) + 0.01 * number
        return {"metric": metric, "test": metric + 1 if tested else None, "seconds": 1.0}


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    found = Judge()
    monkeypatch.setattr(tries, "_tuned", found)
    return found


def searched(out: Path, rungs: Sequence[Rung] = RUNGS) -> Searched:
    heights = group_norms(problem().model, problem().graph)
    allocation = Allocation(problem().graph, problem().budget)
    rivals = {"own": allocation.plan(heights), "uniform": allocation.proportional(heights)}
    return search(problem(), heights, rivals, out, rungs=rungs)


def test_the_best_is_found_and_rivals_stay_to_the_end(judge: Judge, tmp_path: Path) -> None:
    found = searched(tmp_path)
    metrics = {name: trial.metrics for name, trial in found.trials.items()}
    assert len(metrics) == 8
    assert [len(values) for name, values in metrics.items() if name in found.rivals] == [4, 4]
    assert sorted(len(values) for name, values in metrics.items() if name not in found.rivals)[-3:] == [2, 2, 4]
    [best] = found.finalists
    assert metrics[best][0] == max(values[0] for name, values in metrics.items() if name not in found.rivals)
    assert found.trials[best].tests == {5: metrics[best][5] + 1, 6: metrics[best][6] + 1}
    assert found.trials[best].seconds == 4
    assert {number for _, number, tested in judge.asked if tested} == {5, 6}
    assert len(judge.asked) == len(set(judge.asked)) == 8 + 5 + 6


def test_where_there_is_one_rung_all_that_is_tried_is_tested(judge: Judge, tmp_path: Path) -> None:
    """What was there first, and their children: that rung is the last."""
    found = searched(tmp_path, RUNGS[:1])
    assert len(found.trials) == 8
    assert any(name.startswith("child") for name in found.trials)
    assert all(trial.tests == {0: trial.metrics[0] + 1} for trial in found.trials.values())
    assert len(found.finalists) == 6
    assert found.chosen(found.finalists) == max(found.finalists, key=lambda name: found.trials[name].metrics[0])


def test_a_killed_search_goes_on_and_tries_nothing_twice(judge: Judge, tmp_path: Path) -> None:
    judge.fails = (4, 9, 13)
    for _ in judge.fails:
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path)
    found = searched(tmp_path)
    done = len(judge.asked)
    assert done == 8 + 5 + 6 + 3
    assert searched(tmp_path) == found
    assert len(judge.asked) == done


def test_rows_of_another_plan(judge: Judge, tmp_path: Path) -> None:
    plan = Allocation(problem().graph, problem().budget).proportional(group_norms(problem().model, problem().graph))
    tries.measured(problem(), {"one": plan}, [0], tmp_path)
    with pytest.raises(MetapruneError, match="holds another plan"):
        tries.measured(problem(), {"one": mp.Plan({})}, [0], tmp_path)


def test_seeds_may_not_repeat(tmp_path: Path) -> None:
    with pytest.raises(MetapruneError, match="rungs with seeds of their own"):
        search(problem(), {}, {}, tmp_path, rungs=[Rung(3, (0,)), Rung(1, (0,))])


def test_a_trial_cuts_tunes_and_measures(tmp_path: Path) -> None:
    plan = Allocation(problem().graph, problem().budget).proportional(group_norms(problem().model, problem().graph))
    found = tries.measured(problem(), {"one": plan}, [0, 1], tmp_path)["one"]
    again = tries._tuned(problem(), plan, 1, False)
    assert found.metrics[1] == again["metric"]
    assert found.metrics[0] != found.metrics[1]
    assert not found.tests


def test_a_training_that_fails_is_worst(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fit(*arguments: object, **fields: object) -> None:
        raise TrainError("not finite")

    monkeypatch.setattr(Problem, "fit", fit)
    found = tries.measured(problem(), {"all": mp.Plan({})}, [0], tmp_path)["all"]
    assert math.isnan(found.metrics[0])
    assert Searched(0.5, {}, (), RUNGS, True).worth(found.metrics[0]) == -math.inf


def made(values: dict[str, list[float]], rungs: tuple[Rung, ...] = RUNGS, higher: bool = True) -> Searched:
    trials = {name: Trial(name, mp.Plan({}), dict(enumerate(each))) for name, each in values.items()}
    return Searched(0.3, trials, (), rungs, higher)


def test_noise_of_seeds_is_taken_out() -> None:
    found = made({"a": [1.0, 3.0], "b": [4.0, 6.0], "c": [9.0]})
    assert found.noise == pytest.approx(2**0.5)  # two variances of 2
    assert found.spread == pytest.approx((49 / 3 - 2) ** 0.5)  # of 1, 4 and 9: 16 1/3
    assert made({"a": [1.0, 5.0], "b": [1.5, 3.0]}).spread == 0


@pytest.mark.parametrize("higher", [True, False])
def test_what_was_better_counts_more(higher: bool) -> None:
    sign = 1 if higher else -1
    found = made({"a": [sign * 1.0, sign * 1.2], "b": [sign * 4.0, sign * 3.8], "c": [math.nan]}, higher=higher)
    weights = [lesson.weight for lesson in found.lessons()]
    assert weights[0] < weights[1] == 1
    assert len(weights) == 2
    assert [lesson.weight for lesson in found.lessons(0)] == [1, 1]
    [best] = found.lessons(math.inf)
    assert best.share == 0.3
    assert found.chosen(["a", "b"]) == "b"


@dataclass(frozen=True)
class Teacher:
    """Has found a plan."""

    plan: mp.Plan
    asked: list[Path] = field(default_factory=list)

    name: ClassVar[str] = "teacher"
    reference: ClassVar[str] = "none"

    def find(self, problem: Problem) -> Found:
        assert isinstance(problem.checkpoint, Path)
        self.asked.append(problem.checkpoint)
        return Found(self.plan, problem.model, {})


def test_what_teachers_find_is_tried_and_goes_on_where_it_is_good(judge: Judge, tmp_path: Path) -> None:
    """The widest of the axis that counts, and the narrowest; each asked once, and its channels are the ranking's."""
    heights = group_norms(problem().model, problem().graph)
    allocation = Allocation(problem().graph, problem().budget)
    [axis] = [name for name, axis in problem().graph.free.items() if axis.size == 12]
    ways = {word: dict.fromkeys(problem().graph.free, 0.4) | {axis: own} for word, own in (("good", 1.0), ("bad", 0.1))}
    upside_down = {name: -own for name, own in heights.items()}
    teachers = {f"{word}/own": Teacher(allocation.nearest(ratios, upside_down)) for word, ratios in ways.items()}
    rivals = {"own": allocation.plan(heights), "uniform": allocation.proportional(heights)}
    for _ in range(2):
        found = search(problem(), heights, rivals, tmp_path, rungs=RUNGS, teachers=teachers)
    assert [len(teacher.asked) for teacher in teachers.values()] == [1, 1]
    tried = {trial.plan.to_json(): trial for trial in found.trials.values()}
    good, bad = (tried[allocation.nearest(ratios, heights).to_json()] for ratios in ways.values())
    assert len(good.metrics) > len(bad.metrics) == 1
    for teacher in teachers.values():
        half = between(ratios_of(problem().graph, rivals["own"]), ratios_of(problem().graph, teacher.plan))
        assert allocation.nearest(half, heights).to_json() in tried
    assert not [path for path in tmp_path.rglob("*") if path.is_dir()]
    alike = dict(zip(("a b", "a-b"), teachers.values(), strict=True))
    with pytest.raises(MetapruneError, match="expected teachers whose names differ in letters"):
        search(problem(), heights, rivals, tmp_path, rungs=RUNGS, teachers=alike)
