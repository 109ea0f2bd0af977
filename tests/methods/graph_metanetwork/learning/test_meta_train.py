"""Meta-training: it lowers its objective, chooses on held-out networks, and goes on after a kill, bit for bit."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.methods.graph_metanetwork import Direct, Imitate, Lesson, Metanetwork, Paper, Subject, load, meta_train
from metaprune.methods.graph_metanetwork.learning import area as areas
from metaprune.methods.graph_metanetwork.learning.area import SHARES, area, tune
from metaprune.methods.graph_metanetwork.learning.curve import Curve
from metaprune.methods.graph_metanetwork.learning.goals.data_model import DataModel
from metaprune.methods.graph_metanetwork.learning.goals.goal import Goal
from metaprune.methods.saliency import group_norms
from metaprune.train import Checkpoint, Recipe, Task
from metaprune.train.task import First
from tests.methods import small
from tests.methods.rough import rough_cut

MODULE = "metaprune.methods.graph_metanetwork.learning.meta_train"


def brief() -> Task:
    """Five batches in a pass, and all that is measured in one."""
    whole = small.task()
    return replace(whole, train=First(whole.train, 5), val=First(whole.val, 1))


LESS = replace(brief(), higher_is_better=False)
"""Here, what was best is not what was last."""


@cache
def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = small.Small()
    mp.fit(model, small.task(), small.recipe(1), progress=False)
    return model


@cache
def traced() -> mp.ChannelGraph:
    """Of any of the networks, whose weights are all that differs."""
    return mp.trace(network(0), small.EXAMPLE)


metrics = partial(areas.metrics, steps=1)
"""Between a cut and a measurement there is one step, fewer than in use."""


def glanced(metanetwork: Metanetwork, data: DataModel, *_: Any) -> list[float]:
    """In place of `metrics`, a number of its own for each metanetwork and network: more, the larger its weights are."""
    size = sum(parameter.detach().abs().sum().item() for parameter in metanetwork.parameters())
    return [size * len(data.name)] * len(SHARES)


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    def trace(model: nn.Module, args: Any, kwargs: Any) -> mp.ChannelGraph:
        return traced() if isinstance(model, small.Small) else mp.trace(model, args, kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[MODULE], "metrics", glanced)
        patch.setattr(sys.modules[MODULE], "trace", trace)
        yield


def recipe(epochs: int = 3, **fields: Any) -> Recipe:
    settings = {"lr": 0.01, "optimizer": "adamw", "device": "cpu", "precision": "32-true"} | fields
    return Recipe(epochs, **settings)


def fresh() -> Metanetwork:
    torch.manual_seed(0)
    return Metanetwork(hidden=4, layers=1, step=0.3)


def train(metanetwork: Metanetwork, task: Task | None = None, **fields: Any) -> Any:
    arguments = {
        "models": {"first": network(0), "second": network(1)},
        "held_out": {"third": network(2)},
        "recipe": recipe(),
        "batches": 2,
        "progress": False,
    } | fields
    return meta_train(metanetwork, args=small.EXAMPLE, task=task or brief(), **arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Curve]:
    """The folder of a training of one epoch, and what was seen."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(fresh(), goal=Paper(strength=0.5), recipe=recipe(1), out=folder)


@pytest.mark.parametrize(
    ("goal", "part", "epochs"),
    [
        (Paper(strength=5.0), "penalty", 5),
        pytest.param(Paper(0.1, relative=False), "penalty", 5, marks=pytest.mark.slow),
        pytest.param(Direct(low=0.4, high=0.4), "loss", 15, marks=pytest.mark.slow),
    ],
)
def test_it_lowers_the_objective(goal: Goal, part: str, epochs: int) -> None:
    """The part that the goal is there for, and the sum: the last two epochs against the first two, on all data."""
    before = {name: tensor.clone() for name, tensor in network(0).state_dict().items()}
    torch.manual_seed(0)
    metanetwork = Metanetwork(hidden=8, layers=1, step=0.5)
    data = mp.Classification(DataLoader(small.pictures(96, 1), batch_size=32, shuffle=True), small.task().val)
    curve = train(metanetwork, data, goal=goal, recipe=recipe(epochs, lr=0.03, schedule="constant"), every=5, batches=3)
    totals = [sum(step.parts.values()) for step in curve.steps]
    parts = [step.parts[part] for step in curve.steps]
    assert len(totals) == 2 * epochs
    assert sum(totals[-4:]) < 0.9 * sum(totals[:4])
    assert sum(parts[-4:]) < 0.9 * sum(parts[:4])
    assert all(torch.equal(tensor, before[name]) for name, tensor in network(0).state_dict().items())


