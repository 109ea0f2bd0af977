"""Weights cut from folder to folder: the same as those of a network cut in memory."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import metaprune as mp
from metaprune.graph.errors import MetapruneError, PlanError
from metaprune.surgery import files
from metaprune.surgery.files import INDEX


class Block(nn.Module):
    """Attention whose scale hangs on the head size, and a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.q, self.k, self.v = nn.Embedding(20, 16), *(nn.Linear(16, 16) for _ in range(3))
        self.out, self.head = nn.Linear(16, 16), nn.Linear(16, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v = (one(x).unflatten(-1, (4, -1)).transpose(1, 2) for one in (self.q, self.k, self.v))
        return self.head(x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


class Scaled(nn.Module):
    """A number that code computes from a size."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return self.two(x * x.shape[-1] ** -0.5)


IDS = torch.zeros(1, 5, dtype=torch.int64)


def written(model: nn.Module, folder: Path, shards: int = 1) -> Path:
    """The weights as Hugging Face writes them: tied ones once."""
    folder.mkdir()
    held = {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if name != "head.weight"}
    names = list(held)
    if shards == 1:
        save_file(held, folder / "model.safetensors")
        return folder
    places = {name: f"model-{place % shards}.safetensors" for place, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: held[name] for name in names if places[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    return folder


def half(graph: mp.ChannelGraph) -> mp.Plan:
    return mp.Plan({name: range(0, axis.size, 2) for name, axis in graph.free.items()})


@cache
def traced(where: str) -> mp.ChannelGraph:
    with torch.device(where):
        return mp.trace(Block(), (IDS.to(where),))


@cache
def cut_in_memory() -> tuple[nn.Module, nn.Module]:
    """The network before the cut by half, and after it."""
    torch.manual_seed(0)
    model = Block()
    return model, mp.slice(model, traced("cpu"), half(traced("cpu")))


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("where", ["cpu", "meta"])
def test_it_is_the_cut_in_memory(shards: int, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, small = cut_in_memory()
    graph = traced(where)
    assert sorted(axis.size for axis in graph.free.values()) == [4, 4, 16]
    plan = half(graph)
    monkeypatch.setattr(files, "SHARD", 1500)
    out = mp.slice_files(written(model, tmp_path / "in", shards), graph, plan, tmp_path / "out")
    said = json.loads((out / INDEX).read_text(encoding="utf-8"))
    found: dict[str, Tensor] = {}
    for file in sorted(set(said["weight_map"].values())):
        held = load_file(out / file)
        assert {name for name, place in said["weight_map"].items() if place == file} == held.keys()
        found |= held
    assert len(set(said["weight_map"].values())) > 1
    assert said["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    assert mp.Plan.from_json((out / "plan.json").read_text(encoding="utf-8")) == plan
    wanted = small.state_dict()
    assert found.keys() == wanted.keys() - {"head.weight"}
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=0)
    scaled = model.q.weight.detach()[::2, ::2] * 0.5**0.5  # two of four channels in each head
    torch.testing.assert_close(found["q.weight"], scaled)


def test_a_number_that_files_do_not_say_is_refused(tmp_path: Path) -> None:
    model = Scaled()
    graph = mp.trace(model, (torch.ones(2, 4),))
    folder = written(model, tmp_path / "in")
    with pytest.raises(PlanError, match=r"computes with a number .* mp\.slice"):
        mp.slice_files(folder, graph, half(graph), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def outside(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"q.weight": "../secret.safetensors"}}), encoding="utf-8")


def other_sizes(folder: Path) -> None:
    held = load_file(folder / "model.safetensors")
    save_file({**held, "q.weight": torch.zeros(3, 3)}, folder / "model.safetensors")


def without(folder: Path) -> None:
    held = load_file(folder / "model.safetensors")
    save_file({name: tensor for name, tensor in held.items() if name != "q.weight"}, folder / "model.safetensors")


def with_more(folder: Path) -> None:
    held = load_file(folder / "model.safetensors")
    save_file({**held, "more": torch.zeros(3)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "got none that can be read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"PK\x03\x04"), "got none that can be read"),
        (lambda folder: (folder / INDEX).write_text("[1]", encoding="utf-8"), "got none that can be read"),
        (outside, "is no file of the folder"),
        (other_sizes, r"expected 'q.weight' of sizes \(16, 16\), as in the graph, got \(3, 3\)"),
        (without, "lack 'q.weight'"),
        (with_more, "no tensor 'more'"),
        (lambda folder: (folder.parent / "out" / "mine").mkdir(parents=True), "is not empty"),
    ],
)
def test_what_does_not_fit_is_refused(harm: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    graph = traced("cpu")
    folder = written(Block(), tmp_path / "in")
    harm(folder)
    before = {path: path.is_dir() or path.read_bytes() for path in sorted(tmp_path.rglob("*"))}
    with pytest.raises(MetapruneError, match=words) as caught:
        mp.slice_files(folder, graph, half(graph), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert {path: path.is_dir() or path.read_bytes() for path in sorted(tmp_path.rglob("*"))} == before


@pytest.mark.parametrize(("shard", "count"), [(48, 1), (47, 2), (16, 3), (15, 3)])
def test_a_file_is_filled_to_its_last_byte(
    shard: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SHARD", shard)
    files._write(tmp_path, iter([(name, torch.zeros(4)) for name in "abc"]))
    said = json.loads((tmp_path / INDEX).read_text())
    assert len(set(said["weight_map"].values())) == count
    assert said["metadata"]["total_size"] == 48
