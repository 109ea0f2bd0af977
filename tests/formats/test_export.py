"""Exported files: they compute what the network computes, or they are not there."""

import copy
import logging
import sys
import zipfile
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from metaprune.formats import ExportError, export, onnx
from metaprune.formats.export import lacking

SUFFIXES = ["onnx", "pt2"]


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
            return x + Fickle.calls

    path = tmp_path / f"net.{suffix}"
    path.write_text("what was here before")
    with pytest.raises(ExportError, match=r"Fickle was not written to net\..*: output 0 differs"):
        export(Fickle(), (torch.zeros(2, 2),), path)
    assert path.read_text() == "what was here before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_network_that_cannot_be_captured_is_named(tmp_path, suffix):
    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match="Branch was not written"):
        export(Branch(), (torch.randn(2, 2),), tmp_path / f"net.{suffix}")
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
