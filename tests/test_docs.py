"""The documentation is true: its Python runs, and its links lead somewhere."""

import io
import itertools
import json
import re
import sys
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from metaprune.graph.call import RULES
from metaprune.methods.graph_metanetwork.learning.area import metrics
from metaprune.train.few_shot import FewShot, Inner
from metaprune.train.task import First

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


def run(page: Path, names: dict[str, Any]) -> dict[str, Any]:
    """Runs the Python of a page, block after block; `names` are known at its start, and all are returned."""
    text = page.read_text(encoding="utf-8")
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


@pytest.fixture(scope="module")
def readme(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the README's blocks leave behind; run in a folder of their own."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("readme"))
        names = run(ROOT / "README.md", {})
        assert (Path("out") / "report.html").is_file()
    return {name: names[name] for name in ("model", "task", "x", "result")}


@pytest.fixture
def short(readme: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The same, with few digits, and few steps to judge a metanetwork by: what a page shows runs alike, sooner."""
    monkeypatch.setattr("metaprune.methods.graph_metanetwork.learning.meta_train.metrics", partial(metrics, steps=2))
    task = readme["task"]
    return readme | {"task": replace(task, train=First(task.train, 3), val=First(task.val, 1))}


def test_the_readme_runs(readme):
    report = readme["result"].report
    assert report.pruned.macs <= 0.5 * report.dense.macs
    assert report.after_cut == pytest.approx(report.before_cut, abs=1.0)  # one digit, where rounding tips it


@pytest.mark.parametrize("page", [*METHODS, ROOT / "docs" / "add_a_method.md"], ids=name_of)
def test_the_python_of_a_method_runs(page, short, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = run(page, short)["result"].report
    assert report is not short["result"].report
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
def test_the_python_of_the_guide_runs(page, short, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
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
def test_a_notebook_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
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
