"""A zoo of small networks: chosen as told, the same after a kill, shared by processes."""

import json
import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.methods.graph_metanetwork.learning.zoo import Variant, ZooError, entries, grow, known, networks, variants
from metaprune.train import Task
from tests.methods import small

VARIANTS = [
    Variant("small", {"classes": 3}, seed=1, width=0.5),
    Variant("small", {"classes": 4}, seed=2, cut=0.6),
]


class Net(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(2)
        )
        self.head = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean(2))


BUILDERS = {"small": Net}


def zoo(folder: Path, chosen: list[Variant] = VARIANTS, task: Task | None = None, **fields: object) -> list:
    arguments = {"recipe": small.recipe(2), "snapshots": [1], "data": "pictures", "progress": False} | fields
    return grow(folder, BUILDERS, chosen, small.EXAMPLE, task or small.task(), **arguments)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.[sj]*"))}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    zoo(folder)
    return folder


def test_what_is_stored_is_what_was_trained(grown: Path) -> None:
    found = {entry.variant.seed: entry for entry in entries(grown)}
    assert [found[variant.seed].variant for variant in VARIANTS] == VARIANTS
    assert len(found) == 2
    models = networks(grown, BUILDERS, small.EXAMPLE)
    assert set(models) == {name for v in VARIANTS for name in (v.name, f"{v.name}@1")}
    for entry in found.values():
        metric = mp.evaluate(models[entry.variant.name], small.task().val, small.task(), small.recipe())
        assert metric == pytest.approx(entry.metric)
    narrow, cut = (models[variant.name] for variant in VARIANTS)
    assert narrow.layers[0].out_channels == 4
    assert narrow.head.out_features == 3
    whole = models[f"{VARIANTS[1].name}@1"]
    costs = [mp.macs(mp.trace(model, small.EXAMPLE)) for model in (cut, whole)]
    assert costs[0] <= 0.6 * costs[1]
    assert not torch.equal(narrow.head.weight, models[f"{VARIANTS[0].name}@1"].head.weight)
    assert set(networks(grown, BUILDERS, small.EXAMPLE, snapshots=False)) == {v.name for v in VARIANTS}
    first = VARIANTS[0].name
    assert set(networks(grown, BUILDERS, small.EXAMPLE, only=[first])) == {first, f"{first}@1"}
    assert (known(grown)["tuning"]["epochs"], known(grown)["tuning"]["lr"]) == (1, pytest.approx(0.005))
    assert not list(grown.rglob("checkpoints"))
    assert known(grown)["inputs"] == [[1, 8, 8]]


def test_finished_ones_are_kept(grown: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in grown.rglob("*.safetensors")}
    zoo(grown, VARIANTS[::-1])
    assert before == {path: path.stat().st_mtime_ns for path in grown.rglob("*.safetensors")}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("steps", [5, 14, 30, 41])
def test_the_same_after_a_kill(grown: Path, tmp_path: Path, steps: int) -> None:
    """In the first epoch, in the second, in the second network, and in its fine-tuning: 24, then 24 and 12 steps."""
    plain, left = small.task(), steps

    def loss(output: object, batch: object) -> Tensor:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return plain.loss(output, batch)

    with pytest.raises(Killed):
        zoo(tmp_path, task=replace(plain, loss=loss))
    zoo(tmp_path)
    assert contents(tmp_path) == contents(grown)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_two_processes_share_a_folder(grown: Path, tmp_path: Path) -> None:
    """One is killed while it trains; the other, which began with the second network, does all in the end."""
    torch.set_num_threads(1)
    children = []
    for chosen in (VARIANTS, VARIANTS[::-1]):
        child = os.fork()
        if child == 0:
            try:
                zoo(tmp_path, chosen)
            finally:
                os._exit(0)
        children.append(child)
        patience = time.monotonic() + 120
        while sum(path.is_dir() for path in tmp_path.iterdir()) < len(children):
            assert time.monotonic() < patience, "no process claimed a folder"
            time.sleep(0.01)
    os.kill(children[0], signal.SIGKILL)
    assert [os.waitpid(child, 0)[1] for child in children] == [signal.SIGKILL, 0]
    assert contents(tmp_path) == contents(grown)


def test_variants_are_all_combinations_and_more_can_follow() -> None:
    choose = partial(variants, ["a", "b"], vary={"depth": [1, 2]}, widths=[1.0, 0.5], cuts=[1.0], seed=3)
    found = choose(8)
    assert len({(v.network, v.builds["depth"], v.width) for v in found}) == 8
    assert [v.seed for v in found] == list(range(3, 11))
    assert choose(11)[:8] == found
    assert len({v.name for v in choose(11)}) == 11


def test_what_it_refuses(grown: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="its recipe differ"):
        zoo(grown, recipe=small.recipe(3))
    with pytest.raises(ZooError, match="its data differ"):
        zoo(grown, data="others")
    with pytest.raises(ZooError, match="got large"):
        zoo(tmp_path, [Variant("large")])
    with pytest.raises(ZooError, match="epochs 1 to 2, got 3"):
        zoo(tmp_path, snapshots=[3])
    with pytest.raises(ZooError, match="cut in"):
        Variant("small", cut=0.0)
    with pytest.raises(ZooError, match="a count from 1"):
        variants(["small"], 0)
    with pytest.raises(ZooError, match=r"cannot read .*zoo\.json"):
        entries(tmp_path)
    assert not list(tmp_path.iterdir())
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(ZooError, match="name another folder"):
        zoo(taken)
    with pytest.raises(ZooError, match="a builder of 'small'"):
        networks(grown, {}, small.EXAMPLE)


def test_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "zoo.json").write_text('{"format": "another"}')
    with pytest.raises(ZooError, match="of format"):
        known(tmp_path)
    (tmp_path / "zoo.json").write_text(json.dumps({"format": "metaprune.zoo.1"}))
    with pytest.raises(ZooError, match="none of the networks"):
        entries(tmp_path)
    home = tmp_path / "one"
    home.mkdir()
    (home / "entry.json").write_text("{}")
    with pytest.raises(ZooError, match="damaged"):
        entries(tmp_path)
    plan = {"file": "", "metric": 1.0, "variant": {"network": "small", "builds": {"classes": 3}}}
    (home / "entry.json").write_text(json.dumps(plan | {"files": {"model.safetensors": {}}}))
    with pytest.raises(ZooError, match="missing or does not fit"):
        networks(tmp_path, BUILDERS, small.EXAMPLE)