def test_relative_penalties_start_at_the_strength(finished: tuple[Path, Curve]) -> None:
    _, curve = finished
    assert curve.steps[0].parts["penalty"] == pytest.approx(0.5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_steps_are_of_the_optimizer_that_was_asked_for_and_clipped(
    optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of plain descent is as long as the clipped gradient; of AdamW, each number moves by the rate."""
    looks = iter((1.0, 2.0))
    monkeypatch.setattr(sys.modules[MODULE], "metrics", lambda *_: [next(looks)] * len(SHARES))
    metanetwork = fresh()
    before = torch.cat([p.detach().flatten() for p in metanetwork.parameters()])
    asked = recipe(1, optimizer=optimizer, lr=0.5, momentum=0.0, weight_decay=0.0, clip_norm=0.01, schedule="constant")
    curve = train(metanetwork, models={"first": network(0)}, recipe=asked, batches=1)
    moved = torch.cat([p.detach().flatten() for p in metanetwork.parameters()]) - before
    assert curve.chosen == 1
    if optimizer == "sgd":
        assert float(moved.norm()) == pytest.approx(0.5 * 0.01, rel=1e-3)
    else:
        assert float(moved.abs().max()) == pytest.approx(0.5, rel=1e-3)


def test_it_takes_what_prunes_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where steps are so long that the first helps, and the second does not."""
    monkeypatch.setattr(sys.modules[MODULE], "metrics", metrics)
    metanetwork, steep = fresh(), recipe(2, lr=0.1, schedule="constant")
    curve = train(metanetwork, goal=Direct(), recipe=steep, out=tmp_path)
    assert [check.step for check in curve.checks] == [0, 2, 4]
    assert curve.best.area == max(check.area for check in curve.checks)
    held = DataModel.of("third", network(2), traced(), brief(), torch.device("cpu"))
    again = metrics(load(tmp_path / "metanetwork.safetensors"), held, brief(), recipe())
    assert area(again) == pytest.approx(curve.best.area)
    assert tuple(again) == curve.best.metrics["third"]
    assert area(metrics(metanetwork, held, brief(), recipe())) == pytest.approx(curve.best.area)


def test_a_lower_metric_may_be_better() -> None:
    curve = train(fresh(), task=LESS, goal=Direct(), recipe=recipe(2))
    assert curve.best.area == min(check.area for check in curve.checks)


def test_what_the_area_measures_is_what_a_cut_gives() -> None:
    """At each share: the network cut by the same ranking, tuned by the same steps, on all validation data."""
    model, task, shares, steps = network(2), small.task(), SHARES[1:3], 6
    graph = traced()
    data = DataModel.of("third", model, graph, task, torch.device("cpu"))
    ranked = {name: norms * data.evidence[name].sqrt() for name, norms in group_norms(model, graph).items()}
    for share, found in zip(shares, metrics(fresh(), data, task, recipe(), shares=shares, steps=steps), strict=True):
        cut = rough_cut(model, graph, data.plan(ranked, share))
        tune(cut, task, steps)
        mp.recalibrate(cut, task.train, task.inputs, 8)
        assert found == pytest.approx(mp.evaluate(cut, task.val, task, recipe()))


def test_areas_by_hand() -> None:
    assert area([10, 20, 40], [0.2, 0.4, 0.8]) == pytest.approx((0.2 * 15 + 0.4 * 30) / 0.6)
    with pytest.raises(MetapruneError, match="two or more ascending shares"):
        area([1, 2], [0.5, 0.5])


class Killed(BaseException):
    pass


def dies_at(batch: int, **arguments: Any) -> None:
    """A training that dies of so many batches that its steps ask about."""
    goals = [sys.modules[f"metaprune.methods.graph_metanetwork.learning.goals.{name}"] for name in ("paper", "direct")]
    asked, left = goals[0].task_loss, iter(range(batch))

    def task_loss(*of: Any) -> Any:
        if next(left, None) is None:
            raise Killed
        return asked(*of)

    with pytest.MonkeyPatch.context() as patch:
        for module in goals:
            patch.setattr(module, "task_loss", task_loss)
        with pytest.raises(Killed):
            train(fresh(), **arguments)


@pytest.mark.parametrize(
    ("goal", "batch"),
    [(Paper(), 7), pytest.param(Direct(dense=0.0), 3, marks=pytest.mark.slow)],
    ids=["paper, in the second pass", "direct, in the first"],
)
def test_a_kill_changes_nothing(goal: Goal, batch: int, tmp_path: Path, whole: Callable[[Goal], Any]) -> None:
    """With a checkpoint after each step; of five batches in a pass, each of the four steps takes two."""
    arguments = {"goal": goal, "recipe": recipe(2), "task": LESS}
    places = {"out": tmp_path, "checkpoint": Checkpoint(tmp_path / "state", seconds=0)}
    dies_at(batch, **arguments, **places)
    resumed = fresh()
    curve = train(resumed, **arguments, **places)
    weights, expected = whole(goal)
    assert curve.tree() == expected
    assert all(torch.equal(tensor, weights[name]) for name, tensor in resumed.state_dict().items())


@pytest.fixture(scope="module")
def whole() -> Callable[[Goal], Any]:
    @cache
    def trained(goal: Goal) -> Any:
        metanetwork = fresh()
        curve = train(metanetwork, goal=goal, recipe=recipe(2), task=LESS)
        return metanetwork.state_dict(), curve.tree()

    return trained


def test_a_kill_between_two_checkpoints(tmp_path: Path, whole: Callable[[Goal], Any]) -> None:
    """Those at the end of an epoch only: a step is taken again, with the same batches of both passes."""
    arguments = {"goal": Paper(), "recipe": recipe(2), "task": LESS, "out": tmp_path}
    dies_at(7, **arguments)
    assert train(fresh(), **arguments).tree() == whole(Paper())[1]


class Drawings(HTMLParser):
    found = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found += tag == "polyline"
        assert tag != "script"
        assert not {"src", "href"} & {name for name, _ in attrs}


def test_the_curve_is_on_disk(finished: tuple[Path, Curve]) -> None:
    folder, curve = finished
    assert json.loads((folder / "curve.json").read_text()) == json.loads(json.dumps(curve.tree()))
    page = Drawings()
    page.feed((folder / "curve.html").read_text())
    assert page.found == 3  # loss, penalty and area


def frozen() -> nn.Module:
    return small.Small().requires_grad_(False)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"models": {}}, "one network or more in models"),
        ({"held_out": {}}, "one network or more in held_out"),
        ({"held_out": {"first": network}}, "'first' in both"),
        ({"batches": 0}, "batches from 1"),
        ({"every": 0}, "every from 1"),
        ({"criterion": "taste"}, "criterion 'blend' or 'magnitude' or 'importance'"),
        ({"recipe": recipe(precision="bf16-mixed")}, "precision"),
        ({"recipe": recipe(device="toaster")}, "toaster"),
    ],
)
def test_what_it_refuses(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(MetapruneError, match=said):
        train(fresh(), **fields)


def test_networks_that_teach_nothing() -> None:
    with pytest.raises(MetapruneError, match="parameters that train in data model 'ice'"):
        train(fresh(), models={"ice": frozen()})
    with pytest.raises(MetapruneError, match="axes that can be cut in data model 'one'"):
        train(fresh(), models={"one": nn.Sequential(nn.Flatten(), nn.Linear(64, 3))})


def test_an_objective_that_is_not_finite() -> None:
    task = replace(brief(), loss=lambda output, batch: output.sum() * float("nan"))
    with pytest.raises(MetapruneError, match=r"objective of '\w+' is nan at step 1"):
        train(fresh(), task=task)


def test_the_folder_of_another_training(finished: tuple[Path, Curve]) -> None:
    folder, _ = finished
    with pytest.raises(MetapruneError, match="its goal, models differ"):
        train(fresh(), recipe=recipe(1), out=folder, goal=Direct(), models={"first": network(1)})


def test_what_makes_it_another_training() -> None:
    """Each of these alone, by its name; where it is computed is none of them."""
    module = sys.modules[MODULE]
    task, cpu = brief(), torch.device("cpu")
    data = [DataModel.of("", network(seed), traced(), task, cpu) for seed in (0, 1)]
    shorter = replace(task, train=list(task.train)[:4])

    def identity(
        batches: int = 3,
        every: int = 1,
        goal: Goal = Paper(),  # noqa: B008
        hidden: int = 4,
        by: tuple[str, str] = ("blend", "area"),
        learned: int = 0,
        chosen: int = 1,
        told: tuple[Lesson, ...] = (),
        given: Task = task,
        **fields: Any,
    ) -> dict[str, Any]:
        training = module._Training(Metanetwork(hidden, 1), goal, recipe(**fields), batches, every, *by, None)
        training.models = [replace(data[learned], name="one", lessons=told)]
        training.held_out = [replace(data[chosen], name="other")]
        training.streams = [(given, None)]
        found: dict[str, Any] = training.identity
        return found

    plain = identity()
    assert identity() == identity(device="meta") == plain
    changes: list[tuple[str, dict[str, Any]]] = [
        ("batches", {"batches": 4}),
        ("batches", {"given": shorter}),
        ("every", {"every": 2}),
        ("goal", {"goal": Paper(0.5)}),
        ("metanetwork", {"hidden": 6}),
        ("criterion", {"by": ("magnitude", "area")}),
        ("choose_by", {"by": ("blend", "lessons")}),
        ("models", {"learned": 1}),
        ("held_out", {"chosen": 0}),
        ("lessons", {"told": (Lesson(0.5, mp.Plan({})),)}),
        ("recipe", {"lr": 0.02}),
        ("recipe", {"seed": 1}),
    ]
    for name, change in changes:
        other = identity(**change)
        assert [key for key in plain if plain[key] != other[key]] == [name]
    others = (Lesson(0.5, mp.Plan({})), Lesson(0.3, mp.Plan({})), Lesson(0.5, mp.Plan({}), 0.5))
    assert len({str(identity(told=(lesson,))["lessons"]) for lesson in others}) == 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Paper(strength=-1), "strength from 0"),
        (lambda: Direct(low=0.5, high=0.4), "low <= high"),
        (lambda: Direct(dense=-1), "dense from 0"),
    ],
)
def test_goals_that_are_none(make: Callable[[], Goal], said: str) -> None:
    with pytest.raises(MetapruneError, match=said):
        make()


