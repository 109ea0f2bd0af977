"""A method is said in one place, and other packages can say theirs."""

import importlib
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import metaprune as mp
from metaprune.cli import app
from metaprune.cli.choosing import chosen_method
from metaprune.cli.errors import UsageError
from metaprune.methods import registry
from metaprune.methods.registry import METHODS, decides_by, first_line, others

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add_a_method.md").read_text(encoding="utf-8")

GOOD = """
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

@dataclass(frozen=True)
class Mine:
    \"\"\"Keeps what I say.\"\"\"

    rounds: int
    share: float = 0.5
    file: Path | None = None
    sides: tuple[int, ...] = (1, 2)
    pair: tuple[int, str] = (1, "a")
    names: list[str] = field(default_factory=list)
    way: Literal["up", "down"] = "up"
    loud: bool = False
    any: Any = None

    name: ClassVar[str] = "mine"
    reference: ClassVar[str] = "mine, 2026"

    def find(self, problem):
        raise NotImplementedError
"""


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a package that offers methods: its code, and its entry points."""

    def install(code: str, **points: str) -> None:
        (tmp_path / "mine_of_theirs.py").write_text(code)
        about = tmp_path / "mine_of_theirs-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine-of-theirs\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (about / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines, ""]))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "mine_of_theirs", raising=False)

    return install


def test_the_method_of_the_page_takes_its_folder_and_one_line(tmp_path, monkeypatch):
    package = importlib.import_module("metaprune.methods")
    place, name = tmp_path / "methods" / "first_order", "metaprune.methods.first_order"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text('"""One shot."""\n')
    (place / "README.md").write_text("# First order\n")
    code, line = re.findall(r"^```(?:python|text)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[:2]
    (place / "first_order.py").write_text(code)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(place.parent)])
    own = Path(registry.__file__).read_text(encoding="utf-8")
    last = "from metaprune.methods.taylor.taylor import Taylor as Taylor\n"
    assert last in own
    assert len(line.splitlines()) == 1
    with_it = tmp_path / "registry.py"
    with_it.write_text(own.replace(last, last + line))
    spec = importlib.util.spec_from_file_location("metaprune.methods.registry", with_it)
    assert spec
    assert spec.loader
    new = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(mp, "cli", importlib.import_module("metaprune.cli"))  # what the package holds comes back
    for module in [module for module in sys.modules if module.startswith("metaprune.cli")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(vars(mp), "__all__", raising=False)
    monkeypatch.setitem(sys.modules, "metaprune.methods.registry", new)
    monkeypatch.setattr(package, "registry", new)
    spec.loader.exec_module(new)
    try:
        assert mp.FirstOrder.name == "first order"
        assert {"FirstOrder", "DHP", "prune"} <= set(mp.__all__) & set(dir(mp))
        chosen = importlib.import_module("metaprune.cli.choosing").chosen_method("first_order", ["batches=8"])
        assert chosen == mp.FirstOrder(batches=8)
        said = CliRunner().invoke(importlib.import_module("metaprune.cli").app, ["methods"])
        assert "first_order" in said.stdout
        told = runpy.run_path(str(ROOT / "docs" / "methods.py"))
        assert "methods/first_order/README.md" in told["pages"]()["first_order"]
        assert "autoclass:: FirstOrder" in told["pages"]()["first_order"]
        assert "`mp.FirstOrder`" in told["table"]()
    finally:
        for module in [module for module in sys.modules if module.startswith(name)]:
            del sys.modules[module]
        for word in ("FirstOrder", "__all__"):
            vars(mp).pop(word, None)
        vars(package).pop("first_order", None)


def test_public_names_are_those_of_the_registry():
    said = re.findall(r"^from metaprune\S+ import (\w+) as \1$", Path(registry.__file__).read_text(), re.MULTILINE)
    assert [method.__name__ for method in METHODS.values()] == said
    assert {"DHP", "Magnitude", "Taylor", "Random"} < set(said) <= set(mp.__all__)
    assert all(getattr(mp, method.__name__) is method for method in METHODS.values())
    with pytest.raises(AttributeError, match="no attribute 'Method'"):
        _ = mp.Method


def test_what_methods_decide_by():
    """Other tests, and the pages, take their methods by it."""
    found = {name: decides_by(method) for name, method in METHODS.items()}
    assert {name for name, by in found.items() if by == "weights"} == {"magnitude", "uniform", "random", "intra_fusion"}
    assert {name for name, by in found.items() if by == "data"} == {"taylor", "graph_metanetwork"}
    assert {name for name, by in found.items() if by == "training"} == {"dhp", "transportation", "metapruning"}
    assert first_line(METHODS["random"]) == "Channels drawn at random, over all axes together. A control."


def test_the_table_of_the_readme_is_that_of_the_registry():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "docs" / "methods.py"))["with_table"](readme) == readme, "python docs/methods.py"


def test_the_table_has_the_figures_of_the_pages(tmp_path):
    """Of the page on which all stand side by side first."""
    measured = runpy.run_path(str(ROOT / "docs" / "methods.py"))["measured"]
    assert measured(tmp_path) == {}
    (tmp_path / "cifar10.md").write_text(
        "# Page\n\n| MACs | arm | accuracy | seeds |\n|--:|---|--:|--:|\n| 0.5 | dhp | 90.00 | 3 |\n"
        "| 0.3 | dhp | 84.12 ± 0.33 | 3 |\n| 0.3 | magnitude | 82.66 | 1 |\n| 0.3 | dhp:search=0.2 | 84.25 | 1 |\n"
    )
    others = {"dhp": ("+1.5 (3 seeds)", ""), "magnitude": ("what others are set against", "")}
    assert measured(tmp_path) == others
    (tmp_path / "methods.md").write_text(
        "| MACs | method | accuracy | seeds | minutes |\n|--:|---|--:|--:|--:|\n"
        "| 0.3 | taylor | 70.00 | 1 | 3.5 |\n| 0.3 | magnitude | 71.00 | 3 | 2.0 |\n"
    )
    expected = {"taylor": ("-1.0 (1 seed)", "3.5"), "magnitude": ("what others are set against", "2.0")}
    assert measured(tmp_path) == others | expected


def test_the_method_of_another_package(offered):
    offered(GOOD, mine="mine_of_theirs:Mine")
    found = others()
    assert list(found.methods) == ["mine"]
    assert not found.broken
    said = CliRunner().invoke(app, ["methods"])
    assert "Keeps what I say." in said.stdout
    assert "--set rounds\n" in CliRunner().invoke(app, ["methods", "mine"]).stdout
    words = ["rounds=3", "share=1", "file=a/b", "sides=[3]", 'pair=[2, "b"]', 'names=["x"]', "loud=True", "way=down"]
    chosen = chosen_method("mine", [*words, "any={}"])
    own = type(chosen)(3, 1, Path("a/b"), (3,), (2, "b"), ["x"], "down", True, {})  # type: ignore[call-arg]
    assert chosen == own
    assert chosen_method("mine", ["rounds=3", "file=None"]) == type(chosen)(3)  # type: ignore[call-arg]
    assert chosen_method("mine", ["rounds=3", "file=3"]) == type(chosen)(3, file=Path("3"))  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give --set rounds=VALUE"),
        (["rounds=much"], "expected a value of the kind int"),
        (["rounds=true"], "expected a value of the kind int, got True"),
        (["rounds=1", "sides=[1.5]"], "expected a value like (1, 2)"),
        (["rounds=1", "pair=[1]"], "expected a value like (1, 'a')"),
        (["rounds=1", "colour=3"], "mine takes rounds, share"),
    ],
)
def test_settings_of_another_kind(offered, words, told):
    offered(GOOD, mine="mine_of_theirs:Mine")
    with pytest.raises(UsageError, match=re.escape(told)):
        chosen_method("mine", words)


BROKEN = {
    "missing": ("no_such_module_at_all:Mine", "ModuleNotFoundError: No module named"),
    "unnamed": ("mine_of_theirs:Nobody", "AttributeError"),
    "function": ("mine_of_theirs:make", "expected a class, got function"),
    "plain": ("mine_of_theirs:Plain", "Plain is no dataclass"),
    "half": ("mine_of_theirs:Half", "Half has no name, find"),
    "dhp": ("mine_of_theirs:Mine", "another method has this name"),
    "odd": ("!!", "Error: "),
}
HALVES = """
class Plain: ...
def make(): ...
@dataclass
class Half:
    reference: ClassVar[str] = ""
