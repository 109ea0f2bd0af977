"""Rules of the house that no linter knows."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

import metaprune
from metaprune.methods.registry import METHODS as REGISTERED

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "metaprune"
MODULES = sorted(SOURCE.rglob("*.py"))
NAMED = {".".join(("metaprune", *path.relative_to(SOURCE).with_suffix("").parts)): path for path in MODULES}
NAMED |= {name.removesuffix(".__init__"): path for name, path in NAMED.items()}
METHODS = SOURCE / "methods"
ROOMS = sorted({METHODS / method.__module__.split(".")[2] for method in REGISTERED.values()})

# Long names are looked for anywhere, short ones as whole words of snake_case, CamelCase or prose; not in the distance
# that is named after the network whose features it compares.
ARCHITECTURES = re.compile(
    r"res_?net|resnext|dense_?net|mobile_?net|efficient_?net|squeeze_?net|shuffle_?net|convnext|regnet|mnasnet"
    r"|alexnet|googlenet|lenet|(?<!frechet)inception|yolo|edsr|llama|mistral|qwen|roberta|distilbert|vision_transformer"
    r"|(?<![a-z])(?:vgg|vit|deit|swin|bert|gpt|t5|unet|dncnn)(?![a-z])",
    re.IGNORECASE,
)
LOADERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CALLS = {"torch.load", "torch.save", "torch.jit.load", "eval", "exec"}


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def words(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    """Yields each identifier and string of the code, with its line; docstrings may explain what they like."""
    prose = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield line, node.value
        for field in ("id", "attr", "name", "arg", "module", "asname"):
            if isinstance(word := getattr(node, field, None), str):
                yield line, word


@pytest.mark.parametrize("path", [p for p in MODULES if "models" not in p.parts], ids=name_of)
def test_no_code_outside_models_names_an_architecture(path):
    found = [f"{name_of(path)}:{line}: {word!r}" for line, word in words(parsed(path)) if ARCHITECTURES.search(word)]
    assert not found, "rules are for operators, never for architectures"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_unpickles_or_evaluates(path):
    for node in parsed(path):
        if isinstance(node, ast.Import):
            assert LOADERS.isdisjoint(alias.name.split(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in LOADERS
        if isinstance(node, ast.Call):
            given = [ast.unparse(keyword) for keyword in node.keywords]
            safe = ast.unparse(node.func) == "torch.load" and "weights_only=True" in given
            assert safe or ast.unparse(node.func) not in CALLS


def test_the_words_are_found_where_they_are():
    code = '"""ResNet."""\nimport torch\nmyResNet = build("vit_b_16")\nactivity = gpt2 = 0\n'
    nodes = [*ast.walk(ast.parse(code))]
    assert [word for _, word in words(nodes) if ARCHITECTURES.search(word)] == ["myResNet", "gpt2", "vit_b_16"]


@cache
def imported(path: Path) -> set[Path]:
    """The modules of the package that a module imports, anywhere in it."""

    def found(*names: str) -> Path | None:
        return next((NAMED[name] for name in names if name in NAMED and NAMED[name] != path), None)

    needs: set[Path | None] = set()
    for node in parsed(path):
        if isinstance(node, ast.Import):
            needs |= {found(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            needs |= {found(f"{node.module}.{alias.name}", node.module) for alias in node.names}
    return {file for file in needs if file is not None}


def test_no_imports_go_in_a_circle():
    left = {path: imported(path) for path in MODULES}
    while leaves := [path for path, needs in left.items() if not needs & left.keys()]:
        for path in leaves:
            del left[path]
    assert not left, {name_of(path): [name_of(p) for p in needs & left.keys()] for path, needs in left.items()}


@pytest.mark.parametrize("path", [p for p in MODULES if METHODS in p.parents], ids=name_of)
def test_methods_know_nothing_of_one_another(path):
    own = {room for room in ROOMS if room in path.parents}
    met = {room for other in imported(path) for room in ROOMS if room in other.parents}
    assert path == METHODS / "registry.py" or met <= own, "what methods share knows none, and a method only itself"


def test_a_method_has_few_files_side_by_side():
    for folder in [path for path in (SOURCE / "methods").rglob("*") if path.is_dir()]:
        assert len([file for file in folder.glob("*.py") if file.name != "__init__.py"]) <= 8, folder


def test_import_costs_next_to_nothing():
    """It loads nothing of its own but the version, and nothing of anyone else's."""
    code = (
        "import importlib, sys, typing; old = set(sys.modules); import metaprune\n"
        "new = {name for name in set(sys.modules) - old if name.split('.')[0] not in sys.stdlib_module_names}\n"
        "assert new == {'metaprune', 'metaprune.version'}, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_no_public_name_moves_random_numbers_when_it_is_loaded():
    code = (
        "import random; import metaprune as mp; state = random.getstate()\n"
        "moved = [name for name in mp.__all__ if (getattr(mp, name), random.getstate())[1] != state]\n"
        "from metaprune.train.progress import Bar; Bar('', 1, shown=False)\n"
        "assert not moved and random.getstate() == state, moved"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_no_public_name_is_shadowed_by_a_module():
    modules = {path.stem for path in SOURCE.iterdir()}
    assert modules.isdisjoint(metaprune.__all__), "once imported, the module would be what mp.<name> gives"


@pytest.mark.parametrize("folder", ROOMS, ids=lambda folder: folder.name)
def test_every_method_has_a_readme(folder):
    assert (folder / "README.md").is_file()


@cache
def parsed(path: Path) -> list[ast.AST]:
    return [*ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))]
