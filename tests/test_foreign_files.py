"""A result from elsewhere: whatever it says, it is refused in one line and changes nothing, or only says what stays."""

import copy
import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import metaprune as mp
from metaprune import saving
from metaprune.graph.errors import MetapruneError
from metaprune.surgery.slice import carve
from metaprune.train.atomic import read_json, read_tensors, write_tensors
from tests.laws import oracle


class Configured(nn.Module):
    """Numbers of every kind: of torch's modules, its own, in a list or configuration, of its class, of a property."""

    groups = 4
    switched = False

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 3)
        self.norm = nn.GroupNorm(2, 8)
        self.width, self.sizes = 8, [8, 3]
        self.config = type("Config", (), {})()
        self.config.hidden = 8
        self.register_buffer("mask", torch.full((3,), -torch.inf))

    @property
    def switch(self) -> int:
        return 2

    @switch.setter
    def switch(self, value: int) -> None:
        Configured.switched = True

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x).view(-1, self.width)).relu()
        return self.second(x) + self.mask.clamp(min=0)


EXAMPLE = (torch.zeros(2, 5),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result as it should be."""
    place = tmp_path_factory.mktemp("foreign") / "result"
    torch.manual_seed(0)
    model = Configured()
    graph = mp.trace(model, EXAMPLE)
    cut = carve(model, graph, mp.Plan({name: range(axis.size // 2) for name, axis in graph.free.items()}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "texts", lambda *_: {})
        saving.save(place, cut.model, cut.plan, graph, None)  # type: ignore[arg-type]
    return place


def forged(folder: Path, to: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], None]) -> Path:
    """The result with changes, and with a checksum that is right."""
    tensors, about = read_tensors(folder / "model.safetensors")
    assert about is not None
    change(about, tensors)
    to.mkdir(exist_ok=True)
    write_tensors(to / "model.safetensors", tensors, about)
    (to / "plan.json").write_bytes((folder / "plan.json").read_bytes())
    return to


def refusal(place: Path, model: nn.Module | None = None) -> str:
    model = model or Configured()
    before = oracle.fingerprint(model)
    with pytest.raises(MetapruneError) as caught:
        mp.load(place, model)
    assert oracle.fingerprint(model) == before
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 700
    return line


def test_the_result_is_as_it_should_be(folder: Path, tmp_path: Path) -> None:
    small = mp.load(forged(folder, tmp_path, lambda about, tensors: None), Configured())
    assert (small.width, small.first.out_features, small.second.in_features) == (2, 2, 2)
    assert small.mask.isinf().all()  # where the network's own is, a value need not be finite
    assert small(torch.ones(2, 5)).shape == (2, 3)


ROOT = ":register_buffer.__globals__."
HOSTILE = [
    f"{ROOT}warnings.sys.modules.secrets.DEFAULT_ENTROPY",
    f"{ROOT}warnings.sys.modules.json.decoder.NaN",
    f"{ROOT}torch.backends.cudnn.enabled",
    f"{ROOT}torch.manual_seed.__code__.co_firstlineno",
    f"{ROOT}overload.__defaults__.0",
    ":forward.__func__.__globals__.EXAMPLE.0",
    ":forward.__defaults__.0",
    ":forward.__kwdefaults__.x",
    ":__class__.groups",
    ":__class__.__dict__.groups",
    ":__class__.__mro__.1.call_super_init",
    ":__class__.__init__.__code__.co_argcount",
    ":__dict__.width",
    ":__dict__.training",
    ":__init__.__globals__.secrets.DEFAULT_ENTROPY",
    ":_modules.first.out_features",
    ":_parameters.x",
    ":_buffers.mask",
    ":_forward_hooks.0",
    ":training",
    ":switch",
    ":config.__class__.hidden",
    ":config.__dict__.hidden",
    ":config.other",
    ":sizes.2",
    ":sizes.-1",
    ":sizes.__len__",
    ":sizes.append",
    ":first.out_features",
    "first:weight.shape.0",
    "first:weight.data",
    "first:bias",
    "first:__constants__.0",
    "first:forward",
    "first.:out_features",
    "second:in_features.real",
    "norm:eps",
    "norm:num_groups.numerator",
    "nowhere:width",
    "",
    ":",
    "width",
    ":width ",
    ":mask",
    ":T_destination",
    ":dump_patches",
    ":call_super_init",
    ":__module__",
    ":__doc__",
]


@pytest.mark.parametrize("value", [0, 1, 3])
@pytest.mark.parametrize("first_format", [False, True])
def test_hostile_numbers_set_nothing(value: int, first_format: bool, folder: Path, tmp_path: Path) -> None:
    entropy, limit = secrets.DEFAULT_ENTROPY, sys.getrecursionlimit()
    assert len(HOSTILE) >= 30
    for key in HOSTILE:

        def change(about: dict[str, Any], tensors: dict[str, Tensor], key: str = key) -> None:
            about["numbers"] = {key: value}
            if first_format:
                about["dense"] = {name: list(t.shape) for name, t in oracle_shapes().items()}
                del about["format"], about["tensors"], about["axes"], about["plan"]

        assert "cannot be set" in refusal(forged(folder, tmp_path / "forged", change)), key
    assert (secrets.DEFAULT_ENTROPY, sys.getrecursionlimit()) == (entropy, limit)
    assert (Configured.groups, Configured.switched) == (4, False)
    assert Configured().switch == 2


def oracle_shapes() -> dict[str, Tensor]:
    return {**dict(Configured().named_parameters()), **dict(Configured().named_buffers())}


@pytest.mark.parametrize("value", [0, -1, 9, 2**70, 4.0, True, None, "4", [4]])
def test_numbers_out_of_range(value: Any, folder: Path, tmp_path: Path) -> None:
    def change(about: dict[str, Any], _: Any) -> None:
        about["numbers"][":width"] = value

    assert "':width' cannot be set" in refusal(forged(folder, tmp_path, change))


TENSORS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "flat": (lambda t: t.reshape(-1), "by the plan"),
    "turned": (lambda t: t.T.contiguous(), "by the plan"),
    "empty": (lambda t: torch.zeros(0), "by the plan"),
    "a row less": (lambda t: t[1:], "by the plan"),
    "dense": (lambda t: torch.zeros(8, 5), "by the plan"),
    "double": (lambda t: t.double(), "torch.float64 in the file and torch.float32 here"),
    "half": (lambda t: t.half(), "torch.float16"),
    "whole": (lambda t: t.int(), "torch.int32"),
    "yes or no": (lambda t: t > 0, "torch.bool"),
    "complex": (lambda t: t + 0j, "torch.complex64"),
    "nan": (lambda t: t * torch.nan, "not finite"),
    "one infinite": (lambda t: t.index_fill(0, torch.tensor(0), torch.inf), "not finite"),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_that_are_not_those_of_the_plan(kind: str, folder: Path, tmp_path: Path) -> None:
    make, said = TENSORS[kind]

    def change(_: Any, tensors: dict[str, Tensor]) -> None:
        tensors["first.weight"] = make(tensors["first.weight"])

    line = refusal(forged(folder, tmp_path, change))
    assert "first.weight" in line
    assert said in line


def drop(about: dict[str, Any], *names: str) -> None:
    for name in names:
        del about[name]


HEADERS: dict[str, Callable[[dict[str, Any], dict[str, Tensor]], Any]] = {
    "no numbers": lambda about, _: drop(about, "numbers"),
    "no tensors": lambda about, _: drop(about, "tensors"),
    "no plan": lambda about, _: drop(about, "plan"),
    "numbers a list": lambda about, _: about.update(numbers=[1]),
    "numbers a word": lambda about, _: about.update(numbers="first:out_features"),
    "tensors a list": lambda about, _: about.update(tensors=[["first.weight"]]),
    "another format": lambda about, _: about.update(format=99),
    "a format of words": lambda about, _: about.update(format=[]),
    "another plan": lambda about, _: about.update(plan={"first": [0]}),
    "a plan of nothing": lambda about, _: about.update(plan=None),
    "smaller axes": lambda about, _: about.update(axes=dict.fromkeys(about["axes"], 2)),
    "axes of halves": lambda about, _: about.update(axes=dict.fromkeys(about["axes"], 8.0)),
    "negative axes": lambda about, _: about.update(axes=dict.fromkeys(about["axes"], -8)),
    "an unknown axis": lambda about, _: about["tensors"].update({"first.weight": ["nobody", 5]}),
    "a layout of layouts": lambda about, _: about["tensors"].update({"first.weight": [[["*"]], 5]}),
    "an empty product": lambda about, _: about["tensors"].update({"first.weight": [["*"], 5]}),
    "a layout of words": lambda about, _: about["tensors"].update({"first.weight": [["-", 9, 1], 5]}),
    "a tensor less": lambda _, tensors: tensors.pop("first.bias"),
    "a tensor more": lambda _, tensors: tensors.update(more=torch.zeros(2)),
    "attention": lambda about, _: about.update(written_out={"first": {"need_weights": "__import__('os')"}}),
    "attention in words": lambda about, _: about.update(written_out="first"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_that_say_something_else(kind: str, folder: Path, tmp_path: Path) -> None:
    refusal(forged(folder, tmp_path, HEADERS[kind]))


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "text",
    ["", "{", "3", "null", "[]", '"numbers"', DEEP, f'{{"numbers":{DEEP},"dense":{{}}}}', '{"numbers":NaN}', "\ud83d"],
    ids=str,
)
def test_a_header_that_is_no_json(text: str, folder: Path, tmp_path: Path) -> None:
    tensors, _ = read_tensors(folder / "model.safetensors")
    save_file(tensors, tmp_path / "model.safetensors", {"metaprune": text.encode("utf-8", "replace").decode()})
    refusal(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[1]", b"{}", b'{"first": [0]}', b"\xff\xfe{\x00}\x00", DEEP.encode(), b'{"first": [1e400]}'],
)
def test_a_plan_that_does_not_agree(content: bytes, folder: Path, tmp_path: Path) -> None:
    place = forged(folder, tmp_path, lambda *_: None)
    (place / "plan.json").write_bytes(content)
    assert "plan" in refusal(place)
    (place / "plan.json").unlink()
    assert "plan.json" in refusal(place)


def test_any_change_without_a_new_checksum_is_noticed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes((folder / "plan.json").read_bytes())
    whole, header = saving.read_weights(folder / "model.safetensors")
    other = {**whole, "first.weight": whole["first.weight"] + 1e-6}
    save_file(other, tmp_path / "model.safetensors", header)
    assert "checksum" in refusal(tmp_path)


def test_the_first_format_is_read(folder: Path, tmp_path: Path) -> None:
    """It had no checksum and no plan in its header; what can be checked without is checked."""

    def write(numbers: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
        known = {"numbers": numbers, "dense": {n: list(t.shape) for n, t in oracle_shapes().items()}, "written_out": {}}
        save_file(tensors, tmp_path / "model.safetensors", {"metaprune": json.dumps(known)})
        (tmp_path / "plan.json").write_bytes((folder / "plan.json").read_bytes())
        return tmp_path

    tensors, about = read_tensors(folder / "model.safetensors")
    assert about is not None
    again = mp.load(write(about["numbers"], tensors), Configured())
    assert oracle.fingerprint(again) == oracle.fingerprint(mp.load(folder, Configured()))
    for name, bad in {"first.bias": torch.zeros(9), "second.bias": torch.zeros(3).double()}.items():
        assert name in refusal(write(about["numbers"], {**tensors, name: bad}))


# Files of others in the folder.


@pytest.mark.parametrize("name", ["plan.json", "report.json", "report.html", "model.safetensors"])
@pytest.mark.parametrize("content", [b"mine", b"{}\n", b"{}", b""])
def test_a_file_of_others_is_never_replaced(
    name: str, content: bytes, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "texts", lambda *_: {})
    (tmp_path / name).write_bytes(content)
    model = Configured()
    graph = mp.trace(model, EXAMPLE)
    with pytest.raises(MetapruneError, match="not written by metaprune"):
        saving.save(tmp_path, model, mp.Plan({}), graph, None)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == content


def test_json_of_ours_notices_damage(tmp_path: Path) -> None:
    from metaprune.train.atomic import write_json

    write_json(tmp_path / "a.json", {"a": 1, "b": [1.5, "×"]})
    assert read_json(tmp_path / "a.json") == {"a": 1, "b": [1.5, "×"]}
    text = (tmp_path / "a.json").read_bytes()
    for old, new in ((b"1.5", b"1.4"), (b'"a"', b'"c"'), (b"}", b"")):
        (tmp_path / "a.json").write_bytes(text.replace(old, new))
        with pytest.raises(MetapruneError, match="damaged"):
            read_json(tmp_path / "a.json")


def test_the_model_given_is_left_alone(folder: Path) -> None:
    model = Configured()
    twin = copy.deepcopy(model)
    mp.load(folder, model)
    assert oracle.fingerprint(model) == oracle.fingerprint(twin)
    assert (model.width, model.sizes, model.config.hidden) == (8, [8, 3], 8)
