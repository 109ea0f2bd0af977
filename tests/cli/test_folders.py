"""Folders of commands: one run at a time, files of others stay, and dense weights are those that were asked for."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.cli.test_bad_input import PRUNE, refused
from tests.methods import small

from metaprune.cli.resolve import UsageError
from metaprune.cli.weights import train_dense
from metaprune.train.folder import alone_in


@pytest.mark.parametrize("command", [f"prune resnet8 {PRUNE}", "demo --out OUT"])
def test_the_second_run_in_a_folder_is_told(command: str, tmp_path: Path) -> None:
    inside, done = threading.Event(), threading.Event()

    def first() -> None:
        with alone_in(tmp_path, "first"):
            inside.set()
            done.wait(300)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(300)
    try:
        assert "another run works in" in refused(command.replace("OUT", str(tmp_path)))
        assert [path.name for path in tmp_path.iterdir()] == [".metaprune-lock"]
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize(
    "name", ["plan.json", "model.safetensors", "report.json", "report.html", "run.json", "budget.json", "MODEL_CARD.md"]
)
def test_files_of_others_are_seen_before_the_work(name: str, tmp_path: Path) -> None:
    for taken in {name, "README.md"}:
        (tmp_path / taken).write_text("mine")
    line = refused(f"prune resnet8 {PRUNE.replace('OUT', str(tmp_path))}")
    assert name in line
    assert "not written by metaprune" in line
    assert {path.name for path in tmp_path.iterdir()} == {name, "README.md"}
    assert (tmp_path / name).read_text() == "mine"


def test_a_folder_named_as_a_probe_once_was(tmp_path: Path) -> None:
    for name in (".writable", "probe.tmp"):
        (tmp_path / name).write_text("mine")
    refused(f"prune resnet8 {PRUNE.replace('OUT', str(tmp_path))} --data nowhere")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {".writable": "mine", "probe.tmp": "mine"}


def dense() -> small.Small:
    torch.manual_seed(1)
    return small.Small()


def trained(folder: Path, epochs: int = 1, network: small.Small | None = None) -> dict[str, torch.Tensor]:
    return train_dense(network or dense(), small.task(), small.recipe(epochs), folder, "pictures")


def test_dense_weights_are_used_again_without_checkpoints(tmp_path: Path) -> None:
    first = trained(tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    again = trained(tmp_path)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert list((tmp_path / "checkpoints").iterdir()) == []  # nothing was trained


def test_stale_dense_weights_are_noticed(tmp_path: Path) -> None:
    trained(tmp_path)
    held = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match=r"another training \(its epochs differ\)"):
        trained(tmp_path, epochs=2)
    other = dense()
    with torch.no_grad():
        other.head.bias += 1
    with pytest.raises(UsageError, match=r"another training \(its network differ\)"):
        trained(tmp_path, network=other)
    with pytest.raises(UsageError, match="lr"):
        train_dense(dense(), small.task(), replace(small.recipe(1), lr=0.3), tmp_path, "pictures")
    assert (tmp_path / "model.safetensors").read_bytes() == held


def test_dense_weights_of_others_are_left_alone(tmp_path: Path) -> None:
    save_file(dense().state_dict(), tmp_path / "model.safetensors")
    held = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="not trained by this command"):
        trained(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UsageError, match="is not what was trained here"):
        trained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == held


def test_dense_weights_of_the_first_version_are_taken_if_they_are_the_checkpoints(tmp_path: Path) -> None:
    first = trained(tmp_path)
    save_file(first, tmp_path / "model.safetensors")  # it noted nothing
    again = trained(tmp_path)
    assert all(torch.equal(first[name], again[name]) for name in first)
