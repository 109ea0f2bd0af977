"""Pruning with a metanetwork, from the file to the report."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.methods.graph_metanetwork import GraphMetanetwork, Metanetwork, graph_metanetwork, load, save
from metaprune.methods.graph_metanetwork.criterion import CRITERIA, ranking
from metaprune.methods.graph_metanetwork.editor.edit import rewrite
from metaprune.methods.graph_metanetwork.expectation import Expectation
from metaprune.methods.method import Problem
from metaprune.methods.registry import METHODS
from metaprune.methods.saliency import evidence_per_cost, group_norms
from metaprune.surgery.slice import Cut
from metaprune.train import Recipe
from tests.methods import small
from tests.methods.graph_metanetwork.cases import stirred
from tests.methods.rough import rough_cut


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("metanetwork") / "metanetwork.safetensors"
    save(stirred(step=0.05).float(), path)
    return str(path)


@cache
def graph() -> ChannelGraph:
    """Of the small network, whatever its weights."""
    return mp.trace(small.network(), small.EXAMPLE)


def problem_of(model: nn.Module, recipe: Recipe | None = None, **fields: Any) -> Problem:
    fields = {"budget": mp.Budget(macs=0.5), "task": small.task(), "recipe": recipe or small.recipe(2)} | fields
    return Problem(model, graph(), progress=False, **fields)


@pytest.fixture
def roughly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts of a trial are not verified."""

    def carve(model: nn.Module, graph: ChannelGraph, plan: mp.Plan) -> Cut:
        return Cut(rough_cut(model, graph, plan), plan, {})

    monkeypatch.setattr(graph_metanetwork, "carve", carve)


def prune(method: GraphMetanetwork, recipe: Recipe | None = None, **fields: object) -> mp.Result:
    budget = mp.Budget(macs=0.5, multiple_of=1)
    task, recipe = small.task(), recipe or small.recipe(2)
    return mp.prune(
        small.network(),
        small.EXAMPLE,
        method=method,
        budget=budget,
        task=task,
        recipe=recipe,
        progress=False,
        **fields,
    )


@pytest.mark.parametrize("criterion", ["blend", pytest.param("magnitude", marks=pytest.mark.slow), "importance"])
def test_it_fits_the_budget_and_the_report_says_what_was_done(file: str, criterion: str) -> None:
    report = prune(GraphMetanetwork(file, criterion=criterion, tuning=0.6), small.recipe(3)).report
    assert 0.4 * report.dense.macs < report.pruned.macs <= 0.5 * report.dense.macs
    assert [row.phase for row in report.history] == ["after the edit"] * 2 + ["fine-tuning"]
    assert [row.epoch for row in report.history] == [1, 2, 3]
    assert report.settings["graph metanetwork.metanetwork"] == file
    assert report.settings["graph metanetwork.criterion"] == criterion
    assert "2506.12041" in report.reference
    assert report.pruned.metric > 60


def test_scores_are_by_the_criterion_right_after_the_edit(file: str) -> None:
    """Of the edited weights, with evidence by the prices of what the budget bounds; whatever trial and tuning say."""
    model = small.network()
    problem = problem_of(model, budget=mp.Budget(params=0.5))
    edited = rewrite(model, graph(), load(file), small.task(), 0.5)
    evidence = evidence_per_cost(edited.gradients, Allocation(graph(), problem.budget).prices({}))
    for criterion in CRITERIA:
        found = GraphMetanetwork(file, criterion=criterion, tuning=0.4).scores(problem)
        weights = dict(edited.model.named_parameters())
        expected = ranking(weights, graph(), edited.read, criterion, edited.scores, evidence)
        assert all(torch.allclose(found[axis], scores, rtol=1e-4) for axis, scores in expected.items())
        assert not any(torch.allclose(found[axis], own, rtol=1e-2) for axis, own in group_norms(model, graph()).items())


