"""Pruning with a metanetwork, from the file to the report."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.methods.graph_metanetwork import GraphMetanetwork, Metanetwork, graph_metanetwork, load, save
from metaprune.methods.graph_metanetwork.criterion import CRITERIA, ranking
from metaprune.methods.graph_metanetwork.editor.edit import rewrite
from metaprune.methods.registry import METHODS
from metaprune.methods.saliency import evidence_per_cost, group_norms
from metaprune.session import measuring
from metaprune.train import Recipe
from tests.methods import small
from tests.methods.graph_metanetwork.cases import stirred


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("metanetwork") / "metanetwork.safetensors"
    save(stirred(step=0.05).float(), path)
    return str(path)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "latencies", partial(measuring.latencies, seconds=0.001))


def prune(method: GraphMetanetwork, recipe: Recipe | None = None, **fields: object) -> mp.Result:
    budget = mp.Budget(macs=0.5, multiple_of=1)
    task, recipe = small.task(), recipe or small.recipe(5)
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


@pytest.mark.parametrize("criterion", ["blend", "magnitude", "importance"])
def test_it_fits_the_budget_and_the_report_says_what_was_done(file: str, criterion: str) -> None:
    report = prune(GraphMetanetwork(file, criterion=criterion, tuning=0.4)).report
    assert 0.4 * report.dense.macs < report.pruned.macs <= 0.5 * report.dense.macs
    assert [row.phase for row in report.history] == ["after the edit"] * 2 + ["fine-tuning"] * 3
    assert [row.epoch for row in report.history] == [1, 2, 3, 4, 5]
    assert report.settings["graph metanetwork.metanetwork"] == file
    assert report.settings["graph metanetwork.criterion"] == criterion
    assert "2506.12041" in report.reference
    assert report.pruned.metric > 60


def test_scores_are_by_the_criterion_right_after_the_edit(file: str) -> None:
    """Of the edited weights, with evidence by the prices of what the budget bounds; whatever trial and tuning say."""
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    problem = mp.methods.method.Problem(
        model, graph, mp.Budget(params=0.5), small.task(), small.recipe(5), progress=False
    )
    edited = rewrite(model, graph, load(file), small.task(), 0.5)
    evidence = evidence_per_cost(edited.gradients, Allocation(graph, problem.budget).prices({}))
    for criterion in CRITERIA:
        found = GraphMetanetwork(file, criterion=criterion, tuning=0.4).scores(problem)
        weights = dict(edited.model.named_parameters())
        expected = ranking(weights, graph, edited.read, criterion, edited.scores, evidence)
        assert all(torch.allclose(found[axis], scores, rtol=1e-4) for axis, scores in expected.items())
        assert not any(torch.allclose(found[axis], own, rtol=1e-2) for axis, own in group_norms(model, graph).items())


def test_the_edit_is_there(file: str, tmp_path: Path) -> None:
    """Without it, the same epochs give another network; with an untrained metanetwork, that of no edits."""
    untrained = stirred().float()
    for writer in (untrained.write_edges, untrained.write_attributes):
        torch.nn.init.zeros_(writer.outer)
    save(untrained, tmp_path / "untrained.safetensors")
    plain = small.network()
    mp.fit(plain, small.task(), small.recipe(5), stop=2, progress=False)
    found = {}
    for path in (file, str(tmp_path / "untrained.safetensors")):
        model = small.network()
        graph = mp.trace(model, small.EXAMPLE)
        problem = mp.methods.method.Problem(
            model, graph, mp.Budget(macs=0.5), small.task(), small.recipe(5), progress=False
        )
        found[path] = GraphMetanetwork(path, tuning=0.4).find(problem).model.stem.weight
    edited, unedited = found.values()
    assert torch.equal(unedited, plain.stem.weight)
    assert not torch.equal(edited, unedited)


def test_without_tuning_the_edited_network_is_cut_at_once(tmp_path: Path) -> None:
    """Before the cut the report has the edited network's accuracy, which here is lost."""
    save(stirred(step=5.0).float(), tmp_path / "wild.safetensors")
    report = prune(GraphMetanetwork(str(tmp_path / "wild.safetensors"), trial=0)).report
    assert not any("trial" in note for note in report.notes)
    assert [row.phase for row in report.history] == ["fine-tuning"] * 5
    assert report.before_cut < report.dense_val - 10
    assert report.pruned.macs <= 0.5 * report.dense.macs


