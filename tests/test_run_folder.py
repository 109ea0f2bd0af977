"""Whose a folder is: each thing that makes a run another one, and files of others."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.graph.errors import MetapruneError
from metaprune.run_folder import RunFolder, check, remembered
from metaprune.train.atomic import read_json, write_json

X = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))


def network(width: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 3))


@cache
def traced(width: int = 8, copies: int = 1, more: bool = False) -> mp.ChannelGraph:
    return mp.trace(network(width), (torch.cat([X] * copies),), calls=(mp.Call((X[:1],)),) if more else ())


def claimed(out: Path, *, only_look: bool = False, **other: Any) -> RunFolder:
    model = other.pop("model", network())
    graph = traced(len(model[0].bias), other.pop("copies", 1), other.pop("more", False))
    limits = other.pop("limits", None)
    known: dict[str, Any] = {
        "method": mp.Magnitude(),
        "budget": mp.Budget(macs=0.5),
        "recipe": mp.Recipe(3, device="cpu"),
        "data": "digits",
        "settings": {"data.mean": "0.5"},
        **other,
    }
    graph = graph if limits is None else limits.on(graph)
    return RunFolder.claim(out, model, graph, *known.values(), only_look=only_look)


def changed(model: nn.Sequential) -> nn.Sequential:
    with torch.no_grad():
        model[2].bias += 1e-3
    return model


OTHERS: dict[str, dict[str, Any]] = {
    "method": {"method": mp.Uniform()},
    "budget": {"budget": mp.Budget(macs=0.5, multiple_of=4)},
    "recipe": {"recipe": mp.Recipe(3, device="cpu", seed=1)},
    "data": {"data": "digits of others"},
    "preprocessing": {"settings": {"data.mean": "0.4"}},
    "inputs": {"copies": 2},
    "axes, weights": {"model": network(9)},
    "weights": {"model": changed(network())},
    "limits": {"limits": mp.Limits(least={"0": 4})},
    "calls": {"more": True},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_run_is_refused_and_what_differs_is_said(what: str, tmp_path: Path) -> None:
    for first, second in (({}, OTHERS[what]), (OTHERS[what], {})):
        out = tmp_path / f"{bool(first)}"
        assert claimed(out, **first).path == out
        held = (out / "run.json").read_bytes()
        claimed(out, **first)  # which the same run may
        assert (out / "run.json").read_bytes() == held
        with pytest.raises(MetapruneError, match=rf"holds another run \(its {what} differ\); name another folder"):
            claimed(out, **second)
        assert (out / "run.json").read_bytes() == held


def test_how_many_processes_train_is_no_other_run(tmp_path: Path) -> None:
    claimed(tmp_path)
    claimed(tmp_path, recipe=mp.Recipe(3, device="cpu", devices=2, strategy="ddp", compile=True))


def test_who_only_looks_writes_nothing(tmp_path: Path) -> None:
    claimed(tmp_path / "out", only_look=True)
    assert list(tmp_path.iterdir()) == []
    claimed(tmp_path / "out")
    with pytest.raises(MetapruneError, match="its data differ"):
        claimed(tmp_path / "out", data="other", only_look=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [('{"a": 1}', "was not written by metaprune"), ("{", "run.json"), ('{"method": 1, "crc32": 7}', "damaged")],
)
def test_a_file_of_that_name_which_is_none_of_ours(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(MetapruneError, match=r"cannot use the folder .*; name one that can be written") as caught:
        claimed(tmp_path)
    assert said in str(caught.value)
    with pytest.raises(MetapruneError, match=r"run.json is damaged, or was not written by metaprune; move it away"):
        check(tmp_path)
    assert (tmp_path / "run.json").read_text() == text


def test_a_folder_of_ours_is_checked_and_taken(tmp_path: Path) -> None:
    check(tmp_path / "nowhere")
    claimed(tmp_path).remember(mp.Budget(speedup=2.0), {"anchors": []})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["budget.json", "run.json"]
    check(tmp_path)
    write_json(tmp_path / "budget.json", {"anchors": []})
    with pytest.raises(MetapruneError, match=r"budget.json is damaged, or was not written by metaprune"):
        check(tmp_path)
    assert RunFolder(tmp_path).stage("search") == tmp_path / "checkpoints" / "search"


def test_what_was_found_out_of_time_is_known_for_that_budget_alone(tmp_path: Path) -> None:
    fast, faster = mp.Budget(speedup=2.0), mp.Budget(speedup=3.0)
    assert remembered(None, fast) is None
    assert remembered(tmp_path, fast) is None
    RunFolder(tmp_path).remember(fast, {"anchors": [1.5]})
    assert remembered(tmp_path, fast) == {"anchors": [1.5], "for": f"{fast!r}"}
    assert remembered(tmp_path, faster) is None
    assert remembered(tmp_path, mp.Budget(macs=0.5)) is None
    assert read_json(tmp_path / "budget.json")["for"] == f"{fast!r}"
    (tmp_path / "budget.json").write_text("{")
    with pytest.raises(MetapruneError, match=r"budget.json is damaged \(.*\); delete the folder, or name another"):
        remembered(tmp_path, fast)


def test_inputs_by_name_are_inputs(tmp_path: Path) -> None:
    model = network()
    graphs = [mp.trace(model, (), {"input": torch.cat([X] * copies)}) for copies in (1, 2)]
    same = (mp.Magnitude(), mp.Budget(macs=0.5), mp.Recipe(3, device="cpu"), "digits", {})
    RunFolder.claim(tmp_path, model, graphs[0], *same)
    RunFolder.claim(tmp_path, model, graphs[0], *same)
    with pytest.raises(MetapruneError, match=r"its inputs differ"):
        RunFolder.claim(tmp_path, model, graphs[1], *same)
