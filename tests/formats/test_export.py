"""Exported files: they compute what the network computes, or they are not there."""

import copy
import logging
import sys
import zipfile
from functools import cache
from pathlib import Path

import onnx as plain_onnx
import onnxruntime
import pytest
import torch
from torch import nn

from metaprune.formats import ExportError, export, onnx
from metaprune.formats.export import compare, lacking

SUFFIXES = ["onnx", "pt2"]


@pytest.fixture(scope="module", autouse=True)
def operators_are_read_once():
    """For each file the exporter reads the source of all operators again: half of its time."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


class Network(nn.Module):
    """Two inputs, one of them by keyword, and a dictionary out."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x, *, shift):
        features = self.norm(self.conv(x)).relu().mean((2, 3)) + shift
        return {"logits": self.head(features), "features": features}


def examples(batch):
    return (torch.randn(batch, 3, 8, 8),), {"shift": torch.randn(batch, 8)}


def run(path, args, kwargs=None):
    if path.suffix == ".onnx":
        return onnx.run(path, args, kwargs or {})
    outputs = torch.export.load(path).module()(*args, **(kwargs or {}))
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_file_computes_what_its_network_does_at_any_batch(tmp_path, suffix, batch):
    model = Network()
    model.norm.running_mean.normal_()
    path = export(model, (torch.randn(batch, 3, 8, 8),), tmp_path / f"net.{suffix}", {"shift": torch.randn(batch, 8)})
    model.eval()
    for size in (1, 3):
        x, shift = torch.randn(size, 3, 8, 8), torch.randn(size, 8)
        for actual, expected in zip(run(path, (x,), {"shift": shift}), model(x, shift=shift).values(), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_network_of_one_batch_size_is_exported_at_that_size(tmp_path, suffix):
    class Mix(nn.Module):
        def forward(self, x):
            return torch.eye(3) @ x

    x = torch.randn(3, 2)
    (y,) = run(export(Mix(), (x,), tmp_path / f"mix.{suffix}"), (x,))
    torch.testing.assert_close(y, x)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_network_is_left_as_it_was(tmp_path, suffix):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    model[1].eval()
    before = copy.deepcopy(model.state_dict())
    export(model, (torch.randn(2, 3, 8, 8),), tmp_path / f"net.{suffix}")
    assert [module.training for module in model] == [True, False, True]
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_it_says_nothing(tmp_path, suffix, capfd):
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        export(nn.Linear(2, 3), (torch.randn(2, 2),), tmp_path / f"net.{suffix}")
    finally:
        logging.getLogger().removeHandler(handler)
    assert capfd.readouterr() == ("", "")
    assert not records


def test_pt2_holds_no_pickle(tmp_path):
    path = export(nn.Linear(2, 3), (torch.randn(2, 2),), tmp_path / "net.pt2")
    with zipfile.ZipFile(path) as archive:
        assert not any(archive.read(name).startswith((b"\x80", b"PK")) for name in archive.namelist())


def test_onnx_names_the_open_size(tmp_path):
    path = export(nn.Linear(2, 3), (torch.randn(1, 2),), tmp_path / "net.onnx")
    (x,) = onnxruntime.InferenceSession(path).get_inputs()
    assert x.shape == ["batch", 2]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_differs_is_not_kept(tmp_path, suffix):
    class Fickle(nn.Module):
        """Counts what it should not: the capture freezes a number that the network goes on changing."""

        calls = 0

        def forward(self, x):
            Fickle.calls += 1
            return x + 0.01 * Fickle.calls

    path = tmp_path / f"net.{suffix}"
    path.write_text("what was here before")
    with pytest.raises(ExportError, match=r"Fickle was not written to net\..*: output 0 differs"):
        export(Fickle(), (torch.ones(2, 2),), path, open_sizes="none")
    assert path.read_text() == "what was here before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("actual", "said"),
    [
        ([], "the file gives 0 outputs, the network 2"),
        ([torch.ones(2)], "the file gives 1 outputs, the network 2"),
        ([torch.ones(2), torch.ones(1, 3)], "output 1 differs"),
        ([torch.ones(2), torch.ones(3).double()], "output 1 differs"),
        ([torch.ones(2) + 3e-4, torch.ones(3)], "output 0 differs"),
        ([torch.ones(2) * torch.nan, torch.ones(3)], "output 0 differs"),
    ],
)
def test_outputs_of_a_file_are_held_against_those_of_the_network(actual, said):
    expected = [torch.ones(2), torch.ones(3)]
    compare([torch.ones(2) + 1e-4, torch.ones(3)], expected)
    with pytest.raises(ExportError, match=said):
        compare(actual, expected)