def test_the_edit_is_there(file: str, tmp_path: Path) -> None:
    """Without it, the same epochs give another network; with an untrained metanetwork, that of no edits."""
    untrained = stirred().float()
    for writer in (untrained.write_edges, untrained.write_attributes):
        torch.nn.init.zeros_(writer.outer)
    save(untrained, tmp_path / "untrained.safetensors")
    plain = small.network()
    mp.fit(plain, small.task(), small.recipe(2), stop=1, progress=False)
    found = {}
    for path in (file, str(tmp_path / "untrained.safetensors")):
        problem = problem_of(small.network())
        found[path] = GraphMetanetwork(path, tuning=0.5).find(problem).model.stem.weight
    edited, unedited = found.values()
    assert torch.equal(unedited, plain.stem.weight)
    assert not torch.equal(edited, unedited)


def test_without_tuning_the_edited_network_is_cut_at_once(tmp_path: Path) -> None:
    """Before the cut the report has the edited network's accuracy, which here is lost."""
    save(stirred(step=5.0).float(), tmp_path / "wild.safetensors")
    report = prune(GraphMetanetwork(str(tmp_path / "wild.safetensors"), trial=0)).report
    assert not any("trial" in note for note in report.notes)
    assert [row.phase for row in report.history] == ["fine-tuning"] * 2
    assert report.before_cut < report.dense_val - 10
    assert report.pruned.macs <= 0.5 * report.dense.macs


@pytest.mark.usefixtures("roughly")
def test_what_does_harm_is_left(tmp_path: Path) -> None:
    """An edit that ruins the network loses its trial: pruned is what the criterion alone leaves. The report says so."""
    save(stirred(step=5.0).float(), tmp_path / "wild.safetensors")
    save(Metanetwork(2, 1), tmp_path / "untrained.safetensors")
    tried = prune(GraphMetanetwork(str(tmp_path / "wild.safetensors"), trial=6), small.recipe(1))
    alone = prune(GraphMetanetwork(str(tmp_path / "untrained.safetensors"), trial=0), small.recipe(1))
    assert tried.plan == alone.plan
    assert all(torch.equal(t, tried.model.state_dict()[n]) for n, t in alone.model.state_dict().items())
    [note] = [note for note in tried.report.notes if "trial" in note]
    assert note.startswith("in a trial of 6 steps: cut as the metanetwork says, accuracy (%) ")
    assert note.endswith("so it was cut by the criterion alone")


