"""Lessons: what a search found is kept, and a metanetwork learns to say it at once."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError, PlanError
from metaprune.methods.graph_metanetwork import Direct, Imitate, Lesson, Metanetwork, grade, teach
from metaprune.methods.graph_metanetwork.learning.goals.data_model import DataModel
from metaprune.methods.graph_metanetwork.learning.goals.objective import add_gradients
from metaprune.methods.graph_metanetwork.learning.lessons import trials
from metaprune.methods.graph_metanetwork.learning.lessons.halving import Rung
from metaprune.methods.method import Found, Problem
from metaprune.methods.saliency import group_norms
from tests.methods import small

SHARES = (0.4, 0.6)


@dataclass(frozen=True)
class Contrary:
    """Keeps what has the smallest norms."""

    asked: list[float] = field(default_factory=list, repr=False)
    breaks_at: float = 0.0

    name: ClassVar[str] = "contrary"
    reference: ClassVar[str] = "none"

    def find(self, problem: Problem) -> Found:
        self.asked.append(problem.budget.value)
        if problem.budget.value == self.breaks_at:
            raise KeyboardInterrupt
        scores = {name: -norms for name, norms in group_norms(problem.model, problem.graph).items()}
        allocation = Allocation(problem.graph, problem.budget)
        return Found(allocation.plan(scores), problem.model, scores)


def taught(
    method: Contrary, out: Path, model: nn.Module | None = None, epochs: int = 2
) -> dict[str, tuple[Lesson, ...]]:
    models = {"small": model or small.network()}
    recipe = small.recipe(epochs)
    return teach(models, small.EXAMPLE, small.task(), method, out=out, shares=SHARES, recipe=recipe, progress=False)


def test_a_killed_run_goes_on_and_nothing_is_searched_for_twice(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        taught(Contrary(breaks_at=0.6), tmp_path)
    method = Contrary()
    with pytest.raises(MetapruneError, match=r"holds another lesson \(its method differ\)"):
        taught(method, tmp_path)
    (tmp_path / "small-0.4" / "lesson.json").unlink()
    first = taught(method, tmp_path)
    again = taught(method, tmp_path)
    assert method.asked == list(SHARES)
    assert first == again
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    for lesson, share in zip(first["small"], SHARES, strict=True):
        assert lesson.share == share
        assert mp.macs(graph, lesson.plan) <= share * mp.macs(graph)


def test_lessons_of_something_else(tmp_path: Path) -> None:
    taught(Contrary(), tmp_path)
    other = small.network()
    with torch.no_grad():
        other.head.bias += 1
    with pytest.raises(MetapruneError, match=r"holds another lesson \(its recipe differ\); name another"):
        taught(Contrary(), tmp_path, epochs=3)
    with pytest.raises(MetapruneError, match=r"holds another lesson \(its network differ\); name another"):
        taught(Contrary(), tmp_path, other)


def lessons() -> tuple[DataModel, tuple[Lesson, ...]]:
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    scores = {name: -norms for name, norms in group_norms(model, graph).items()}
    given = tuple(
        Lesson(share, Allocation(graph, mp.Budget(macs=share, multiple_of=1)).plan(scores)) for share in SHARES
    )
    return DataModel.of("small", model, graph, small.task(), torch.device("cpu"), given), given


def test_the_surprise_by_hand() -> None:
    """Before training: the ranking without scores, against what was kept, axis by axis."""
    data, given = lessons()
    with torch.no_grad():
        edited = Metanetwork(4, 1)(data.read.aimed(0.4))
    [(name, objective)] = Imitate().objectives(data, small.task(), [], 0.4)
    heights = {axis: weighed.log() for axis, weighed in data.ranked(edited).items()}
    middle = torch.cat(list(heights.values())).mean()
    expected = []
    for axis, height in heights.items():
        kept = torch.zeros(len(height))
        kept[list(given[0].plan.kept.get(axis, range(len(height))))] = 1
        expected.append(F.binary_cross_entropy((height - middle).sigmoid().float(), kept))
    assert name == "surprise"
    torch.testing.assert_close(objective(edited), torch.stack(expected).mean())


def test_several_lessons_at_a_budget_count_by_their_weights() -> None:
    """Beside scores that are there; what is dead is no surprise without end; and weights may learn something else."""
    data, (one, other) = lessons()
    told = (Lesson(0.4, one.plan, 3.0), Lesson(0.4, other.plan, 1.0), Lesson(0.6, mp.Plan({})))
    data = replace(data, lessons=told)
    with torch.no_grad():
        edited = Metanetwork(4, 1)(data.read.aimed(0.4))
    weights = {name: weight.clone() for name, weight in edited.weights.items()}
    for name in ("inner.0.weight", "inner.1.weight", "inner.1.bias"):
        weights[name][5] = 0
    weights["back.weight"][:, 5] = 0
    edited = edited._replace(weights=weights, scores=torch.linspace(-1, 1, len(edited.scores)))
    ranked = data.ranked(edited._replace(scores=torch.zeros_like(edited.scores)))
    heights = {axis: weighed.clamp(min=1e-30).log() for axis, weighed in ranked.items()}
    middle = torch.cat(list(heights.values())).mean()
    assert heights["inner.0"][5] < middle - 50
    expected = []
    for axis, height in heights.items():
        kept = torch.zeros(len(height))
        for lesson, share in ((one, 0.75), (other, 0.25)):
            kept[list(lesson.plan.kept.get(axis, range(len(height))))] += share
        said = (height - middle).clamp(-4, 4).float() + edited.scores[data.read.free[axis]]
        expected.append(F.binary_cross_entropy(said.sigmoid(), kept))
    batches = list(small.task().val)[:2]
    alone, both = (list(goal.objectives(data, small.task(), batches, 0.4)) for goal in (Imitate(), Imitate(Direct())))
    torch.testing.assert_close(alone[0][1](edited), torch.stack(expected).mean())
    assert [name for name, _ in alone] == ["surprise"]
    assert [name for name, _ in both] == ["surprise", "loss", "loss", "dense"]
    assert Imitate(Direct()).batch_statistics
    assert not Imitate().batch_statistics


def test_it_learns_what_was_found() -> None:
    """The opposite of what the ranking would be without scores, at both budgets."""
    data, given = lessons()
    torch.manual_seed(0)
    metanetwork = Metanetwork(8, 1)
    optimizer = torch.optim.AdamW(metanetwork.parameters(), lr=3e-2)

    def agreement() -> float:
        same = []
        for lesson in given:
            with torch.no_grad():
                plan = data.plan(data.ranked(metanetwork(data.read.aimed(lesson.share))), lesson.share)
            for name, axis in data.graph.free.items():
                found, kept = (set(each.kept.get(name, range(axis.size))) for each in (plan, lesson.plan))
                same += [(channel in found) == (channel in kept) for channel in range(axis.size)]
        return sum(same) / len(same)

    before = agreement()
    for step in range(40):
        lesson = given[step % 2]
        optimizer.zero_grad()
        objectives = Imitate().objectives(data, small.task(), [], lesson.share)
        add_gradients(metanetwork, data.read.aimed(lesson.share), [objective for _, objective in objectives])
        optimizer.step()
    assert before < 0.75
    assert agreement() > 0.9


def test_without_lessons() -> None:
    model = small.network()
    data = DataModel.of("small", model, mp.trace(model, small.EXAMPLE), small.task(), torch.device("cpu"))
    with pytest.raises(MetapruneError, match="expected lessons for data model 'small', got none"):
        Imitate().share(data, torch.Generator())


def test_a_lesson_of_another_network() -> None:
    model = small.network()
    with pytest.raises(PlanError, match="no axis 'elsewhere'"):
        DataModel.of(
            "small",
            model,
            mp.trace(model, small.EXAMPLE),
            small.task(),
            torch.device("cpu"),
            [Lesson(0.5, mp.Plan({"elsewhere": [0]}))],
        )


def test_no_checkpoint_is_left(tmp_path: Path) -> None:
    teach(
        {"small": small.Small()},
        small.EXAMPLE,
        small.task(),
        mp.DHP(search=1.0),
        out=tmp_path,
        shares=(0.6,),
        recipe=small.recipe(1),
        progress=False,
    )
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lesson.json"]


def graded(method: Contrary, out: Path, model: nn.Module | None = None, epochs: int = 2) -> tuple[Lesson, ...]:
    models, rungs, recipe = {"small": model or small.network()}, (Rung(4, (0,)), Rung(1, (1,))), small.recipe(epochs)
    common = {"shares": SHARES, "recipe": recipe, "rungs": rungs, "progress": False}
    return grade(models, small.EXAMPLE, small.task(), out=out, teachers={"contrary": method}, **common)["small"]


def test_all_that_was_tried_is_told_with_what_it_was_worth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each share, what the teacher found among it; killed, it goes on, and asks nothing twice."""
    asked: list[int] = []

    def tuned(problem: Problem, plan: mp.Plan, number: int, tested: bool) -> dict[str, float | None]:
        asked.append(number)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return {"metric": float(sum(plan.widths.values())) + number, "test": None, "seconds": 1.0}

    monkeypatch.setattr(trials, "_tuned", tuned)
    method = Contrary()
    with pytest.raises(KeyboardInterrupt):
        graded(method, tmp_path)
    lessons = graded(method, tmp_path)
    tries = len(asked)
    assert graded(Contrary(), tmp_path) == lessons
    assert len(asked) == tries
    assert method.asked == list(SHARES)
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    scores = {name: -norms for name, norms in group_norms(model, graph).items()}
    for share in SHARES:
        own = [lesson for lesson in lessons if lesson.share == share]
        assert len(own) > 4
        assert {mp.macs(graph, lesson.plan) <= share * mp.macs(graph) for lesson in own} == {True}
        widths = [lesson.plan.widths for lesson in own]
        assert Allocation(graph, mp.Budget(macs=share, multiple_of=1)).plan(scores).widths in widths
        for lesson in own:
            assert lesson.worth in {sum(lesson.plan.widths.values()) + luck for luck in (0, 0.5)}


