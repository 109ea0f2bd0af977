"""What experiments share: one process at a piece, rows that are kept, figures in words."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods import small
from torch import nn

import metaprune as mp
from benchmarks import experiment


def test_a_piece_is_done_once_and_by_one_process(tmp_path: Path) -> None:
    """Whoever finds it claimed leaves it; what failed has no row, and is done again."""
    done: list[str] = []

    def piece(name: str) -> Any:
        return lambda: done.append(name) or {"name": name}  # type: ignore[func-returns-value]

    with experiment.claimed(tmp_path / "b") as mine:
        assert mine
        experiment.carry_out(tmp_path / "b", piece("b"))
        assert done == []
    with pytest.raises(ZeroDivisionError):
        experiment.carry_out(tmp_path / "a", lambda: {"name": 1 / 0})
    for name in ("b", "a", "a", "b"):
        experiment.carry_out(tmp_path / name, piece(name))
    assert done == ["b", "a"]
    assert [row["name"] for row in experiment.rows_in(tmp_path)] == ["a", "b"]
    assert experiment.Run("dhp", 0.50, 3).folder == "dhp-0.5-3"


def test_rows_beside_a_page_are_those_of_the_subject(tmp_path: Path) -> None:
    """Another clone, which has the file alone, does what is left; what is long stays in the folder."""
    ours = experiment.Kept(tmp_path / "out", tmp_path / "rows.jsonl", "ab", ("plan",))
    assert ours.rows() == []
    ours.carry_out("dhp-0.5-0", lambda: {"accuracy": 70.0, "plan": [1, 2]})
    row = {"accuracy": 70.0, "run": "dhp-0.5-0", "subject": "ab"}
    assert ours.rows() == [row]
    assert ours.write() == [row]
    clone = experiment.Kept(tmp_path / "clone", ours.path, "ab")
    clone.carry_out("dhp-0.5-0", lambda: {"accuracy": 1 / 0})
    with pytest.raises(ZeroDivisionError):
        clone.carry_out("dhp-0.5-0", lambda: {"accuracy": 1 / 0}, here=True)
    clone.carry_out("dhp-0.3-0", lambda: {"accuracy": 65.0})
    assert clone.write() == [{"accuracy": 65.0, "run": "dhp-0.3-0", "subject": "ab"}, row]
    assert len(ours.path.read_text().splitlines()) == 2


def test_rows_of_another_subject_count_only_where_all_are_asked_for(tmp_path: Path) -> None:
    """They stay in the file, until the same run is made of ours."""
    theirs = experiment.Kept(tmp_path / "theirs", tmp_path / "rows.jsonl", "cd")
    for run in ("a", "b"):
        theirs.carry_out(run, lambda: {"accuracy": 1.0})
    theirs.write()
    ours = experiment.Kept(tmp_path / "ours", theirs.path, "ab")
    assert ours.rows() == []
    ours.carry_out("a", lambda: {"accuracy": 2.0})
    assert [row["accuracy"] for row in ours.write()] == [2.0]
    every = experiment.Kept(tmp_path / "none", theirs.path)
    assert [(row["run"], row["subject"]) for row in every.rows()] == [("a", "ab"), ("b", "cd")]


def test_figures_in_words() -> None:
    """The deviation is that of a sample; one value has none."""
    assert experiment.mean_and_spread([1.0, 2.0, 6.0]) == "3.00 ± 2.65"
    assert experiment.mean_and_spread([1.26], 1) == "1.3"
    rows = [{"a": 1, "b": 2.0, "c": "x"}, {"a": 2, "b": 6.0, "c": "y"}]
    assert experiment.means(rows, "a", "b") == {"a": 1.5, "b": 4.0}


def test_the_dense_network_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the weights that the recipe's seed gives; another process is waited for by nobody."""
    fits: list[dict[str, torch.Tensor]] = []

    def fit(network: nn.Module, task: Any, recipe: Any, **_: Any) -> None:
        fits.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        nn.init.zeros_(network.get_parameter("head.weight"))

    monkeypatch.setattr(experiment, "fit", fit)
    with experiment.claimed(tmp_path), pytest.raises(experiment.Busy, match="another process trains"):
        experiment.dense_network(small.Small, None, mp.Recipe(1), tmp_path)
    recipe = mp.Recipe(1, seed=5)
    networks = [experiment.dense_network(small.Small, None, recipe, tmp_path) for _ in range(2)]
    torch.manual_seed(5)
    expected = small.Small()
    assert len(fits) == 1
    assert torch.equal(fits[0]["head.weight"], expected.head.weight)
    for network in networks:
        assert not network.training
        assert not network.get_parameter("head.weight").any()
        assert torch.equal(network.get_parameter("stem.weight"), expected.stem.weight)
