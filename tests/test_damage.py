"""A bit turned over or the end cut off, in any file of a result or a run: noticed in one line, or without effect."""

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import metaprune as mp
from metaprune.cli.resolve import report_in
from metaprune.cli.weights import train_dense
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.report.texts import is_ours
from metaprune.run_folder import RunFolder, remembered
from metaprune.session import measuring
from metaprune.train.checkpoint import Checkpoint
from metaprune.train.task import settings_of
from tests.laws import oracle
from tests.methods import small

FILES = [
    "model.safetensors",
    "plan.json",
    "report.json",
    "report.html",
    "README.md",
    "run.json",
    "budget.json",
    "checkpoints/search/checkpoint.safetensors",
    "checkpoints/search/previous.safetensors",
    "checkpoints/fine-tuning/checkpoint.safetensors",
    "dense/model.safetensors",
    "dense/checkpoints/checkpoint.safetensors",
]
METHOD, BUDGET, RECIPE = mp.DHP(search=0.5), mp.Budget(params=0.5, multiple_of=4), small.recipe(4)
LATENCY = mp.Budget(latency=1.0)


@dataclass
class Run:
    """A finished run with its result, and how each of its files is read."""

    folder: Path
    graph: ChannelGraph
    model: small.Small

    def reader(self, name: str) -> Callable[[], Any]:
        """What reads the file, as whoever goes on with the run or uses the result does."""
        place = self.folder / name
        if name.startswith("dense/model"):
            return lambda: bits(train_dense(dense(), small.task(), small.recipe(1), self.folder / "dense", "small"))
        if "checkpoints" in name:
            return lambda: flat(Checkpoint(place.parent).load())
        if name == "run.json":
            return lambda: RunFolder.claim(self.folder, self.model, self.graph, *self.identity).path
        if name == "budget.json":
            return lambda: remembered(self.folder, LATENCY)
        if name == "report.json":
            return lambda: report_in(self.folder)
        if name in ("report.html", "README.md"):
            return lambda: ours(place)
        return lambda: oracle.fingerprint(mp.load(self.folder, small.Small()))

    @property
    def identity(self) -> tuple[Any, ...]:
        return METHOD, BUDGET, RECIPE, "user's data", settings_of(small.task().train)


def ours(place: Path) -> bool:
    """These are read by people alone; one that is not as it was written is not replaced either."""
    if not is_ours(place):
        raise MetapruneError("changed")
    return True


def dense() -> small.Small:
    torch.manual_seed(1)
    return small.Small()


def bits(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def flat(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: flat(inner) for name, inner in tree.items()}
    if isinstance(tree, list | tuple):
        return [flat(inner) for inner in tree]
    return tree.numpy().tobytes() if isinstance(tree, Tensor) else repr(tree)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("damage") / "run"
    torch.set_num_threads(1)
    model = small.network()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "latencies", partial(measuring.latencies, seconds=0.001))
        result = mp.prune(
            model,
            small.EXAMPLE,
            method=METHOD,
            budget=BUDGET,
            task=small.task(),
            recipe=RECIPE,
            out=folder,
            progress=False,
        )
    result.save(folder)
    train_dense(dense(), small.task(), small.recipe(1), folder / "dense", "small")
    RunFolder(folder).remember(LATENCY, {"anchors": [[{}, 1.5], [{"a": 3}, 0.75]], "multiple_of": 8})
    return Run(folder, result.graph, model)


def outcome(read: Callable[[], Any]) -> tuple[Any, str]:
    """What was read, or in one line why not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of going back to the checkpoint before: that is noticed, too
        try:
            return read(), ""
        except MetapruneError as error:
            return None, str(error)


def survives(run: Run, name: str, damages: list[Callable[[bytes], bytes]]) -> None:
    path, read = run.folder / name, run.reader(name)
    beside = {place: place.read_bytes() for place in path.parent.iterdir() if place.is_file()}
    accepted = [read()]
    if path.name == "checkpoint.safetensors" and path.with_name("previous.safetensors") in beside:
        path.unlink()
        accepted.append(read())  # what was saved before
    try:
        for damage in damages:
            for place, whole in beside.items():
                place.write_bytes(damage(whole) if place == path else whole)
            found, said = outcome(read)
            assert "\n" not in said
            assert said or found in accepted, f"{name}: taken for something else"
    finally:
        for place, whole in beside.items():
            place.write_bytes(whole)


def flips(size: int, count: int, seed: int) -> list[Callable[[bytes], bytes]]:
    generator = random.Random(seed)

    def flip(place: int, bit: int) -> Callable[[bytes], bytes]:
        return lambda whole: whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]

    header = min(size, 2000)  # of which there is little, and it matters most
    return [flip(generator.randrange(header if i % 2 else size), generator.randrange(8)) for i in range(count)]


def cuts(size: int, count: int, seed: int) -> list[Callable[[bytes], bytes]]:
    generator = random.Random(seed)
    return [itemgetter(slice(generator.randrange(size))) for _ in range(count)]


def test_every_file_is_tried(run: Run) -> None:
    made = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    assert {name for name in made if "previous" not in name} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("count", [pytest.param(25, id="25"), pytest.param(200, id="200", marks=pytest.mark.slow)])
def test_bits_turned_over(name: str, count: int, run: Run) -> None:
    survives(run, name, flips((run.folder / name).stat().st_size, count, seed=count))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("count", [pytest.param(25, id="25"), pytest.param(200, id="200", marks=pytest.mark.slow)])
def test_ends_cut_off(name: str, count: int, run: Run) -> None:
    survives(run, name, cuts((run.folder / name).stat().st_size, count, seed=count + 1))
