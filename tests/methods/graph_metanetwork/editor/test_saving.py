"""A metanetwork on disk gives the same edits, and no file is trusted."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from metaprune.graph.errors import MetapruneError
from metaprune.methods.graph_metanetwork import load, save
from metaprune.methods.graph_metanetwork.expectation import Expectation
from metaprune.train.atomic import write_tensors
from tests.methods.graph_metanetwork.cases import case, stirred


@pytest.mark.parametrize("scored", ["channels", "axes", "both", "widths"])
def test_saved_and_loaded_it_edits_alike(scored: str, tmp_path: Path) -> None:
    """With all its settings, and its parameters bit for bit, of which its edits are a function."""
    told: dict[str, Any] = {"surveys": ["place", "kind"], "edits": False, "held": True} if scored == "both" else {}
    before = stirred(hidden=6, layers=2, step=0.05, relative=False, scored=scored, **told)
    save(before, tmp_path / "metanetwork.safetensors")
    after = load(tmp_path / "metanetwork.safetensors")
    assert after.config == before.config
    assert after.config == {"hidden": 6, "layers": 2, "step": 0.05, "relative": False, "scored": scored} | (
        told or {"surveys": [], "edits": True, "held": False}
    )
    ours, theirs = before.state_dict(), after.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    if not told:
        edited = before(case("resnet").read).weights
        for path, tensor in after(case("resnet").read).weights.items():
            assert torch.equal(tensor, edited[path])


def test_what_it_can_expect_goes_with_it(tmp_path: Path) -> None:
    """Where it is damaged, the file is refused."""
    metanetwork = stirred()
    metanetwork.expectation = Expectation(1.0, 2.0, 0.5, 1.0, 0.1, 0.3, 5)
    save(metanetwork, tmp_path / "knows.safetensors")
    assert load(tmp_path / "knows.safetensors").expectation == metanetwork.expectation
    save(stirred(), tmp_path / "knows not.safetensors")
    assert load(tmp_path / "knows not.safetensors").expectation is None
    for bad in ({"level": 1.0}, [1.0], "much", metanetwork.expectation.to_dict() | {"error": "little"}):
        about = {"format": "metaprune.metanetwork.1", "config": metanetwork.config, "expectation": bad}
        write_tensors(tmp_path / "bad.safetensors", metanetwork.state_dict(), about)
        with pytest.raises(MetapruneError, match="do not fit"):
            load(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("held", [False, True])
def test_files_of_before_there_was_a_choice_of_gates(held: bool, tmp_path: Path) -> None:
    metanetwork = stirred(held=held)
    older = {name: value for name, value in metanetwork.config.items() if name != "held"}
    for name, config in (("new", metanetwork.config), ("old", older)):
        about = {"format": "metaprune.metanetwork.1", "config": config}
        write_tensors(tmp_path / f"{name}.safetensors", metanetwork.state_dict(), about)
    assert load(tmp_path / "new.safetensors").held == held
    assert load(tmp_path / "old.safetensors").held


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "metanetwork.safetensors"
    with pytest.raises(MetapruneError, match="no file"):
        load(path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(MetapruneError, match="expected safetensors"):
        load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(MetapruneError, match="expected a metanetwork"):
        load(path)
    metanetwork = stirred()
    config = json.dumps({**metanetwork.config, "hidden": 2})
    tensors = {name: tensor.contiguous() for name, tensor in metanetwork.state_dict().items()}
    save_file(tensors, path, {"format": "metaprune.metanetwork.1", "config": config})
    with pytest.raises(MetapruneError, match="do not fit"):
        load(path)


def test_damage_and_sizes_that_are_another(tmp_path: Path) -> None:
    path = tmp_path / "metanetwork.safetensors"
    save(stirred(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 16]) + whole[-2:])
    with pytest.raises(MetapruneError, match="checksum"):
        load(path)
    tensors = stirred().state_dict()
    config = stirred().config
    for bad in ({"hidden": 2**40}, {"layers": 2**40}, {"step": "1"}, {"hidden": None}, {"more": 1}):
        save_file(tensors, path, {"format": "metaprune.metanetwork.1", "config": json.dumps({**config, **bad})})
        with pytest.raises(MetapruneError, match="do not fit"):
            load(path)
    for bad in (lambda t: t / 0, lambda t: t.long()):  # type: ignore[assignment]
        odd = {name: bad(tensor) for name, tensor in tensors.items()}  # type: ignore[operator]
        save_file(odd, path, {"format": "metaprune.metanetwork.1", "config": json.dumps(config)})
        with pytest.raises(MetapruneError, match="do not fit"):
            load(path)
    save_file(tensors, path, {"format": "metaprune.metanetwork.1", "config": "[" * 100_000})
    with pytest.raises(MetapruneError, match="damaged"):
        load(path)


def test_the_first_version_is_read(tmp_path: Path) -> None:
    metanetwork = stirred()
    header = {"format": "metaprune.metanetwork.1", "config": json.dumps(metanetwork.config)}
    save_file(metanetwork.state_dict(), tmp_path / "first.safetensors", header)
    again = load(tmp_path / "first.safetensors").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in metanetwork.state_dict().items())
