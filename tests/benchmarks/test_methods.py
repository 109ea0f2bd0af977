"""The table of all methods: run by run, to the page, on digits and few epochs."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import metaprune as mp
from metaprune.cost.latency import latencies
from metaprune.methods.registry import METHODS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import methods

    brief = mp.Recipe(1, lr=0.05, precision="32-true", device="cpu")
    monkeypatch.setattr(methods, "SETTINGS", {"resnet20": methods.Setting(brief, replace(brief, epochs=2))})
    monkeypatch.setattr(methods, "MODELS", {"resnet20": methods.MODELS["resnet8"]})
    monkeypatch.setattr(methods, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr("metaprune.session.measuring.latencies", partial(latencies, seconds=0.001))
    return methods


def call(methods: Any, monkeypatch: pytest.MonkeyPatch, out: Path, *options: str) -> str:
    monkeypatch.setattr(sys, "argv", ["methods.py", "--data", "digits", "--out", str(out), *options])
    methods.main()
    return (out.parent / "page.md").read_text()


def test_from_runs_to_the_page(methods: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    arms = ["magnitude", "transportation", "dhp:search=0.5"]
    page = call(methods, monkeypatch, out, "--shares", "0.5", "--seeds", "0", "--arms", *arms)
    rows = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/*/row.json")}
    assert {row["arm"] for row in rows.values()} == set(arms)
    assert {row["epochs"] for row in rows.values()} == {2}
    assert all(row["macs"] <= 0.5 for row in rows.values())
    assert all(f"| {arm} |" in page for arm in arms)
    assert (tmp_path / "page.svg").is_file()
    monkeypatch.setattr(methods.mp, "prune", lambda *args, **kwargs: pytest.fail("a finished run was run again"))
    for path in out.glob("*/*/row.json"):
        path.unlink()  # those beside the page are enough
    assert call(methods, monkeypatch, out, "--shares", "0.5", "--seeds", "0", "--arms", *arms) == page


def test_fresh_weights_have_no_accuracy_after_the_cut(methods: Any) -> None:
    row = {
        "share": 0.5,
        "seed": 0,
        "dense": 80.0,
        "val": 70.0,
        "macs": 0.5,
        "params": 0.5,
        "epochs": 10,
        "seconds": 60.0,
    }
    rows = [
        row | {"arm": "magnitude", "accuracy": 78.0, "after_cut": 41.26},
        row | {"arm": "metapruning", "accuracy": 72.0, "after_cut": None},
    ]
    page = methods.table(rows, "resnet20", methods.SETTINGS["resnet20"])
    assert "| 0.5 | magnitude | 78.00 | -2.00 | 1 | 70.00 | 41.3 | 0.500 | 0.500 | 10 | 1.0 |" in page
    assert "| 0.5 | metapruning | 72.00 | -8.00 | 1 | 70.00 | fresh | 0.500 | 0.500 | 10 | 1.0 |" in page


def test_every_method_is_an_arm(methods: Any) -> None:
    arms = methods.arms()
    assert set(METHODS) <= set(arms)
    assert {type(methods.method_of(arm, 1)) for arm in arms if arm in METHODS} == set(METHODS.values())
    fresh = methods.method_of("metapruning", 0)
    recipe = methods.shortened(mp.Recipe(10, lr=0.05), fresh)
    assert recipe.lr == 0.1  # fresh weights learn as dense ones do
    assert methods.shortened(mp.Recipe(10, lr=0.05), mp.DHP()) == mp.Recipe(10, lr=0.05)
    assert (
        recipe.epochs + round(fresh.search * recipe.epochs)
        <= 10
        < recipe.epochs + 1 + fresh.search * (recipe.epochs + 1)
    )
