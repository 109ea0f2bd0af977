"""The documentation is true: its Python runs, and its links lead somewhere.

The README runs on the network that it names. All other pages run on one of three layers: what they call is the same.
"""

import io
import itertools
import json
import re
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import metaprune as mp
from metaprune.data import load
from metaprune.graph.call import RULES
from metaprune.methods.graph_metanetwork.learning.area import metrics
from metaprune.train.task import First
from metaprune.train.tasks.few_shot import FewShot, Inner

ROOT = Path(__file__).parent.parent
GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))
METHODS = sorted((ROOT / "src" / "metaprune" / "methods").glob("*/README.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *GUIDE, *METHODS]
HEADINGS = [
    "What it does",
    "Use it",
    "Knobs",
    "When to choose it, when not",
    "What we reproduced",
    "Departures",
    "Reference",
]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run(page: Path, names: dict[str, Any], instead: Mapping[str, str] = {}) -> dict[str, Any]:
    """Runs the Python of a page, block after block; `names` are known at its start, and all are returned."""
    text = page.read_text(encoding="utf-8")
    for shown, shorter in instead.items():
        assert shown in text
        text = text.replace(shown, shorter)
    module = ModuleType(f"tests.page_{page.stem}")
    vars(module).update(names)
    sys.modules[module.__name__] = module  # dataclasses look there for what their annotations mean
    try:
        for block in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, block.start(1))
            exec(compile("\n" * line + block[1], str(page), "exec"), vars(module))
    finally:
        del sys.modules[module.__name__]
    return vars(module)


class Small(nn.Module):
    """For digits; its layers have names that some have in the network of the README."""

    def __init__(self, classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 16, 3, padding=1)
        self.stage1 = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.stage3 = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        self.fc = nn.Linear(24, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.stage3(self.stage1(self.conv(x).relu())).mean((2, 3)))


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A folder for what a page writes, and what it takes for known: a network, few digits, and an input."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metaprune.models.resnet8", Small)
    monkeypatch.setattr("metaprune.latency", partial(mp.latency, seconds=0.001), raising=False)
    monkeypatch.setattr("metaprune.methods.graph_metanetwork.learning.meta_train.metrics", partial(metrics, steps=2))
    data = load("digits")
    task = mp.Classification(First(data.train, 2), First(data.val, 1))
    return {"model": Small().eval(), "task": replace(task, test=task.val), "x": torch.randn(8, *data.shape)}


def test_the_readme_runs(tmp_path, monkeypatch):
    """As shown, but for the number of epochs."""
    monkeypatch.chdir(tmp_path)
    report = run(ROOT / "README.md", {}, {"epochs=5": "epochs=2"})["result"].report
    assert Path("out/report.html").is_file()
    assert report.pruned.macs <= 0.5 * report.dense.macs
    assert report.after_cut == pytest.approx(report.before_cut, abs=1.0)  # one digit, where rounding tips it


@pytest.mark.parametrize("page", [*METHODS, ROOT / "docs" / "add_a_method.md"], ids=name_of)
def test_the_python_of_a_method_runs(page, short):
    report = run(page, short)["result"].report
    assert report.pruned.macs <= 0.5 * report.dense.macs


LONG = {"transformers.md"}  # networks of several families, loaded again, generating: what tests of each do, too


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] * (page.name in LONG), id=name_of(page))
        for page in GUIDE
        if "\n```python\n" in page.read_text("utf-8")
    ],
)
def test_the_python_of_the_guide_runs(page, short):
    run(page, short)


def test_the_python_of_few_shot_runs(tmp_path, monkeypatch):
    """As shown, on drawings made of noise, and with few steps."""
    monkeypatch.chdir(tmp_path)
    numbers = torch.Generator().manual_seed(0)
    with zipfile.ZipFile("omniglot.zip", "w") as archive:
        for kind, place in itertools.product(range(40), range(12)):
            made = io.BytesIO()
            noise = torch.randint(0, 256, (28, 28), generator=numbers, dtype=torch.uint8)
            Image.fromarray(noise.numpy()).save(made, "PNG")
            archive.writestr(f"alphabet/{kind}/{place}.png", made.getvalue())
    few = {
        "steps": 2,
        "tasks": 1,
        "episodes": 2,
        "val_episodes": 1,
        "inner": Inner(1, 5, 1e-3),
        "testing": Inner(1, 5, 1e-3),
    }
    monkeypatch.setattr("metaprune.FewShot", partial(FewShot, **few), raising=False)
    names = run(ROOT / "docs" / "few_shot.md", {})
    assert names["zeros"].plan.kept


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "guide").glob("*.ipynb")), ids=name_of)
def test_a_notebook_runs(page, short):
    names: dict[str, Any] = {}
    for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]).replace("epochs=4", "epochs=1"), str(page), "exec"), names)
    assert names["result"].report.pruned.macs <= 0.5 * names["result"].report.dense.macs


def test_the_template_of_an_operator_runs():
    known = set(RULES)
    try:
        run(ROOT / "docs" / "add_an_operator.md", {})
        assert set(RULES) - known
    finally:
        for operator in set(RULES) - known:
            del RULES[operator]


@pytest.mark.parametrize("page", METHODS, ids=name_of)
def test_a_method_has_the_headings(page):
    assert re.findall(r"^## (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = [link.partition("#")[::2] for link in re.findall(r"\]\(([^)\s]+)[^)]*\)", prose) if "://" not in link]
    assert [file for file, _ in links if not (page.parent / file).exists()] == []
    targets = [(page.parent / file if file else page, anchor) for file, anchor in links if anchor]
    assert [anchor for target, anchor in targets if anchor not in anchors(target)] == []


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