def test_graded_lessons_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_tuned", lambda *_: {"metric": 1.0, "test": None, "seconds": 1.0})
    graded(Contrary(), tmp_path)
    with pytest.raises(MetapruneError, match=r"grade: .* holds another lesson \(its recipe differ\); name another"):
        graded(Contrary(), tmp_path, epochs=3)
    with pytest.raises(MetapruneError, match=r"holds another lesson \(its teachers differ\)"):
        graded(Contrary(breaks_at=0.1), tmp_path)
    (tmp_path / "small-0.4" / "search.json").write_text("{}")
    with pytest.raises(MetapruneError, match=r"search\.json"):
        graded(Contrary(), tmp_path)


def test_a_network_without_axes_is_refused_before_anything_is_tuned(tmp_path: Path) -> None:
    with pytest.raises(MetapruneError, match="small"):
        graded(Contrary(), tmp_path, nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))


def test_what_cannot_teach_is_refused_before_anything_is_searched(tmp_path: Path) -> None:
    good: dict[str, Any] = {"models": {"small": small.network()}, "shares": SHARES}
    bad: list[tuple[dict[str, Any], str]] = [
        ({"models": {}}, "expected one network and one share or more, got 0 and 2"),
        ({"shares": ()}, "expected one network and one share or more, got 1 and 0"),
        ({"models": {"it": small.network().requires_grad_(False)}}, "parameters that train in network 'it', got none"),
        ({"method": "dhp"}, r"expected a method as mp.DHP\(\) or the like, got 'dhp'"),
        ({"method": mp.DHP}, r"expected a method as mp.DHP\(\) or the like, got"),
    ]
    for change, said in bad:
        given = {"method": mp.Magnitude(), **good, **change}
        method, args = given.pop("method"), (small.EXAMPLE, small.task())
        models = given.pop("models")
        with pytest.raises(MetapruneError, match="teach: .*" + said):
            teach(models, *args, method, out=tmp_path, **given)
        with pytest.raises(MetapruneError, match="grade: .*" + said):
            grade(models, *args, out=tmp_path, teachers={"it": method}, **given)
    with pytest.raises(MetapruneError, match="grade: expected criterion"):
        grade(good["models"], small.EXAMPLE, small.task(), out=tmp_path, criterion="none")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