@pytest.mark.usefixtures("roughly")
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_what_helps_is_taken(file: str, higher_is_better: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the edit is what the training of a network without any would give it."""
    trained = small.network()
    raw = small.Small()
    rewritten = rewrite(trained, graph(), Metanetwork(2, 1), small.task())
    monkeypatch.setattr(graph_metanetwork, "rewrite", lambda *_: rewritten)
    task = replace(small.task(), higher_is_better=higher_is_better)
    recipe = replace(small.recipe(3), lr=1e-3)
    problem = problem_of(raw, recipe, budget=mp.Budget(macs=0.7), task=task)
    found = GraphMetanetwork(file, trial=3).find(problem)
    assert torch.equal(found.model.stem.weight, (trained if higher_is_better else raw).stem.weight)
    assert found.notes[0].endswith("as the metanetwork says" if higher_is_better else "by the criterion alone")


@pytest.mark.usefixtures("roughly")
@pytest.mark.parametrize(
    ("fields", "steps"),
    [({}, 3), ({"accumulate": 2}, 3), ({"accumulate": 5}, 3), ({"max_steps": 2}, 2), ({"accumulate": 8}, 2)],
)
def test_a_trial_is_of_steps_of_the_optimizer(file: str, fields: dict[str, Any], steps: int) -> None:
    """However many batches make one; one pass of the 12 batches at most, and no more steps than the recipe allows."""
    recipe = replace(small.recipe(1), **fields)
    [note] = GraphMetanetwork(file, trial=3).find(problem_of(small.network(), recipe)).notes
    assert note.startswith(f"in a trial of {steps} steps: ")


@pytest.mark.parametrize(("level", "said"), [(3.0, "as the metanetwork says"), (-3.0, "by the criterion alone")])
def test_what_it_is_sure_of_is_not_tried(level: float, said: str, tmp_path: Path) -> None:
    """A gain is taken and a loss is left, both at once."""
    metanetwork = stirred(step=0.05).float()
    metanetwork.expectation = Expectation(level, 0.0, 1.0, 9.0, 0.1, 0.9, 5)
    save(metanetwork, tmp_path / "sure.safetensors")
    found = GraphMetanetwork(str(tmp_path / "sure.safetensors")).find(problem_of(small.network()))
    [note] = found.notes
    assert note.startswith("nothing was tried: ")
    assert f"gained {level:+.2g} ± 1 points on 5 families" in note
    assert note.endswith(said)
    word = GraphMetanetwork(str(tmp_path / "sure.safetensors"), trial=0).find(problem_of(small.network()))
    assert torch.equal(found.model.stem.weight, word.model.stem.weight) == (level > 0)


@pytest.mark.usefixtures("roughly")
@pytest.mark.parametrize("fields", [{"level": 1.5}, {"furthest": 0.0}, {"high": 0.4}], ids=str)
def test_what_it_is_not_sure_of_is_tried(fields: dict[str, float], tmp_path: Path) -> None:
    metanetwork = stirred(step=0.05).float()
    metanetwork.expectation = replace(Expectation(3.0, 0.0, 1.0, 9.0, 0.1, 0.9, 5), **fields)  # type: ignore[arg-type]
    save(metanetwork, tmp_path / "unsure.safetensors")
    problem = problem_of(small.network(), budget=mp.Budget(macs=0.5, multiple_of=1))
    found = GraphMetanetwork(str(tmp_path / "unsure.safetensors"), trial=2).find(problem)
    assert found.notes[0].startswith("in a trial of 2 steps: ")


def test_a_trial_that_fails_is_lost(tmp_path: Path) -> None:
    save(stirred(step=1e30).float(), tmp_path / "absurd.safetensors")
    report = prune(GraphMetanetwork(str(tmp_path / "absurd.safetensors"))).report
    assert "training failed" in report.notes[0]
    assert report.pruned.metric > 60


@pytest.fixture(scope="module", params=[{"tuning": 0.4}, {"trial": 5}], ids=str)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, mp.Result]:
    """A metanetwork, what prunes with it in a folder, and what that gave."""
    folder = tmp_path_factory.mktemp("finished")
    path = folder / "metanetwork.safetensors"
    save(stirred(seed=1).float(), path)

    def run() -> mp.Result:
        return prune(GraphMetanetwork(str(path), **request.param), out=folder / "run")

    return path, run, run()


def test_a_run_goes_on(finished: tuple[Path, Any, mp.Result]) -> None:
    _, run, whole = finished
    again = run()
    assert again.report.notes == whole.report.notes
    assert again.plan == whole.plan
    assert all(torch.equal(t, again.model.state_dict()[n]) for n, t in whole.model.state_dict().items())


def test_a_run_does_not_go_on_with_another_metanetwork(finished: tuple[Path, Any, mp.Result]) -> None:
    path, run, _ = finished
    before = path.read_bytes()
    save(stirred(seed=2).float(), path)
    with pytest.raises(MetapruneError, match="another in"):
        run()
    path.write_bytes(before)


def test_it_is_a_method(file: str) -> None:
    assert METHODS["graph_metanetwork"] is GraphMetanetwork
    assert isinstance(GraphMetanetwork(file), mp.methods.method.Method)


def test_what_it_refuses(file: str, tmp_path: Path) -> None:
    with pytest.raises(MetapruneError, match="no file at"):
        GraphMetanetwork(str(tmp_path / "nowhere"))
    (tmp_path / "text").write_text("Call me Ishmael.")
    with pytest.raises(MetapruneError, match="expected safetensors"):
        GraphMetanetwork(str(tmp_path / "text"))
    with pytest.raises(MetapruneError, match="criterion"):
        GraphMetanetwork(file, criterion="taste")  # type: ignore[arg-type]
    with pytest.raises(MetapruneError, match="tuning in"):
        GraphMetanetwork(file, tuning=-0.1)
    for trial in (-1, 0.5):
        with pytest.raises(MetapruneError, match="steps from 0"):
            GraphMetanetwork(file, trial=trial)  # type: ignore[arg-type]


def test_a_network_of_which_nothing_trains(file: str) -> None:
    model = small.network().requires_grad_(False)
    problem = problem_of(model)
    with pytest.raises(MetapruneError, match="parameters that train, got none"):
        GraphMetanetwork(file).find(problem)
