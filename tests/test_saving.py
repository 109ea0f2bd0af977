"""A pruned network on disk: it comes back the same, or one clear line says why not; never a pickle."""

import copy
import json
import pickle
import warnings
import zipfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import metaprune as mp
from metaprune.graph.errors import MetapruneError
from metaprune.report.report import from_json, to_json
from metaprune.saving import ABOUT, WEIGHTS, SavingError, _numbers, load, read_weights, save
from metaprune.session import measuring
from metaprune.surgery.slice import carve
from tests.laws import oracle
from tests.methods import small
from tests.zoo import ZOO

FILES = {"README.md", "model.safetensors", "plan.json", "report.html", "report.json"}


@pytest.fixture(scope="module")
def result() -> mp.Result:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "latencies", partial(measuring.latencies, seconds=0.001))
        return mp.prune(
            small.network(),
            small.EXAMPLE,
            method=mp.DHP(),
            budget=mp.Budget(params=0.5, multiple_of=4),
            task=small.task(),
            recipe=small.recipe(2),
            progress=False,
        )


@cache
def cut(name: str) -> tuple[Any, ...]:
    model, args, kwargs = ZOO[name].example()
    graph = mp.trace(model, args, kwargs)
    done = carve(model, graph, oracle.half(graph))
    return model, args, kwargs, graph, done


def refusal(call: Any, *args: Any) -> str:
    """The one line with which the call is refused."""
    with pytest.raises(SavingError) as caught:
        call(*args)
    line = str(caught.value)
    assert "\n" not in line
    assert 20 < len(line) < 500
    return line


def test_save_and_load(result: mp.Result, tmp_path: Path) -> None:
    folder = result.save(tmp_path / "new" / "folder")
    assert {path.name for path in folder.iterdir()} == FILES
    assert mp.Plan.from_json((folder / "plan.json").read_text()) == result.plan
    assert from_json((folder / "report.json").read_text()) == result.report
    assert "<html" in (folder / "report.html").read_text()

    model = small.Small()
    before = oracle.fingerprint(model)
    again = mp.load(folder, model)
    assert oracle.fingerprint(model) == before
    assert type(again) is small.Small
    assert oracle.fingerprint(again) == oracle.fingerprint(result.model)
    example = (torch.randn(3, 1, 8, 8),)
    for network in (result.model, again):
        network.eval()
    assert oracle.distance(oracle.call(result.model, example, {}), oracle.call(again, example, {})) == 0
    assert again.wide[2].groups == again.wide[2].in_channels == result.plan.widths["wide.0"]


