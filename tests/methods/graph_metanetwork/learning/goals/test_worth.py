"""The goal that learns from all that was measured: widths are said that are the peak of what it was worth."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.graph.plan import ratios_of
from metaprune.methods.graph_metanetwork import GraphMetanetwork, Imitate, Lesson, Metanetwork, Worth, meta_train, save
from metaprune.methods.graph_metanetwork.editor.metanetwork import Edited
from metaprune.methods.graph_metanetwork.learning.goals.data_model import DataModel
from metaprune.methods.graph_metanetwork.learning.lessons.halving import ROUGH, Rung, Searched
from metaprune.methods.graph_metanetwork.learning.lessons.lesson import nearest
from metaprune.methods.graph_metanetwork.learning.lessons.trials import Trial
from metaprune.train.run import TrainError
from tests.methods import small

SHARES = (0.4, 0.2)


def searched(share: float, wider: str, seed: int = 0, count: int = 24) -> Searched:
    """Networks are best where one axis is wider by a half than the criterion has it, and the others narrower.

    What costs more matters more: the root of the elasticity.
    """
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    data = DataModel.of("small", model, graph, small.task(), torch.device("cpu"))
    allocation = Allocation(graph, mp.Budget(macs=share, multiple_of=1))
    origin = allocation.plan(data.heights)
    start, grows = ratios_of(graph, origin), allocation.elasticities(origin.widths)
    drawn = torch.Generator().manual_seed(seed)
    trials = {}
    for number in range(count):
        by = dict(zip(start, (0.4 * (number > 0) * torch.randn(len(start), generator=drawn)).tolist(), strict=True))
        ratios = {name: min(1.0, ratio * math.exp(by[name])) for name, ratio in start.items()}
        plan = allocation.nearest(ratios, data.heights)
        got = {name: math.log(ratio / start[name]) for name, ratio in ratios_of(graph, plan).items()}
        metric = 70 - sum(
            math.sqrt(grows[name]) * (away - (0.4 if name == wider else -0.2)) ** 2 for name, away in got.items()
        )
        trials[f"try {number}"] = Trial(f"try {number}", plan, {0: metric})
    return Searched(share, trials, ("try 0",), (Rung(count, (0,)),), higher_is_better=True)


def data_model(wider: str | None = None) -> DataModel:
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    wider = wider or list(graph.free)[-1]
    lessons = [lesson for share in SHARES for lesson in searched(share, wider).graded()]
    return DataModel.of("small", model, graph, small.task(), torch.device("cpu"), lessons)


def said(data: DataModel, **tilts: float) -> Edited:
    """Nothing but widths."""
    told = torch.tensor([tilts.get(name.replace(".", "_"), 0.0) for name in data.read.names], requires_grad=True)
    return Edited({}, torch.zeros(len(data.read.axis)), told)


def objective(data: DataModel, edited: Edited, share: float, **fields: float) -> Tensor:
    [(name, found)] = Worth(**fields).objectives(data, data.task, [], share)
    assert name == "unexplained"
    return found(edited)


def test_the_peak_explains_all_and_what_is_elsewhere_less() -> None:
    """By hand: accuracy falls with the squared distance from it, so that nothing is unexplained there."""
    data = data_model()
    [*others, wider] = [name.replace(".", "_") for name in data.graph.free]
    peak = {wider: 0.4} | dict.fromkeys(others, -0.2)
    for share in SHARES:
        assert objective(data, said(data, **peak), share, short=0.0).item() == pytest.approx(0, abs=1e-5)
        nothing = objective(data, said(data), share, short=0.0).item()
        contrary = objective(data, said(data, **{name: -by for name, by in peak.items()}), share, short=0.0).item()
        assert 0 < nothing < contrary
        short = objective(data, said(data, **peak), share, short=0.5).item()
        square = sum(by**2 for by in peak.values()) / len(peak)
        assert short == pytest.approx(0.5 * square, abs=1e-5)


def test_what_is_surer_counts_more() -> None:
    """A wild measurement that hardly counts changes hardly anything; one that counts does."""
    data = data_model()
    wild = [Lesson(lesson.share, lesson.plan, 0.001, 99.0) for lesson in data.lessons[:1]]
    heavy = [Lesson(lesson.share, lesson.plan, 10.0, 99.0) for lesson in data.lessons[:1]]

    def unexplained(more: list[Lesson]) -> float:
        lessons = (*data.lessons, *more)
        other = DataModel.of("small", data.model, data.graph, data.task, torch.device("cpu"), lessons)
        weights = other.tries[SHARES[0]].weight
        assert float(weights.sum()) == pytest.approx(1)
        return objective(other, said(other), SHARES[0]).item()

    nothing = unexplained([])
    assert abs(unexplained(wild) - nothing) < abs(unexplained(heavy) - nothing)


def test_lessons_are_graded_by_what_was_measured_and_how_surely() -> None:
    found = searched(0.4, "none")
    first, second, third, *_ = found.trials.values()
    trials = {
        "often": Trial("often", first.plan, {0: 60.0, 1: 64.0, 2: 62.0}),
        "once": Trial("once", second.plan, {0: 50.0}),
        "failed": Trial("failed", third.plan, {0: math.nan}),
    }
    loss = Searched(0.4, trials, ("often",), found.rungs, higher_is_better=False)
    often, once = loss.graded()
    assert (often.worth, once.worth) == (-62.0, -50.0)
    assert often.plan == first.plan
    rough = ROUGH * loss.spread**2
    assert often.weight == pytest.approx(1 / (loss.noise**2 / 3 + rough))
    assert once.weight == pytest.approx(1 / (loss.noise**2 + rough))
    assert often.weight > once.weight


def test_shares_between_lessons_are_aimed_at_too_and_learn_from_the_nearest() -> None:
    data, drawn = data_model(), torch.Generator().manual_seed(0)
    aims = [Worth(near=0.5).share(data, drawn) for _ in range(200)]
    assert min(aims) == pytest.approx(0.2 / 2**0.5, rel=0.05)
    assert max(aims) == pytest.approx(0.4 * 2**0.5, rel=0.05)
    assert {Worth(near=0.0).share(data, drawn) for _ in range(20)} == set(SHARES)
    assert nearest(data.lessons, 0.29) == 0.4  # as ratios, 0.28 is in the middle
    assert nearest(data.lessons, 0.27) == 0.2


def test_a_metanetwork_learns_to_say_the_peak(tmp_path: Path) -> None:
    """It has learned where the network that taught it is best, and a network cut with it is wider there."""
    data = data_model()
    *others, wider = data.graph.free
    lessons = {"one": data.lessons, "other": data.lessons}
    torch.manual_seed(0)
    metanetwork = Metanetwork(8, 1, scored="widths", edits=False)
    curve = meta_train(
        metanetwork,
        {"one": small.network()},
        small.EXAMPLE,
        small.task(),
        held_out={"other": small.network()},
        goal=Worth(),
        recipe=mp.Recipe(40, lr=0.02, optimizer="adamw"),
        batches=1,
        every=10,
        lessons=lessons,
        choose_by="lessons",
        progress=False,
    )
    assert curve.best.area < 0.5 * curve.checks[0].area
    tilts = dict(zip(data.read.names, metanetwork(data.read.aimed(0.4)).tilts.tolist(), strict=True))
    assert tilts[wider] > 0.1 > max(tilts[name] for name in others)
    free = [tilts[name] for name in data.graph.free]
    assert max(map(abs, free)) < 1
    save(metanetwork, tmp_path / "metanetwork.safetensors")
    budget = mp.Budget(macs=0.2, multiple_of=1)
    plans = {
        name: mp.plan(small.network(), small.EXAMPLE, method=method, budget=budget, task=small.task())
        for name, method in {
            "with": GraphMetanetwork(str(tmp_path / "metanetwork.safetensors"), trial=0),
            "without": GraphMetanetwork(untaught(tmp_path), trial=0),
        }.items()
    }
    ratios = {name: ratios_of(data.graph, plan) for name, plan in plans.items()}
    assert ratios["with"][wider] > ratios["without"][wider]


def untaught(folder: Path) -> str:
    torch.manual_seed(0)
    save(Metanetwork(8, 1, scored="widths", edits=False), folder / "untaught.safetensors")
    return str(folder / "untaught.safetensors")


def test_what_cannot_teach_is_refused() -> None:
    data, drawn = data_model(), torch.Generator()
    few = DataModel.of("few", data.model, data.graph, data.task, torch.device("cpu"), data.lessons[:3])
    with pytest.raises(MetapruneError, match=r"expected 4 lessons or more of data model 'few' that were measured"):
        Worth().share(few, drawn)
    unmeasured = tuple(Lesson(lesson.share, lesson.plan) for lesson in data.lessons)
    with pytest.raises(MetapruneError, match="got 0; search"):
        Worth().share(DataModel.of("no", data.model, data.graph, data.task, torch.device("cpu"), unmeasured), drawn)
    with pytest.raises(MetapruneError, match="Worth: expected short from 0, got -1"):
        Worth(short=-1)
    for goal, scored in ((Worth(), "both"), (Imitate(), "widths")):
        with pytest.raises(TrainError, match=f"teaches a metanetwork with scored=.*, got '{scored}'"):
            meta_train(
                Metanetwork(4, 1, scored=scored),  # type: ignore[arg-type]
                {"one": small.network()},
                small.EXAMPLE,
                small.task(),
                held_out={"other": small.network()},
                goal=goal,
            )