def test_what_does_harm_is_left(tmp_path: Path) -> None:
    """An edit that ruins the network loses its trial: pruned is what the criterion alone leaves. The report says so."""
    save(stirred(step=5.0).float(), tmp_path / "wild.safetensors")
    save(Metanetwork(2, 1), tmp_path / "untrained.safetensors")
    tried = prune(GraphMetanetwork(str(tmp_path / "wild.safetensors"), trial=6), small.recipe(2))
    alone = prune(GraphMetanetwork(str(tmp_path / "untrained.safetensors"), trial=0), small.recipe(2))
    assert tried.plan == alone.plan
    assert all(torch.equal(t, tried.model.state_dict()[n]) for n, t in alone.model.state_dict().items())
    [note] = [note for note in tried.report.notes if "trial" in note]
    assert note.startswith("in a trial of 6 steps: cut as the metanetwork says, accuracy (%) ")
    assert note.endswith("so it was cut by the criterion alone")


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_what_helps_is_taken(file: str, higher_is_better: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the edit is what the training of a network without any would give it."""
    trained = small.network()
    raw = small.Small()
    graph = mp.trace(raw, small.EXAMPLE)
    rewritten = rewrite(trained, graph, Metanetwork(2, 1), small.task())
    monkeypatch.setattr(graph_metanetwork, "rewrite", lambda *_: rewritten)
    task = replace(small.task(), higher_is_better=higher_is_better)
    recipe = replace(small.recipe(3), lr=1e-3)
    problem = mp.methods.method.Problem(raw, graph, mp.Budget(macs=0.7), task, recipe, progress=False)
    found = GraphMetanetwork(file, trial=3).find(problem)
    assert torch.equal(found.model.stem.weight, (trained if higher_is_better else raw).stem.weight)
    assert found.notes[0].endswith("as the metanetwork says" if higher_is_better else "by the criterion alone")


@pytest.mark.parametrize(
    ("fields", "steps"),
    [({}, 3), ({"accumulate": 2}, 3), ({"accumulate": 5}, 3), ({"max_steps": 2}, 2), ({"accumulate": 8}, 2)],
)
def test_a_trial_is_of_steps_of_the_optimizer(file: str, fields: dict[str, Any], steps: int) -> None:
    """However many batches make one; one pass of the 12 batches at most, and no more steps than the recipe allows."""
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    recipe = replace(small.recipe(1), **fields)
    problem = mp.methods.method.Problem(model, graph, mp.Budget(macs=0.5), small.task(), recipe, progress=False)
    [note] = GraphMetanetwork(file, trial=3).find(problem).notes
    assert note.startswith(f"in a trial of {steps} steps: ")


def test_a_trial_that_fails_is_lost(tmp_path: Path) -> None:
    save(stirred(step=1e30).float(), tmp_path / "absurd.safetensors")
    report = prune(GraphMetanetwork(str(tmp_path / "absurd.safetensors"))).report
    assert "training failed" in report.notes[0]
    assert report.pruned.metric > 60


@pytest.mark.parametrize("fields", [{"tuning": 0.4}, {"trial": 5}])
def test_a_run_goes_on(file: str, tmp_path: Path, fields: dict[str, Any]) -> None:
    whole = prune(GraphMetanetwork(file, **fields), small.recipe(2), out=tmp_path / "whole")
    again = prune(GraphMetanetwork(file, **fields), small.recipe(2), out=tmp_path / "whole")
    assert again.report.notes == whole.report.notes
    assert again.plan == whole.plan
    assert all(torch.equal(t, again.model.state_dict()[n]) for n, t in whole.model.state_dict().items())


@pytest.mark.parametrize("fields", [{"tuning": 0.4}, {"trial": 5}])
def test_a_run_does_not_go_on_with_another_metanetwork(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = tmp_path / "metanetwork.safetensors"
    save(stirred(seed=1).float(), path)
    prune(GraphMetanetwork(str(path), **fields), small.recipe(2), out=tmp_path / "run")
    save(stirred(seed=2).float(), path)
    with pytest.raises(MetapruneError, match="another in"):
        prune(GraphMetanetwork(str(path), **fields), small.recipe(2), out=tmp_path / "run")


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
    graph = mp.trace(model, small.EXAMPLE)
    problem = mp.methods.method.Problem(model, graph, mp.Budget(macs=0.5), small.task(), small.recipe(2))
    with pytest.raises(MetapruneError, match="parameters that train, got none"):
        GraphMetanetwork(file).find(problem)