def of_its_own(seed: int) -> Subject:
    """A network with a task of its own, whose metric is better where it is less."""
    task = replace(brief(), metric_name="error", higher_is_better=False, metric=lambda out, batch: (0.0, 1))
    return Subject(network(seed), small.EXAMPLE, task, points=2.0)


def test_networks_of_several_tasks() -> None:
    """Each learns from its own batches, and areas count in points, more being better."""
    metanetwork = fresh()
    curve = train(
        metanetwork,
        models={"first": network(0), "second": of_its_own(1)},
        held_out={"third": network(2), "fourth": of_its_own(2)},
        goal=Direct(),
        recipe=recipe(1),
        batches=1,
    )
    assert [step.model for step in curve.steps].count("second") == 1
    assert curve.metric_name == "accuracy (%) and error"
    check = curve.checks[0]
    assert check.area == pytest.approx((area(check.metrics["third"]) - 2 * area(check.metrics["fourth"])) / 2)
    with pytest.raises(MetapruneError, match="expected args and a task for 'first', got none"):
        meta_train(fresh(), {"first": network(0)}, held_out={"other": of_its_own(1)})


def test_lessons_choose_at_once() -> None:
    """Those of the held-out network, which surprise less and less."""
    graph = traced()
    allocation = Allocation(graph, mp.Budget(macs=0.5, multiple_of=1))
    scores = {name: -norms for name, norms in group_norms(network(0), graph).items()}
    told = (Lesson(0.5, allocation.plan(scores)), Lesson(0.5, allocation.proportional(scores), 0.5))
    fields: dict[str, Any] = {
        "models": {"first": network(0)},
        "held_out": {"third": network(2)},
        "goal": Imitate(),
        "choose_by": "lessons",
        "recipe": recipe(6),
        "every": 2,
    }
    curve = train(fresh(), lessons={"first": told, "third": told}, **fields)
    assert curve.metric_name == "surprise"
    assert [len(check.metrics["third"]) for check in curve.checks] == [1] * 4
    assert curve.best.area == min(check.area for check in curve.checks) < curve.checks[0].area
    with pytest.raises(MetapruneError, match="expected lessons for data model 'third', got none"):
        train(fresh(), lessons={"first": told}, **fields)
