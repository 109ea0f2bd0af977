"""The network of unaligned widths: what is timed runs, also where its code cannot be asked without values."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.cost.latency import Latency
from metaprune.graph import valueless
from metaprune.methods.method import Found
from metaprune.methods.saliency import group_norms
from metaprune.report.report import Figures
from metaprune.session import reporting
from metaprune.train.run import History, Row
from tests.methods import small
from tests.surgery.test_shapes import CALL, Asking


@pytest.mark.parametrize(
    ("model", "args", "verified"), [(small.Small().eval(), small.EXAMPLE, False), (Asking().eval(), CALL.args, True)]
)
def test_it_is_verified_only_where_its_code_may_not_run(
    model: nn.Module, args: tuple[torch.Tensor, ...], verified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(valueless, "_SMALL", 0)  # a small network is simply called
    graph = mp.trace(model, args)
    cuts: list[mp.Plan] = []
    carve = reporting.carve
    monkeypatch.setattr(reporting, "carve", lambda *given: (cuts.append(given[2]), carve(*given))[1])
    found = Found(mp.Plan({}), model, group_norms(model, graph))
    unaligned = reporting.unaligned(found, graph, mp.Budget(macs=0.6, multiple_of=4))
    assert unaligned is not None
    rough, plan = unaligned
    assert bool(cuts) == verified
    assert plan.kept
    assert sum(p.numel() for p in rough.parameters()) == mp.params(graph, plan) < mp.params(graph)
    assert rough(*args).shape == model(*args).shape
    assert reporting.unaligned(found, graph, mp.Budget(macs=0.6, multiple_of=1)) is None


@pytest.mark.parametrize(
    ("budget", "bound"),
    [
        (mp.Budget(macs=0.5), None),
        (mp.Budget(latency=2.0), 2.0),
        (mp.Budget(speedup=4.0), 1.5),
        (mp.Budget(latency=2.0, speedup=4.0), 1.5),
        (mp.Budget(latency=2.0, speedup=1.5), 2.0),
    ],
)
def test_the_time_that_is_allowed(budget: mp.Budget, bound: float | None) -> None:
    """Beside a dense network that takes six milliseconds."""
    dense = Figures(1, 1, 4, 50.0, Latency(6.0, 0.0, 1, 2, "cpu", "32-true", 1))
    assert reporting._bound(budget, dense) == bound


def asked(**fields: Any) -> Any:
    usual = {"method": mp.Magnitude(), "recipe": mp.Recipe(), "former": None, "of_training": {}, "of_data": {}}
    return SimpleNamespace(**(usual | fields))


@pytest.mark.parametrize(
    ("name", "higher", "metrics", "kept", "said"),
    [
        ("accuracy (%)", True, [50.0, 62.0, 61.1], None, ""),  # less than a point
        ("accuracy (%)", True, [50.0, 62.0, 60.9], None, "epoch 5 of fine-tuning was better .* 62 against 60.9"),
        ("PSNR (dB)", True, [30.0, 31.0, 30.8], None, ""),  # less than a hundredth
        ("PSNR (dB)", True, [30.0, 31.0, 30.5], None, "epoch 5 of fine-tuning was better .* 31 against 30.5"),
        ("error", False, [0.5, 0.4, 0.45], None, "epoch 5 of fine-tuning was better .* 0.4 against 0.45"),
        ("error", False, [0.5, 0.45, 0.4], None, ""),
        ("error", False, [0.5, 0.4, 0.45], 2.0, "the weights are those of epoch 5, the best"),
        ("error", False, [], None, ""),
    ],
)
def test_a_better_epoch_is_mentioned(name: str, higher: bool, metrics: list[float], kept: Any, said: str) -> None:
    """Of the last part of a schedule, which began after three epochs."""
    history = History([Row(1.0 + place, "fine-tuning", 1.0, each, 1.0) for place, each in enumerate(metrics)], kept)
    one: Any = SimpleNamespace(
        shrunk=SimpleNamespace(history=history), problem=SimpleNamespace(recipe=mp.Recipe(before=4))
    )
    task = SimpleNamespace(metric_name=name, higher_is_better=higher)
    notes = reporting._of_epochs(one, asked(task=task, recipe=mp.Recipe(before=1)))
    assert len(notes) == bool(said)
    assert all(re.match(said, note) for note in notes)


def test_what_searches_cost_together() -> None:
    rounds: list[Any] = [
        SimpleNamespace(found=SimpleNamespace(spent=spent))
        for spent in ({"epochs": 3}, {"epochs": 2, "evaluations": 5})
    ]
    former: Any = SimpleNamespace(spent={"epochs": 1.0})
    assert reporting._spent(rounds, None) == {"epochs": 5, "evaluations": 5}
    assert reporting._spent(rounds, former) == {"epochs": 6, "evaluations": 5}
    assert former.spent == {"epochs": 1.0}


def test_what_is_said_of_a_round() -> None:
    found = {"notes": ["its own"], "spent": {}, "fresh": False, "whole": {}}
    shrunk = {"kept": (), "jump": 0.0}
    for cut, notes in (
        ({"undone": {}, "unjudged": None}, ["its own"]),
        (
            {"undone": {"a": "it differs"}, "unjudged": "it draws"},
            [
                "its own",
                "a was left whole, its cut could not be verified: it differs",
                "outputs were not compared with the masked network's: it draws",
            ],
        ),
    ):
        one: Any = SimpleNamespace(
            found=SimpleNamespace(**found), shrunk=SimpleNamespace(**shrunk, cut=SimpleNamespace(**cut))
        )
        assert reporting._of_round(one) == notes


def test_what_is_said_of_inputs_and_of_how_was_trained() -> None:
    graph: Any = SimpleNamespace(
        args=(torch.zeros(2, 5, dtype=torch.int64), [torch.zeros(2, 3, 4)]),
        kwargs={"flag": True, "size": torch.ones(2)},
    )
    assert reporting._example(graph) == "5 int64, 3×4"
    said = reporting._settings(asked(recipe=mp.Recipe(compile=True, before=2), of_data={"data.size": "8"}))
    assert {name: said.get(f"recipe.{name}") for name in ("compile", "before", "after", "devices", "epochs")} == {
        "compile": "True",
        "before": "2",
        "after": None,
        "devices": None,
        "epochs": "10",
    }
    assert said["data.size"] == "8"
    before = asked(former=SimpleNamespace(method="DHP", budget="0.5 of the MACs"))
    assert reporting._settings(before)["pruned before"] == "by DHP to 0.5 of the MACs"