def test_saving_twice_overwrites(result: mp.Result, tmp_path: Path) -> None:
    def held() -> dict[str, bytes]:  # the order of metadata in safetensors is anybody's guess
        return {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name in FILES - {WEIGHTS}}

    result.save(tmp_path)
    before, weights = held(), load_file(tmp_path / WEIGHTS)
    result.save(tmp_path)
    assert held() == before
    assert {path.name for path in tmp_path.iterdir()} == FILES
    again = load_file(tmp_path / WEIGHTS)
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_a_network_that_somebody_else_trained_is_saved_without_a_report(result: mp.Result, tmp_path: Path) -> None:
    """Decide, cut, train in a loop of one's own, save, load: no session takes part. An old report does not stay."""
    torch.manual_seed(0)
    model = small.Small()
    graph = mp.trace(model, small.EXAMPLE)
    plan = mp.plan(model, small.EXAMPLE, method=mp.Magnitude(), budget=mp.Budget(macs=0.5), graph=graph)
    cut = mp.slice(model, graph, plan)
    optimizer = torch.optim.SGD(cut.parameters(), 0.1)
    for images, labels in small.task().train:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(cut(images), labels).backward()
        optimizer.step()
    result.save(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    mp.save(tmp_path, cut, plan, graph)
    assert {path.name for path in tmp_path.iterdir()} == {"plan.json", "model.safetensors", "mine.txt"}
    again = mp.load(tmp_path, model)
    assert all(map(torch.equal, again.state_dict().values(), cut.state_dict().values()))
    assert torch.equal(again.eval()(small.EXAMPLE[0]), cut.eval()(small.EXAMPLE[0]))


def test_a_loaded_network_trains_and_is_pruned_again(result: mp.Result, tmp_path: Path) -> None:
    again = mp.load(result.save(tmp_path), small.Small())
    assert all(p.requires_grad and p.is_leaf for p in again.parameters())
    mp.fit(again, small.task(), small.recipe(1), progress=False)
    graph = mp.trace(again, small.EXAMPLE)
    assert {name: axis.size for name, axis in graph.free.items()} == {
        name: result.plan.widths.get(name, axis.size) for name, axis in result.graph.free.items()
    }


@pytest.mark.parametrize(
    "name",
    [
        *("resnet_pad", "resnext", "gpt", "attention_timm", "edsr"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("densenet", "convnext", "tied_autoencoder")),
    ],
)
def test_networks_that_keep_numbers_and_ties(name: str, result: mp.Result, tmp_path: Path) -> None:
    _, args, kwargs, graph, done = cut(name)
    folder = save(tmp_path, done.model, done.plan, graph, result.report)
    fresh, *_ = ZOO[name].example(seed=9)
    again = load(folder, fresh)
    assert oracle.distance(oracle.call(done.model, args, kwargs), oracle.call(again, args, kwargs)) == 0
    ties = {n: id(p) for n, p in again.named_parameters(remove_duplicate=False)}
    expected = {n: id(p) for n, p in done.model.named_parameters(remove_duplicate=False)}
    assert len(ties) == len(expected)
    assert len(set(ties.values())) == len(set(expected.values()))
    held = {t.untyped_storage().data_ptr() for t in fresh.state_dict().values()}
    assert not held & {t.untyped_storage().data_ptr() for t in [*again.parameters()]}, (
        "training the loaded network must not move the given one"
    )


def test_modes_and_freezing_are_those_of_the_given_network(result: mp.Result, tmp_path: Path) -> None:
    folder = result.save(tmp_path)
    model = small.Small().eval()
    model.head.bias.requires_grad_(False)
    again = load(folder, model)
    assert not again.training
    assert not again.head.bias.requires_grad
    assert again.head.weight.requires_grad


def test_exported_it_computes_the_same(result: mp.Result, tmp_path: Path) -> None:
    again = mp.load(result.save(tmp_path), small.Small()).eval()
    example = (torch.randn(2, 1, 8, 8),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = mp.export(again, example, tmp_path / "small.pt2")
        loaded = torch.export.load(path).module()
    assert oracle.distance(oracle.call(again, example, {}), oracle.call(loaded, example, {})) < 1e-5


def test_nothing_is_pickled(result: mp.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("pickle was used")

    for name in ("load", "loads", "dump", "dumps"):
        monkeypatch.setattr(pickle, name, never)
    monkeypatch.setattr(torch, "load", never)
    monkeypatch.setattr(torch, "save", never)
    load(result.save(tmp_path), small.Small())


# Files that are not what they should be.


def test_damaged_weights(result: mp.Result, tmp_path: Path) -> None:
    folder = result.save(tmp_path)
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    damages = {
        "cut off": whole[: len(whole) // 2],
        "empty": b"",
        "a few bytes": whole[:5],
        "another header": b"\xff" * 8 + whole[8:],
        "more behind": whole + b"more",
        "text": b"these are no weights at all, just a line of text",
    }
    for damage in damages.values():
        path.write_bytes(damage)
        assert "no safetensors file" in refusal(load, folder, small.Small())
        assert "no safetensors file" in refusal(read_weights, path)


class Bomb:
    """What a pickle can do."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("bomb-went-off"),))


def test_a_pickle_is_never_opened(result: mp.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = result.save(tmp_path / "saved")
    torch.save(small.Small().state_dict(), folder / "model.safetensors")
    assert "pickles are never opened" in refusal(load, folder, small.Small())
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    assert "pickles are never opened" in refusal(load, folder, small.Small())
    assert not Path("bomb-went-off").exists()


def test_nothing_there(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "no such folder"):
        assert "no file" in refusal(load, folder, small.Small())
    (tmp_path / "model.safetensors").mkdir()
    refusal(load, tmp_path, small.Small())


def test_plain_weights_are_not_a_pruned_network(tmp_path: Path) -> None:
    state = small.Small().state_dict()
    save_file(state, tmp_path / "model.safetensors")
    assert "not written by" in refusal(load, tmp_path, small.Small())
    tensors, meta = read_weights(tmp_path / "model.safetensors")
    assert set(tensors) == set(state)
    assert all(torch.equal(tensors[name], state[name]) for name in state)
    assert meta == {}


class Deeper(small.Small):
    """One layer more."""

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Linear(3, 3)


class Narrower(small.Small):
    """A head for two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(24, 2)


class Wider(small.Small):
    """A head for four classes: the saved one does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(24, 4)


class Tied(small.Small):
    """Two norms in one."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = self.norm


@pytest.mark.parametrize("kind", [Deeper, Narrower, Wider, lambda: nn.Linear(3, 4)])
def test_another_network(kind: Any, result: mp.Result, tmp_path: Path) -> None:
    model = kind()
    before = oracle.fingerprint(model)
    line = refusal(load, result.save(tmp_path), model)
    assert type(model).__name__ in line
    assert "does not fit" in line
    assert oracle.fingerprint(model) == before


def test_a_tie_that_was_not_there(result: mp.Result, tmp_path: Path) -> None:
    load(result.save(tmp_path), Tied())  # more names for what was saved are fine
    _, _, _, graph, done = cut("gpt")
    folder = save(tmp_path / "gpt", done.model, done.plan, graph, result.report)
    untied = copy.deepcopy(ZOO["gpt"].example()[0])
    untied.lm_head.weight = nn.Parameter(untied.lm_head.weight.detach().clone())
    assert "does not fit" in refusal(load, folder, untied)


# Folders that cannot be written.


def test_a_file_in_the_way_of_the_folder(result: mp.Result, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        assert "cannot write" in refusal(result.save, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("blocked", sorted(FILES))
def test_nothing_half_written(blocked: str, result: mp.Result, tmp_path: Path) -> None:
    """What can be written is all or nothing: a folder in the way of one file leaves none of the others."""
    (tmp_path / blocked).mkdir()
    refusal(result.save, tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == [blocked]


def test_what_was_saved_before_survives_a_failure(
    result: mp.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk while the weights are written."""
    folder = result.save(tmp_path)
    held = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    other = copy.deepcopy(result.model)
    with torch.no_grad():
        other.get_parameter("head.bias").add_(1)
    assert "No space" in refusal(save, folder, other, mp.Plan({}), result.graph, result.report)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == held


def test_a_report_survives_json(result: mp.Result) -> None:
    assert from_json(to_json(result.report)) == result.report
    with pytest.raises(MetapruneError):
        from_json(json.dumps({"format": 1}))


def test_weights_of_a_device_that_is_not_here_are_read(tmp_path: Path) -> None:
    """As a file of torch's has them that was written on a GPU."""
    state, path = {"weight": torch.arange(6.0).reshape(2, 3)}, tmp_path / "gpu.pt"
    torch.save(state, tmp_path / "cpu.pt")
    with zipfile.ZipFile(tmp_path / "cpu.pt") as given, zipfile.ZipFile(path, "w") as written:
        for name in given.namelist():
            old, new = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:9"
            written.writestr(name, given.read(name).replace(old, new))
    with pytest.raises((RuntimeError, AssertionError)):
        torch.load(path, weights_only=True)
    found, _ = read_weights(path)
    assert torch.equal(found["weight"], state["weight"])
    assert found["weight"].device.type == "cpu"


# Cards beside a README of others.


def test_a_readme_of_others_stays_and_the_card_is_beside_it(result: mp.Result, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("my project")
    for _ in range(2):
        result.save(tmp_path)
        assert (tmp_path / "README.md").read_text() == "my project"
        assert {path.name for path in tmp_path.iterdir()} == FILES | {"MODEL_CARD.md"}
    card = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: metaprune")
    (tmp_path / "MODEL_CARD.md").write_text(card.replace("metaprune", "Metaprune"), encoding="utf-8")
    assert "was changed since" in refusal(result.save, tmp_path)


def test_a_card_that_was_edited_is_the_users(result: mp.Result, tmp_path: Path) -> None:
    result.save(tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(f"{card}And it is mine.\n", encoding="utf-8")
    result.save(tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8").endswith("And it is mine.\n")
    assert (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8") == card


def test_names_that_are_no_text(result: mp.Result, tmp_path: Path) -> None:
    """A file name of odd bytes reaches the report as Python gives it; the texts are UTF-8 all the same."""
    odd = b"mod\xe8le \xd1\x84".decode("ascii", "surrogateescape")
    report = replace(result.report, network=odd, commands=(f"metaprune prune {odd}",))
    folder = save(tmp_path, result.model, result.plan, result.graph, report)
    assert from_json((folder / "report.json").read_text(encoding="ascii")) == report
    for name in ("report.html", "README.md"):
        assert "mod\\xe8le ф" in (folder / name).read_text(encoding="utf-8")
    save(tmp_path, result.model, result.plan, result.graph, report)
    assert not (folder / "MODEL_CARD.md").exists()


def test_a_folder_of_transformers_is_called_so(tmp_path: Path) -> None:
    """Its weights are nobody's to replace, though metaprune wrote them."""
    _, _, _, graph, done = cut("gpt")
    (tmp_path / ABOUT).write_text("{}")
    save_file({"a": torch.zeros(2)}, tmp_path / WEIGHTS)
    before = (tmp_path / WEIGHTS).read_bytes()
    with pytest.raises(SavingError, match=r"holds a network of transformers.*model.safetensors stays; name another"):
        save(tmp_path, done.model, done.plan, graph)
    assert (tmp_path / WEIGHTS).read_bytes() == before


def test_numbers_of_the_first_format_that_are_one_are_passed_over_where_they_are_one() -> None:
    """Whole numbers of the network's: not a float, not another number, not a word."""
    model = nn.Linear(6, 4)
    model.one, model.two, model.real, model.word = 1, 2, 1.0, "one"  # type: ignore[assignment]
    assert _numbers({":one": 1, ":out_features": 3}, model) == {("", "out_features"): 3}
    for name in ("real", "word", "bias", "missing"):
        with pytest.raises(ValueError, match=name):
            _numbers({f":{name}": 1}, model)