"""


def test_broken_ones_are_a_line_each_and_in_nobodys_way(offered):
    offered(GOOD + HALVES, mine="mine_of_theirs:Mine", **{name: value for name, (value, _) in BROKEN.items()})
    found = others()
    assert list(found.methods) == ["mine"]
    assert found.broken.keys() == BROKEN.keys()
    for name, (_, reason) in BROKEN.items():
        line = found.broken[name]
        assert line.startswith(f"method {name!r} of the package mine-of-theirs cannot be used (")
        assert reason in line
        assert line.endswith("mend or uninstall the package")
        assert "\n" not in line
    said = CliRunner().invoke(app, ["methods"])
    assert said.exit_code == 0
    assert said.stderr.count("\n") == len(BROKEN)
    assert type(chosen_method("dhp", [])) is mp.DHP
    with pytest.raises(UsageError, match="'missing' of the package mine-of-theirs cannot be used"):
        chosen_method("missing", [])


@pytest.mark.parametrize("ending", ["raise SystemExit(1)", "raise RuntimeError('one\\ntwo')", "1 +"])
def test_code_that_ends_while_it_is_loaded(offered, ending):
    offered(GOOD + ending, mine="mine_of_theirs:Mine")
    found = others()
    assert not found.methods
    assert "\n" not in found.broken["mine"]
    with pytest.raises(UsageError, match="not known; there are dhp"):
        chosen_method("nobody", [])