def test_half_precision_may_differ_by_a_hundredth():
    compare([torch.full((2,), 1.015).half()], [torch.ones(2).half()])
    with pytest.raises(ExportError, match="output 0 differs"):
        compare([torch.full((2,), 1.025).half()], [torch.ones(2).half()])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("open_sizes", ["none", "batch", "all"])
def test_a_network_that_cannot_be_captured_is_named(tmp_path, suffix, open_sizes):
    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match="Branch was not written"):
        export(Branch(), (torch.randn(2, 2),), tmp_path / f"net.{suffix}", open_sizes=open_sizes)
    assert not list(tmp_path.iterdir())


def test_bad_paths_are_named(tmp_path):
    model, args = nn.Linear(2, 3), (torch.randn(2, 2),)
    with pytest.raises(ExportError, match=r"must end in \.onnx or \.pt2, got 'net\.pth'"):
        export(model, args, tmp_path / "net.pth")
    with pytest.raises(ExportError, match="does not exist; make it first"):
        export(model, args, tmp_path / "nowhere" / "net.onnx")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"pip install 'metaprune\[export\]'"):
        export(nn.Linear(2, 3), (torch.randn(2, 2),), tmp_path / "net.onnx")


def test_packages_that_are_not_there_are_named(monkeypatch):
    assert lacking("a.pt2") == lacking(Path("a.onnx")) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else name)
    assert lacking("a.onnx") == ["onnxruntime"]


