"""The whole pipeline: what goes in is left alone, what comes out fits, is plain and can be reproduced."""

import base64
import copy
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

import metaprune as mp
from metaprune.cost import clock as clocks
from metaprune.cost.budget import Allocation
from metaprune.cost.latency import Latency, latencies
from metaprune.graph.errors import BudgetError, MetapruneError, TraceError
from metaprune.graph.limits import limited
from metaprune.methods.method import Found, Method, Problem
from metaprune.report import words
from metaprune.report.page import render
from metaprune.report.report import from_json, to_json
from metaprune.session import measuring
from metaprune.session.in_time import OVER, within
from metaprune.surgery.slice import carve
from metaprune.timing import timed as timed_budget
from metaprune.train.tasks.restoration import bicubic
from tests.laws import oracle
from tests.methods import small

METHODS = (mp.Magnitude(), mp.Uniform(), mp.Random(), mp.DHP(), mp.DHP(form="hypernetwork"), mp.Transportation())
BUDGET = mp.Budget(macs=0.5, multiple_of=4)
slow = pytest.mark.slow  # other pairs of what the quick ones show one by one
methods = pytest.mark.parametrize("method", METHODS, ids=lambda method: getattr(method, "form", method.name))


@cache
def dense() -> nn.Module:
    return small.network()


def prune(model: nn.Module | None = None, **fields: Any) -> mp.Result:
    given: dict[str, Any] = {
        "method": mp.Magnitude(),
        "budget": BUDGET,
        "task": small.task(),
        "recipe": small.recipe(2),
        "progress": False,
    }
    return mp.prune(dense() if model is None else model, small.EXAMPLE, **(given | fields))


@cache
def graph() -> mp.ChannelGraph:
    return mp.trace(dense(), small.EXAMPLE)


def found(method: Method, recipe: mp.Recipe, budget: mp.Budget, limits: mp.Limits | None = None) -> Found:
    """What a method finds, before anything is cut."""
    return method.find(Problem(dense(), limited(graph(), limits), budget, small.task(), recipe, progress=False))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


@cache
def given() -> nn.Module:
    """The same network, part of which is evaluated."""
    model = copy.deepcopy(dense()).train()
    model.get_submodule("norm").eval()
    return model


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Method], tuple[mp.Result, Path]]:
    """What a method made of it, and the folder of the run, once: both stay as they are."""

    @cache
    def run(method: Method) -> tuple[mp.Result, Path]:
        before = oracle.fingerprint(given())
        folder = tmp_path_factory.mktemp("finished")
        result = prune(given(), method=method, out=folder)
        assert oracle.fingerprint(given()) == before
        return result, folder

    return run


@methods
def test_from_a_network_to_a_smaller_one(method: Method, finished: Callable[[Method], tuple[mp.Result, Path]]) -> None:
    model, (result, _) = given(), finished(method)

    report, cut = result.report, result.model
    allocation = Allocation(result.graph, BUDGET)
    assert mp.macs(result.graph, result.plan) <= allocation.limit
    assert report.pruned.macs == mp.macs(result.graph, result.plan) == oracle.counted_macs(cut, small.EXAMPLE, {})
    assert report.pruned.params == mp.params(result.graph, result.plan) == oracle.counted_params(cut)
    assert report.dense.macs == mp.macs(result.graph)
    for figures, network in ((report.dense, model), (report.pruned, cut)):
        assert figures.bytes == sum(tensor.nbytes for tensor in network.state_dict().values())
    assert {path: module.training for path, module in cut.named_modules()} == {
        path: module.training for path, module in model.named_modules()
    }
    assert all(parameter.grad is None for parameter in cut.parameters())

    tuned = mp.evaluate(cut, small.task().val, small.task(), small.recipe(2))
    assert report.split == "val"
    assert report.pruned.metric == pytest.approx(tuned)
    assert tuned > 60
    assert (
        report.dense.metric
        == report.dense_val
        == pytest.approx(mp.evaluate(model, small.task().val, small.task(), small.recipe(2)))
    )
    if isinstance(method, mp.DHP):
        assert report.before_cut == pytest.approx(report.after_cut)  # the cut costs nothing
    assert [epoch.epoch for epoch in report.history] == [1, 2]
    assert report.history[-1].metric == pytest.approx(tuned)
    check_report(result)


def check_report(result: mp.Result) -> None:
    report = result.report
    assert from_json(to_json(report)) == report
    page = render(report)
    assert "<html" in page
    assert report.method in page
    widths = {row.name: row.after for row in report.axes}
    assert {name: widths[name] for name in result.plan} == result.plan.widths
    for row in report.axes:
        assert len(row.kept) == row.after <= row.before
        assert 0 <= row.macs_share <= 1
        assert row.fixed is None or row.after == row.before
    assert sum(layer.macs_before for layer in report.layers) == report.dense.macs
    assert sum(layer.macs_after for layer in report.layers) == report.pruned.macs
    assert report.alignment is not None
    assert report.alignment.macs_unaligned <= Allocation(result.graph, BUDGET).limit
    assert report.environment["torch"] == torch.__version__


