"""Checkpoints: what goes in comes out, and damage is noticed."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from metaprune.train import Checkpoint, CheckpointError, Recipe, Task, fit

TREE: dict[str, Any] = {
    "weights": {"a": torch.randn(3, 4), "half": torch.randn(5).bfloat16(), "scalar": torch.tensor(7)},
    "none": torch.empty(0, 3),
    0: [1, 2.5, None, True, "text", (1, [torch.tensor([True, False])])],
    "empty": {},
    "tensor": {"dict": "not what it seems"},
    "infinite": float("inf"),
}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "new" / "folder")
    assert checkpoint.load() is None
    checkpoint.save(TREE)
    assert equal(checkpoint.load(), TREE)


def test_tied_and_turned_tensors(tmp_path: Path) -> None:
    tensor = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    Checkpoint(tmp_path).save([tensor, tensor, tensor.transpose(0, 1), tensor[:, :1].expand(2, 3, 4, 5)])
    one, two, turned, expanded = Checkpoint(tmp_path).load()
    assert torch.equal(one, tensor)
    assert torch.equal(two, tensor)
    assert torch.equal(turned, tensor.transpose(0, 1))
    assert torch.equal(expanded[:, 2], tensor[:, 0])


def test_what_was_saved_does_not_change_with_the_tensor(tmp_path: Path) -> None:
    tensor = torch.zeros(3)
    Checkpoint(tmp_path).save({"x": tensor})
    tensor += 1
    loaded = Checkpoint(tmp_path).load()
    Checkpoint(tmp_path).save({"x": tensor})
    assert loaded["x"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("leaf", [object(), np.zeros(3), {1.5: 2}, {None: 1}])
def test_what_cannot_be_held(tmp_path: Path, leaf: object) -> None:
    Checkpoint(tmp_path).save({"x": 1})
    with pytest.raises(CheckpointError, match="expected"):
        Checkpoint(tmp_path).save({"x": leaf})
    assert Checkpoint(tmp_path).load() == {"x": 1}


def cut_off(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 16
    path.write_bytes(content)


def change_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"second", b"sekond"))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_off, cut_in_the_header, flip_a_bit, change_the_header, empty])
def test_damage_is_noticed_and_the_one_before_is_used(tmp_path: Path, damage: Any) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"name": "first", "x": torch.zeros(100)})
    checkpoint.save({"name": "second", "x": torch.ones(100)})
    damage(checkpoint.newest)
    with pytest.warns(UserWarning, match="damaged.*going back to the checkpoint before it"):
        tree = checkpoint.load()
    assert tree["name"] == "first"
    checkpoint.save({"name": "third"})
    cut_off(checkpoint.newest)
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoint.load()["name"] == "first"  # the damaged one did not push it out


def test_all_of_it_damaged(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({})
    checkpoint.save({})
    cut_off(checkpoint.newest)
    cut_off(checkpoint.previous)
    with pytest.raises(CheckpointError, match=r"damaged.*delete the folder or give another"):
        checkpoint.load()


def test_killed_between_the_two_renames(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"step": 1})
    checkpoint.newest.rename(checkpoint.previous)
    checkpoint.newest.with_name(".checkpoint.safetensors.metaprune-unfinished").write_bytes(b"half a file")
    assert checkpoint.load() == {"step": 1}
    checkpoint.save({"step": 2})
    assert checkpoint.load() == {"step": 2}


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": [1.0]}))


def write_torch(path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, path)


def write_weights(path: Path) -> None:
    save_file({"weight": torch.ones(2)}, path)


def write_json(path: Path) -> None:
    path.write_text(json.dumps({"a": 1}))


@pytest.mark.parametrize("write", [write_pickle, write_torch, write_weights, write_json])
def test_foreign_files_are_refused_and_left_alone(
    tmp_path: Path, write: Any, network: nn.Module, task: Task, recipe: Recipe
) -> None:
    checkpoint = Checkpoint(tmp_path)
    write(checkpoint.newest)
    content = checkpoint.newest.read_bytes()
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors: .*delete the folder or give another"):
        fit(network, task, recipe, checkpoint=tmp_path, progress=False)
    assert checkpoint.newest.read_bytes() == content


def test_folders_that_cannot_be_written(tmp_path: Path, network: nn.Module, task: Task, recipe: Recipe) -> None:
    (tmp_path / "file").write_text("in the way")
    checkpoint = Checkpoint(tmp_path / "file" / "run")
    before = network[0].weight.clone()
    with pytest.raises(CheckpointError, match="cannot be written"):
        fit(network, task, recipe, checkpoint=checkpoint, progress=False)
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoint.save({})
    assert torch.equal(before, network[0].weight)