class Sentences(nn.Module):
    """Tokens and a mask, of any length."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, ids, mask):
        return self.head(self.words(ids)) * mask[..., None]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_sizes_of_pictures_stay_open(tmp_path, suffix):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    path = export(model, (torch.randn(1, 3, 12, 12),), tmp_path / f"net.{suffix}", open_sizes="all")
    for shape in ((1, 3, 12, 12), (2, 3, 9, 20)):
        x = torch.randn(shape)
        torch.testing.assert_close(run(path, (x,))[0], model(x), rtol=1e-4, atol=1e-4)


def test_sizes_of_sequences_stay_open_together(tmp_path):
    model = Sentences().eval()
    example = (torch.randint(0, 20, (2, 5)), torch.ones(2, 5))
    path = export(model, example, tmp_path / "net.onnx", open_sizes="all")
    shapes = {x.name: x.shape for x in onnxruntime.InferenceSession(path).get_inputs()}
    assert shapes == {"ids": ["batch", "ids_1"], "mask": ["batch", "ids_1"]}
    longer = (torch.randint(0, 20, (3, 7)), torch.rand(3, 7))
    torch.testing.assert_close(run(path, longer)[0], model(*longer), rtol=1e-4, atol=1e-4)


def test_a_size_that_the_network_has_one_of_stays(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).eval()
    path = export(model, (torch.randn(1, 3, 4, 4),), tmp_path / "net.onnx", open_sizes="all")
    assert onnxruntime.InferenceSession(path).get_inputs()[0].shape == ["batch", 3, 4, 4]
    path = export(model, (torch.randn(1, 3, 4, 4),), tmp_path / "net.onnx", open_sizes="none")
    assert onnxruntime.InferenceSession(path).get_inputs()[0].shape == [1, 3, 4, 4]


def test_names_opset_and_half_precision(tmp_path):
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(1, 3, 8, 8)
    path = export(model, (x,), tmp_path / "a.onnx", inputs=("images",), outputs=("map",), opset=20, half=True)
    session = onnxruntime.InferenceSession(path)
    assert [(i.name, i.type) for i in session.get_inputs()] == [("images", "tensor(float16)")]
    assert [(o.name, o.type) for o in session.get_outputs()] == [("map", "tensor(float16)")]
    assert [one.version for one in plain_onnx.load(path).opset_import if one.domain == ""] == [20]
    assert x.dtype == next(model.parameters()).dtype == torch.float32
    (y,) = run(export(model, (x,), tmp_path / "a.pt2", half=True), (x.half(),))
    assert y.dtype == torch.float16


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"open_sizes": "some"}, "expected open_sizes 'none', 'batch', 'all', got 'some'"),
        ({"inputs": "images"}, "expected inputs as different names"),
        ({"outputs": ("a", "a")}, "expected outputs as different names"),
        ({"opset": 0}, "expected opset as a whole number from 1"),
        (
            {"opset": 3, "open_sizes": "none"},
            "the exporter cannot write it with opset 3; leave it out, or ask for a later one",
        ),
    ],
)
def test_wishes_that_are_none(tmp_path, words, said):
    with pytest.raises(ExportError, match=said):
        export(nn.Linear(2, 3), (torch.randn(2, 2),), tmp_path / "net.onnx", **words)
    assert not list(tmp_path.iterdir())


def test_names_belong_to_onnx(tmp_path):
    with pytest.raises(ExportError, match=r"belong to \.onnx"):
        export(nn.Linear(2, 3), (torch.randn(2, 2),), tmp_path / "net.pt2", inputs=("x",))


class Boxes(nn.Module):
    """Scores and boxes, and a tail that hangs on their values."""

    def __init__(self, tail):
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 5, 3), tail

    def forward(self, x):
        rows = self.head(x).flatten(2).transpose(1, 2)[0]
        return self.tail(rows)


def above(rows):
    keep = rows[:, 4] > 0
    return rows[keep, :4], rows[keep, 4]


def one_by_one(rows):
    left, kept = rows[:, 4].argsort(descending=True), []
    while len(left):
        kept.append(left[0])
        left = left[(rows[left] - rows[left[0]]).abs().sum(1) > 0.5]
    return torch.stack(kept)


def test_a_tail_that_hangs_on_values_is_written_where_it_can_be(tmp_path):
    model = Boxes(above).eval()
    path = export(model, (torch.randn(1, 3, 8, 8),), tmp_path / "net.onnx")
    for _ in range(3):
        x = torch.randn(1, 3, 8, 8)
        for got, expected in zip(run(path, (x,)), model(x), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_tail_that_cannot_be_written_says_what_to_wrap(tmp_path, capfd):
    with pytest.raises(ExportError, match=r"test_export\.py:\d+ decides by the values.*\s.*Wrap what comes before it"):
        export(Boxes(one_by_one), (torch.randn(1, 3, 8, 8),), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def weights_beside(monkeypatch):
    """Weights beside the file, as beyond 2 GB."""
    whole = torch.onnx.ONNXProgram.save
    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", lambda self, path: whole(self, path, external_data=True))


def test_weights_beside_a_file_are_replaced_only_where_they_are_ours(tmp_path, weights_beside):
    model, x, path = nn.Linear(64, 64).eval(), torch.randn(2, 64), tmp_path / "net.onnx"
    beside = tmp_path / "net.onnx.data"
    beside.write_bytes(b"of others")
    with pytest.raises(ExportError, match=r"net\.onnx\.data was not written by metaprune; move it away"):
        export(model, (x,), path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {beside.name: b"of others"}
    beside.unlink()
    for _ in range(2):
        export(model, (x,), path)
    torch.testing.assert_close(run(path, (x,))[0], model(x))
    before = path.read_bytes()
    beside.write_bytes(beside.read_bytes()[::-1])
    with pytest.raises(ExportError, match="was not written by metaprune"):
        export(model, (x,), path)
    assert path.read_bytes() == before


def test_weights_of_ours_that_are_no_longer_needed_go(tmp_path, monkeypatch):
    model, x, path = nn.Linear(64, 64).eval(), torch.randn(2, 64), tmp_path / "net.onnx"
    whole = torch.onnx.ONNXProgram.save
    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx.ONNXProgram, "save", lambda self, at: whole(self, at, external_data=True))
        export(model, (x,), path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    export(model, (x,), path)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