@methods
def test_what_comes_out_is_plain(method: Method, finished: Callable[[Method], tuple[mp.Result, Path]]) -> None:
    cut = finished(method)[0].model
    assert type(cut) is small.Small
    for path, module in cut.named_modules():
        assert type(module) is type(dense().get_submodule(path))
        assert not type(module).__module__.startswith("metaprune")
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not torch.nn.utils.parametrize.is_parametrized(module)
        for child in vars(module).values():
            assert not type(child).__module__.startswith("metaprune")
    assert set(cut.state_dict()) == set(dense().state_dict())
    assert all(p.is_leaf and p.requires_grad and p.dtype == torch.float32 for p in cut.parameters())


@pytest.mark.parametrize("method", [mp.Magnitude(), mp.DHP()], ids=lambda method: method.name)
def test_the_same_call_gives_the_same_weights(
    method: Method, finished: Callable[[Method], tuple[mp.Result, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever random numbers the caller draws in between, and without a folder; and those are left alone."""
    one, _ = finished(method)
    monkeypatch.setattr("metaprune.session.cutting.carve", carve)  # which remembers nothing
    torch.manual_seed(5)
    torch.rand(11)
    state = torch.get_rng_state()
    two = prune(given(), method=method)
    assert torch.equal(torch.get_rng_state(), state)
    assert one.plan == two.plan
    assert same(one.model, two.model)


def test_the_test_split_is_reported_where_there_is_one() -> None:
    task = replace(small.task(), test=DataLoader(small.pictures(30, 3), batch_size=30))
    result = prune(task=task, recipe=small.recipe(1))
    report = result.report
    assert report.split == "test"
    assert report.dense.metric == pytest.approx(mp.evaluate(dense(), task.test, task, small.recipe(1)))  # type: ignore[arg-type]
    assert report.dense_val == pytest.approx(mp.evaluate(dense(), task.val, task, small.recipe(1)))
    assert report.pruned.metric == pytest.approx(mp.evaluate(result.model, task.test, task, small.recipe(1)))  # type: ignore[arg-type]
    assert report.pruned.metric != mp.evaluate(result.model, task.val, task, small.recipe(1))


def test_nothing_to_cut_is_no_error() -> None:
    result = prune(budget=mp.Budget(macs=1.0), recipe=small.recipe(1))
    assert result.plan.kept == {}
    assert result.report.pruned.params == result.report.dense.params


def test_frozen_weights_stay_frozen() -> None:
    model = copy.deepcopy(dense())
    model.get_parameter("head.weight").requires_grad_(False)
    for method in (mp.Magnitude(), mp.DHP()):
        result = prune(model, method=method, recipe=small.recipe(1))
        assert [n for n, p in result.model.named_parameters() if not p.requires_grad] == ["head.weight"]
        if not isinstance(method, mp.DHP):  # whose gates learn, and with them what they are folded into
            kept = list(result.plan.kept["wide.0"])
            assert torch.equal(result.model.get_parameter("head.weight"), model.get_parameter("head.weight")[:, kept])


# Latency: measured times are made up, so that they say what the test means.


@pytest.fixture
def no_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock whose operators cannot be measured one by one: its form is fitted to whole networks."""
    monkeypatch.setattr(clocks.Clock, "has_tables", False)


def timed(ms: Callable[[int], float]) -> Callable[..., dict[str, Latency]]:
    """A clock that reads the time off the number of parameters."""

    def read(networks: dict[str, nn.Module], *_: Any, **__: Any) -> dict[str, Latency]:
        params = {name: oracle.counted_params(model) for name, model in networks.items()}
        return {name: Latency(ms(count), 0.0, 1, 2, "cpu", "32-true", 1) for name, count in params.items()}

    return read


def tells(monkeypatch: pytest.MonkeyPatch, read: Callable[..., dict[str, Latency]]) -> None:
    """Time is what a function says, before and at the end."""

    def ratio(network: nn.Module, other: nn.Module, *_: Any, **__: Any) -> float:
        found = read({"found": network, "dense": other})
        return found["found"].median_ms / found["dense"].median_ms

    for room in (clocks, measuring):
        monkeypatch.setattr(room, "latencies", read)
    monkeypatch.setattr(clocks, "ratio", ratio)


@pytest.mark.usefixtures("no_tables")
@pytest.mark.parametrize(
    ("method", "speed"),
    [
        (mp.Magnitude(), 1.6),
        (mp.DHP(), None),
        (mp.Uniform(), 1.6),
        *(pytest.param(*each, marks=slow) for each in ((mp.Magnitude(), None), (mp.DHP(), 1.6), (mp.Uniform(), None))),
    ],
    ids=lambda each: getattr(each, "name", None),
)
def test_a_time_is_met(method: Method, speed: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever decides: in milliseconds, and against the dense network."""
    tells(monkeypatch, timed(lambda params: params / 1000))
    whole = oracle.counted_params(dense()) / 1000
    budget = mp.Budget(latency=whole / 1.6, multiple_of=1) if speed is None else mp.Budget(speedup=1.6, multiple_of=1)
    report = prune(method=method, budget=budget, recipe=small.recipe(2)).report
    assert report.pruned.latency is not None
    assert 0.85 * whole / 1.6 < report.pruned.latency.median_ms <= whole / 1.6 * OVER
    assert report.dense.latency == Latency(whole, 0.0, 1, 2, "cpu", "32-true", 1)
    assert report.latency_bound == pytest.approx(whole / 1.6)
    assert any("measuring cut networks" in note for note in report.notes)


@pytest.mark.usefixtures("no_tables")
def test_a_time_falls_from_step_to_step(monkeypatch: pytest.MonkeyPatch) -> None:
    tells(monkeypatch, timed(lambda params: params / 1000))
    asked: list[mp.Budget] = []

    class Asked(mp.Magnitude):
        def find(self, problem: Any) -> Any:
            asked.append(problem.budget)
            return super().find(problem)

    whole = oracle.counted_params(dense()) / 1000
    report = prune(method=Asked(), budget=mp.Budget(speedup=1.6, multiple_of=1), steps=2).report
    assert [each.speedup for each in asked[:2]] == [None, None]
    assert [each.latency for each in asked[:2]] == pytest.approx([whole / 1.6**0.5, whole / 1.6], rel=0.02)
    assert report.pruned.latency is not None
    assert report.pruned.latency.median_ms <= whole / 1.6 * OVER


@pytest.mark.usefixtures("no_tables")
def test_a_time_and_other_bounds_hold_together(monkeypatch: pytest.MonkeyPatch) -> None:
    tells(monkeypatch, timed(lambda params: params / 1000))
    whole = oracle.counted_params(dense()) / 1000
    for macs, latency in ((0.5, 0.9 * whole), (0.9, 0.6 * whole)):
        report = prune(budget=mp.Budget(macs=macs, latency=latency, multiple_of=1), recipe=small.recipe(1)).report
        assert report.pruned.latency is not None
        assert report.pruned.macs <= macs * report.dense.macs
        assert report.pruned.latency.median_ms <= latency * OVER


@pytest.mark.usefixtures("no_tables")
def test_a_result_that_is_slower_than_foretold_is_cut_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine takes its time with a method's network: it is decided again before it is fine-tuned."""
    made, decided = timed(lambda params: params / 1000), []

    def slower(networks: dict[str, nn.Module], *rest: Any, **settings: Any) -> dict[str, Latency]:
        found = made(networks, *rest, **settings)
        return {
            n: replace(t, median_ms=t.median_ms * (1.2 if decided and n != "dense" else 1)) for n, t in found.items()
        }

    def measured(*given: Any) -> Any:
        decided.append(1)
        return within(*given)

    tells(monkeypatch, slower)
    monkeypatch.setattr("metaprune.session.pruning.within", measured)
    whole = oracle.counted_params(dense()) / 1000
    report = prune(budget=mp.Budget(speedup=1.5, multiple_of=1), recipe=small.recipe(1)).report
    assert report.pruned.params / 1000 * 1.2 <= whole / 1.5 * OVER


@pytest.mark.usefixtures("no_tables")
def test_a_latency_that_holds_already_cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tells(monkeypatch, timed(lambda params: params / 1000))
    result = prune(budget=mp.Budget(latency=1000.0), recipe=small.recipe(1))
    assert result.plan.kept == {}


@pytest.mark.usefixtures("no_tables")
def test_an_impossible_time_names_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    tells(monkeypatch, timed(lambda params: 20 + params / 1e6))
    trained = []
    monkeypatch.setattr("metaprune.session.pruning.rehearse", lambda *_: trained.append(1))
    for budget, said in (
        (mp.Budget(latency=0.5), r"0\.5 ms cannot be met; the smallest network takes 20 ms"),
        (mp.Budget(speedup=3), r"3 times the speed cannot be met; .* the dense one 20 ms .*, 1 times the speed; ask"),
    ):
        with pytest.raises(BudgetError, match=said) as caught:
            prune(budget=budget)
        assert "\n" not in str(caught.value)
    assert trained == []


@pytest.mark.usefixtures("no_tables")
def test_a_latency_that_only_the_smallest_network_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(5, 40), nn.Linear(40, 7))
    graph = mp.trace(model, (torch.zeros(2, 5),))
    smallest = mp.params(graph, mp.Plan({"0": range(4)}))
    tells(monkeypatch, timed(lambda params: 1.0 if params <= smallest else 9.0))
    found = timed_budget(model, graph, mp.Budget(latency=1.0, multiple_of=1), mp.Clock())
    assert found.anchors[0].ms == 9.0
    plan = Allocation(graph, found.budget).plan({"0": torch.arange(40.0)})
    assert plan.widths == {"0": 4}


@pytest.mark.usefixtures("no_tables")
def test_a_latency_that_is_missed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan was made by a clock that had gone slower by the end."""
    monkeypatch.setattr("metaprune.session.pruning.within", lambda time, found, *_: (found, time))
    monkeypatch.setattr(
        "metaprune.session.pruning.in_turns_or_why", lambda networks, *_: (dict.fromkeys(networks, late), "")
    )
    tells(monkeypatch, timed(lambda params: 1.0))
    late = Latency(1.7, 0.0, 1, 2, "cpu", "32-true", 1)
    report = prune(budget=mp.Budget(latency=1.5), recipe=small.recipe(1)).report
    assert report.latency_bound == 1.5
    assert "".join(clause.text for clause in words.headline(report)).endswith("1.5 ms is missed: 1.700 ms measured.")
    late = replace(late, median_ms=1.4)
    assert words.missed(prune(budget=mp.Budget(latency=1.5), recipe=small.recipe(1)).report) is None


@pytest.mark.usefixtures("no_tables")
@pytest.mark.parametrize("method", [mp.Magnitude(), mp.DHP()], ids=lambda method: method.name)
def test_a_run_in_time_goes_on_without_measuring_again(
    method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tells(monkeypatch, timed(lambda params: params / 1000))
    budget = mp.Budget(speedup=1.5, multiple_of=1)
    one = prune(method=method, budget=budget, recipe=small.recipe(1), out=tmp_path / "run")
    tells(monkeypatch, timed(lambda params: 1 + 3 * params / 1000))  # another machine's day
    two = prune(method=method, budget=budget, recipe=small.recipe(1), out=tmp_path / "run")
    assert two.plan == one.plan
    assert same(one.model, two.model)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_times_are_those_of_what_load_gives_back(
    layout: torch.memory_format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dense, pruned and unaligned take turns, in the layout of a loaded network, whatever the recipe trains with."""
    asked = []

    def spy(networks: dict[str, nn.Module], *args: Any, **kwargs: Any) -> dict[str, Latency]:
        asked.append(list(networks))
        return latencies(networks, *args, **kwargs, seconds=0.001)

    monkeypatch.setattr(measuring, "latencies", spy)
    model = copy.deepcopy(dense()).to(memory_format=layout)
    result = prune(model, recipe=small.recipe(1, channels_last=layout == torch.channels_last))
    result.save(tmp_path)
    loaded = mp.load(tmp_path, model)
    assert asked == [["dense", "pruned", "rough"]]
    assert all(tensor.is_contiguous() for tensor in loaded.state_dict().values())
    alone = latencies({"": loaded}, small.EXAMPLE, seconds=0.001)[""]
    report = from_json((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report.alignment is not None
    for time in (report.dense.latency, report.pruned.latency, report.alignment.latency_unaligned):
        assert time is not None
        assert not time.channels_last
        assert replace(time, median_ms=alone.median_ms, iqr_ms=alone.iqr_ms, runs=alone.runs) == alone


def test_a_real_clock() -> None:
    result = prune(budget=mp.Budget(latency=500.0), recipe=small.recipe(1))
    assert result.report.dense.latency is not None
    assert result.report.dense.latency.median_ms > 0


# Folders of runs.


@pytest.mark.parametrize("method", [mp.Magnitude(), mp.DHP()], ids=lambda method: method.name)
def test_a_finished_run_comes_back_with_the_same_weights(
    method: Method, finished: Callable[[Method], tuple[mp.Result, Path]], tmp_path: Path
) -> None:
    one, folder = finished(method)
    shutil.copytree(folder, tmp_path / "run")
    torch.rand(3)
    two = prune(given(), method=method, out=tmp_path / "run")
    assert two.plan == one.plan
    assert same(one.model, two.model)
    assert two.report.history == one.report.history


@pytest.mark.parametrize(
    "change",
    [
        {"method": mp.Uniform()},
        {"method": mp.Random(seed=1)},
        {"budget": mp.Budget(macs=0.4, multiple_of=4)},
        {"recipe": small.recipe(2, seed=1)},
        {"model": small.Small()},
    ],
    ids=str,
)
def test_a_folder_belongs_to_one_run(
    change: dict[str, Any], finished: Callable[[Method], tuple[mp.Result, Path]], tmp_path: Path
) -> None:
    shutil.copytree(finished(mp.Magnitude())[1], tmp_path, dirs_exist_ok=True)
    held = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(MetapruneError, match="holds another run") as caught:
        prune(**{"model": given(), "out": tmp_path, **change})
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == held


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "{}", "\xff"])
def test_a_folder_with_something_else_in_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(MetapruneError, match=r"name (one|another)") as caught:
        prune(out=tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "run.json").read_bytes() == text.encode("latin-1")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(MetapruneError, match="written") as caught:
            prune(out=folder)
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# Bad input: one clear line, and the given model as it was.


class Loss:
    """Made anew for each test: one that turns to something else after some steps."""

    def __init__(self, value: float, after: int = 0) -> None:
        self.value, self.left = value, after

    def __call__(self, output: Tensor, batch: Any) -> Tensor:
        self.left -= 1
        loss = nn.functional.cross_entropy(output, batch[1])
        return loss if self.left >= 0 else loss * self.value


def labels_from(low: int) -> DataLoader[Any]:
    return DataLoader([(torch.randn(1, 8, 8), label + low) for label in range(3)] * 4, batch_size=6)


BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "NaN loss": ({"task": ("loss", Loss(float("nan")))}, ("loss is nan", "epoch 1", "lr")),
    "infinite loss": ({"task": ("loss", Loss(float("inf")))}, ("loss is inf",)),
    "NaN loss later": ({"task": ("loss", Loss(float("nan"), 15))}, ("loss is nan", "epoch 2")),
    "no training data": ({"task": ("train", DataLoader([]))}, ("training data", "empty")),
    "no validation data": ({"task": ("val", DataLoader([]))}, ("data", "empty")),
    "no test data": ({"task": ("test", DataLoader([]))}, ("data", "empty")),
    "label too large": ({"task": ("train", labels_from(1))}, ("labels", "[0, 3)", "got 3")),
    "label below zero": ({"task": ("val", labels_from(-1))}, ("labels", "[0, 3)", "got -1")),
    "a loader without length": ({"task": ("train", iter([]))}, ("length",)),
    "impossible budget": ({"budget": mp.Budget(macs=0.001)}, ("smallest possible",)),
    "a number for a budget": ({"budget": 0.5}, ("budget", "mp.Budget")),
    "a name for a method": ({"method": "dhp"}, ("method", "mp.DHP")),
    "a class for a method": ({"method": mp.DHP}, ("method", "mp.DHP")),
    "a loader for a task": ({"task": labels_from(0)}, ("task", "mp.Classification")),
    "words for limits": ({"limits": "stem"}, ("limits", "mp.Limits")),
    "a number for a clock": ({"clock": 3}, ("clock", "mp.Clock")),
    "a number for a recipe": ({"recipe": 10}, ("recipe", "mp.Recipe")),
    "unknown device": ({"recipe": replace(small.recipe(1), device="abacus")}, ("abacus",)),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("method", [mp.Magnitude(), mp.DHP()], ids=lambda method: method.name)
def test_bad_input(kind: str, method: Method, tmp_path: Path) -> None:
    fields, words = copy.deepcopy(BAD[kind])
    if isinstance(fields.get("task"), tuple):
        name, value = fields["task"]
        fields["task"] = replace(small.task(), **{name: value})
    model = copy.deepcopy(dense())
    before = oracle.fingerprint(model)
    with pytest.raises(MetapruneError) as caught:
        prune(model, **({"method": method, "out": tmp_path / "run"} | fields))
    line = str(caught.value)
    assert "\n" not in line
    assert all(word in line for word in words), line
    assert oracle.fingerprint(model) == before
    if not any(word in kind for word in ("NaN", "infinite", "training", "length", "too large")):
        left = [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if "checkpoints" in p.parts]
        assert not left, "nothing was trained, so nothing is there to go on from"


def test_a_corrected_call_may_use_the_folder_again(tmp_path: Path) -> None:
    """An error before any training must not claim the folder."""
    with pytest.raises(MetapruneError):
        prune(out=tmp_path, task=replace(small.task(), val=labels_from(-1)))
    prune(out=tmp_path, method=mp.Uniform(), recipe=small.recipe(1))


def test_no_free_axis() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    for method in (mp.Magnitude(), mp.DHP()):
        with pytest.raises(MetapruneError, match=r"free|smallest possible is 1") as caught:
            prune(model, method=method)
        assert "\n" not in str(caught.value)
    with pytest.raises(MetapruneError, match="no free axis"):
        prune(model, method=mp.DHP(), budget=mp.Budget(macs=1.0))


def test_examples_that_do_not_fit() -> None:
    with pytest.raises(TraceError) as caught:
        mp.prune(dense(), (torch.zeros(2, 3, 8, 8),), method=mp.Magnitude(), budget=BUDGET, task=small.task())
    assert len(str(caught.value).splitlines()) <= 3


def test_an_error_of_the_user_is_his_own() -> None:
    """What his loss raises is named, and kept as the cause; the model is as it was."""

    def loss(output: Tensor, batch: Any) -> Tensor:
        raise KeyError("mine")

    model = copy.deepcopy(dense()).train()
    before = oracle.fingerprint(model)
    for method in (mp.Magnitude(), mp.DHP()):
        with pytest.raises(MetapruneError, match="the loss failed: KeyError: 'mine'") as caught:
            prune(model, method=method, task=replace(small.task(), loss=loss))
        assert isinstance(caught.value.__cause__, KeyError)
    assert oracle.fingerprint(model) == before


def test_a_method_of_ones_own() -> None:
    """Twenty lines are enough, and need not be a dataclass."""

    class Keep:
        name = "keep"
        reference = ""

        def find(self, problem: Any) -> Any:
            scores = {name: torch.arange(float(a.size)) for name, a in problem.graph.free.items()}
            return Found(Allocation(problem.graph, problem.budget).plan(scores), problem.model, scores)

    result = prune(method=Keep(), recipe=small.recipe(1))
    for axis, kept in result.plan.kept.items():
        size = result.graph.axes[axis].size
        assert kept == tuple(range(size - len(kept), size))
    assert json.loads(to_json(result.report))["method"] == "keep"


def test_a_method_that_breaks_the_budget_is_refused() -> None:
    class Nothing(mp.Magnitude):
        def find(self, problem: Any) -> Any:
            return replace(super().find(problem), plan=mp.Plan({}))

    with pytest.raises(mp.MetapruneError, match="expected a plan of magnitude within"):
        prune(method=Nothing(), recipe=small.recipe(1))


LIMITS = mp.Limits(keep=["inner"], least={"wide": 20}, most={"wide": 22})


@pytest.mark.parametrize("method", [mp.Magnitude(), mp.Uniform(), mp.Random(), mp.Taylor(), mp.DHP()], ids=str)
def test_every_method_obeys_limits(method: Method) -> None:
    plan = found(method, small.recipe(1), mp.Budget(macs=0.8, multiple_of=2), LIMITS).plan
    assert "inner.0" not in plan.kept
    assert 20 <= plan.widths["wide.0"] <= 22
    assert mp.macs(graph(), plan) <= 0.8 * mp.macs(graph())


def test_limits_hold_and_are_reported() -> None:
    result = prune(recipe=small.recipe(1), budget=mp.Budget(macs=0.8, multiple_of=2), limits=LIMITS)
    assert "inner.0" not in result.plan.kept
    assert 20 <= result.plan.widths["wide.0"] <= 22
    assert mp.macs(result.graph, result.plan) <= 0.8 * mp.macs(result.graph)
    assert "limits: 'inner' is kept" in to_json(result.report)


@pytest.mark.gpu
@methods
def test_on_a_gpu(method: Method) -> None:
    """The network and the examples come from the CPU, and stay there."""
    model = copy.deepcopy(dense())
    before = oracle.fingerprint(model)
    result = prune(model, method=method, recipe=replace(small.recipe(2), device="cuda"))
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert oracle.fingerprint(model) == before
    assert mp.macs(result.graph, result.plan) <= Allocation(result.graph, BUDGET).limit
    assert not any("could not be verified" in note for note in result.report.notes)


class Restorer(nn.Module):
    """A stem, a residual block, and as many channels as an enlarged picture needs."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.inner = nn.Conv2d(16, 16, 3, padding=1)
        self.back = nn.Conv2d(16, 16, 3, padding=1)
        self.tail = nn.Conv2d(16, scale**2, 3, padding=1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = y + self.back(self.inner(y).relu())
        large = F.pixel_shuffle(self.tail(y), self.scale)
        return large + F.interpolate(x, scale_factor=self.scale)


@pytest.mark.parametrize(
    ("method", "scale"),
    [
        (mp.DHP(), 1),
        (mp.Uniform(), 2),
        *(pytest.param(*each, marks=slow) for each in ((mp.DHP(), 2), (mp.Uniform(), 1))),
    ],
    ids=lambda each: getattr(each, "name", None),
)
def test_networks_that_restore_images(method: Method, scale: int) -> None:
    """Enlarging and denoising, with whole images of several sizes to measure on."""
    generator = torch.Generator().manual_seed(0)

    def pairs(count: int, *sizes: tuple[int, int]) -> list[tuple[Tensor, Tensor]]:
        found = []
        for height, width in sizes:
            coarse = torch.rand(count, 1, 4, 5, generator=generator)
            true = F.interpolate(coarse, (scale * height, scale * width), mode="bicubic").clamp(0, 1)
            noise = 0.1 * torch.randn(true.shape, generator=generator)
            found.append((bicubic(true, (height, width)) if scale > 1 else true + noise, true))
        return found

    parts = pairs(4, *[(12, 12)] * 6), pairs(1, (20, 24)), pairs(1, (18, 20), (25, 19))
    task = mp.SuperResolution(*parts, scale=scale) if scale > 1 else mp.Denoising(*parts, sigma=25.5)
    torch.manual_seed(0)
    model = Restorer(scale)
    recipe = mp.Recipe(epochs=4, lr=5e-3, optimizer="adamw", weight_decay=0.0, precision="32-true", device="cpu")
    result = mp.prune(
        model, (torch.rand(1, 1, 12, 16),), method=method, budget=BUDGET, task=task, recipe=recipe, progress=False
    )
    report = result.report
    assert mp.macs(result.graph, result.plan) <= Allocation(result.graph, BUDGET).limit
    assert (report.metric_name, report.example, report.split) == ("PSNR (dB)", "1×12×16", "test")
    for figures, network in ((report.dense, model), (report.pruned, result.model)):
        outputs = [(network.eval()(x).detach(), (x, y)) for x, y in parts[2]]
        for name, metric in (("", task.metric), *task.further.items()):
            expected = sum(float(metric(*each)[0]) for each in outputs) / 2
            assert (figures.further[name] if name else figures.metric) == pytest.approx(expected, rel=1e-4)
    assert report.floor
    assert report.floor.name == ("bicubic" if scale > 1 else "noisy (σ = 25.5)")
    assert len(report.samples) == 2
    for sample, (x, true) in zip(report.samples, parts[2], strict=True):
        came, shown = task.pictures.floor((x, true)), {"dense": model(x), "pruned": result.model(x)}  # type: ignore[union-attr]
        pictures = {report.floor.name: came, **shown, "true": true}
        assert [shot.name for shot in sample.shots] == list(pictures)
        for shot, picture in zip(sample.shots, pictures.values(), strict=True):
            drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(shot.png)))).astype(float)
            assert np.abs(drawn - 255 * picture.detach().clamp(0, 1)[0, 0].numpy()).max() <= 1
            assert shot.metric is None or shot.metric == pytest.approx(
                float(task.metric(picture.detach(), (x, true))[0]), rel=1e-4
            )
    assert from_json(to_json(report)) == report
    assert 'src="data:image/png;base64,' in render(report)
    assert result.model(torch.rand(1, 1, 9, 7)).shape == (1, 1, 9 * scale, 7 * scale)  # another size


def test_a_clock_that_cannot_run_the_network_says_so_before_anything_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    class Viewed(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[2](self[1](self[0](x).relu()).view(len(x), -1))  # type: ignore[no-any-return]

    model = Viewed(nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16 * 64, 3))
    monkeypatch.setattr(mp.Magnitude, "find", lambda *given: pytest.fail("the method was asked"))
    with pytest.raises(MetapruneError, match=r"view size is not compatible.*; try channels_last=False"):
        prune(model, clock=mp.Clock(channels_last=True))


def test_a_time_that_cannot_be_taken_in_the_end_is_no_reason_to_lose_what_was_trained() -> None:
    def measure(network: nn.Module) -> float:
        raise ConnectionError("the phone is gone")

    report = prune(small.network(), clock=mp.Clock(measure=measure)).report
    assert (report.dense.latency, report.pruned.latency) == (None, None)
    assert "the networks were not timed, since that failed: ConnectionError: the phone is gone" in report.notes
    assert "Latency" in render(report)
    assert from_json(to_json(report)) == report


def restored(**functions: Any) -> mp.Result:
    """A restorer that is cut, where what is shown of its pictures is made by other functions."""
    pairs = [(torch.rand(1, 1, 12, 16), torch.rand(1, 1, 12, 16))]
    task = mp.Denoising(pairs, pairs, sigma=25)
    task = replace(task, pictures=replace(task.pictures, **functions))
    recipe = mp.Recipe(epochs=1, lr=1e-4, precision="32-true", device="cpu")
    return mp.prune(
        Restorer(1), pairs[0][:1], method=mp.Magnitude(), budget=BUDGET, task=task, recipe=recipe, progress=False
    )


def refuses(given: Any) -> Tensor:
    raise RuntimeError("no such pictures")


def test_pictures_that_cannot_be_shown_are_no_reason_to_lose_what_was_trained() -> None:
    report = restored(made=refuses).report
    assert report.samples == ()
    assert "no pictures are shown, since showing them failed: RuntimeError: no such pictures" in report.notes


def test_what_there_is_without_a_network_is_measured_before_anything_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp.Magnitude, "find", lambda *given: pytest.fail("the method was asked"))
    with pytest.raises(RuntimeError, match="no such pictures"):
        restored(floor=refuses)


# Partners and accumulation.


def embedding_task() -> mp.Task:
    """The network's logits are features here; a head tells the classes."""

    def step(training: Any, batch: Any) -> Tensor:
        return F.cross_entropy(training.partners["head"](training.network(batch[0])), batch[1])

    torch.manual_seed(2)
    return replace(small.task(), step=step, partners={"head": mp.Partner(nn.Linear(3, 3))})


@pytest.mark.parametrize(
    "method", [mp.DHP(), mp.Taylor(), mp.GraphMetanetwork(trial=2)], ids=lambda method: method.name
)
def test_partners_train_along_and_come_back(method: Method, tmp_path: Path) -> None:
    task = embedding_task()
    head = task.partners["head"].module
    before = head.weight.clone()
    result = prune(method=method, task=task, recipe=small.recipe(1), out=tmp_path)
    trained = result.partners["head"]
    assert torch.equal(head.weight, before)
    assert head.weight.grad is None
    assert not torch.equal(trained.weight, before)
    again = prune(method=method, task=task, recipe=small.recipe(1), out=tmp_path)
    assert torch.equal(again.partners["head"].weight, trained.weight)
    assert same(again.model, result.model)
    assert result.report.settings["partner.head"].startswith("weights ")
    other = replace(task, partners={"head": mp.Partner(nn.Linear(3, 3))})
    with pytest.raises(MetapruneError, match=r"holds another run \(its preprocessing differ"):
        prune(method=method, task=other, recipe=small.recipe(1), out=tmp_path)


def test_the_search_and_the_fine_tuning_train_the_same_partner() -> None:
    """Where fine-tuning begins, the head is a step further than at the last batch of the search."""
    seen: list[Tensor] = []
    task = embedding_task()

    def step(training: Any, batch: Any) -> Tensor:
        seen.append(training.partners["head"].weight.detach().clone())
        return task.step(training, batch)  # type: ignore[misc]

    prune(method=mp.DHP(search=0.5), task=replace(task, step=step), recipe=small.recipe(2))
    rehearsed, first, *_ = seen
    assert torch.equal(rehearsed, first)
    assert len(seen) == 1 + 12 + 12
    assert (seen[13] - seen[12]).norm() < (seen[13] - first).norm() / 3


@pytest.mark.parametrize("accumulate", [2, 5])
def test_a_budget_holds_where_gradients_are_accumulated(accumulate: int) -> None:
    tight = mp.Budget(macs=0.3, multiple_of=1)
    for method in (mp.DHP(), mp.DHP(search=1.0, steering="threshold")):
        plan = found(method, small.recipe(2, accumulate=accumulate), tight).plan
        assert mp.macs(graph(), plan) <= 0.3 * mp.macs(graph())


# What the user adds to the training.


@pytest.mark.parametrize("method", [mp.DHP(), mp.Magnitude()], ids=lambda method: method.name)
def test_search_and_fine_tuning_train_as_the_user_says(method: Method) -> None:
    seen: dict[str, list[int]] = {}

    class Told(mp.Callback):
        def on_step(self, moment: Any) -> None:
            seen.setdefault(moment.phase, []).append(moment.at)

    class Logger:
        logged: list[tuple[set[str], int]] = []  # noqa: RUF012
        ended = ""

        def log_metrics(self, metrics: dict[str, float], step: int) -> None:
            self.logged.append((set(metrics), step))

        def finalize(self, status: str) -> None:
            self.ended = status

    logger, made = Logger(), []

    def factory(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        made.append(groups)
        return torch.optim.RAdam(groups)

    result = prune(method=method, optimizer=factory, loggers=[logger], callbacks=[Told()])
    searches = isinstance(method, mp.DHP)
    assert seen == ({"search": list(range(1, 13))} if searches else {}) | {
        "fine-tuning": list(range(1 + 12 * searches, 25))
    }
    assert len(made) == 2 + searches  # a probe, and one for each phase
    assert result.report.settings["recipe.optimizer"].startswith("RAdam(betas=")
    assert {step for _, step in logger.logged} == {12, 20, 24}
    assert logger.ended == "success"
    for odd in ({"optimizer": "adam"}, {"loggers": [3]}, {"callbacks": [3]}, {"optimizer": lambda groups: 3}):
        with pytest.raises(MetapruneError, match="expected"):
            prune(**odd)
