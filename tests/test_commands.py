"""The commands that pages show are true: programs, targets and options exist, and those of the command line run."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from metaprune.cli import app
from metaprune.models import DENOISING, MODELS, SUPER_RESOLUTION, TRANSLATION
from tests.test_docs import PAGES, ROOT, name_of

COMMAND = re.compile(r"(metaprune |python benchmarks/|make |pip install|git clone|hf upload)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
OTHERS = ("pip", "git", "hf", "cd")
"""Programs of others, of which only the name is looked at."""


def commands(page: Path, inline: bool = True) -> list[list[str]]:
    """The commands of a page, each in words, from blocks that are no Python, and from text set as code."""
    text = page.read_text(encoding="utf-8")
    lines = [
        line.strip()
        for kind, block in BLOCK.findall(text)
        if kind not in ("python", "toml")
        for line in block.replace("\\\n", " ").splitlines()
        if COMMAND.match(line)
    ]
    if inline:
        prose = BLOCK.sub("", text)
        lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose) if COMMAND.match(span)]
    return [shlex.split(part) for line in lines for part in re.sub(r"\s#.*", "", line).split(";")]


def placed(word: str) -> bool:
    """Whether a word stands for more that the reader writes."""
    return word in ("…", "...") or word.endswith("…")


def check_metaprune(words: list[str]) -> None:
    """Every option is one of the command's, and has its value; where something is left out, only the options."""
    main = typer.main.get_command(app)
    assert isinstance(main, click.Group) or hasattr(main, "commands")
    named: Any = main
    rest = [word for word in words if not placed(word)]
    if rest and not rest[0].startswith("-"):
        assert rest[0] in named.commands, f"metaprune has no command {rest[0]!r}"
        named, rest = named.commands[rest[0]], rest[1:]
    context = click.Context(named, info_name="metaprune")
    known = {name for option in named.get_params(context) for name in (*option.opts, *option.secondary_opts)}
    unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - known
    assert not unknown, f"{' '.join(words)}: there is no {unknown}"
    if not any(map(placed, words)) and not {"--help", "--install-completion"} & set(rest):
        try:
            named.make_parser(context).parse_args(list(rest))
        except Exception as error:  # of typer's own copy of click
            raise AssertionError(f"{' '.join(words)}: {error}") from error


def check_benchmark(words: list[str]) -> None:
    """The program is there, and each option stands in it or in what it imports beside it."""
    program = ROOT / words[0]
    assert program.is_file(), f"there is no {words[0]}"
    beside = [program.parent / f"{name}.py" for name in re.findall(r"^from (\w+) import", program.read_text(), re.M)]
    text = "".join(path.read_text() for path in [program, *filter(Path.is_file, beside)])
    for option in (word.partition("=")[0] for word in words[1:] if word.startswith("--")):
        assert f'"{option}"' in text, f"{words[0]} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_to_be_typed_exists(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for words in filter(None, commands(page)):
        program, *rest = [word for word in words if not re.fullmatch(r"[A-Z]+=\S*", word)]
        if program == "metaprune":
            check_metaprune(rest)
        elif program == "python" and rest and rest[0].startswith("benchmarks/"):
            check_benchmark(rest)
        elif program == "make":
            assert set(rest) <= targets, f"make has no {set(rest) - targets}"
        else:
            assert program in OTHERS, f"{page.name}: nobody looks at {' '.join(words)}"


@pytest.mark.parametrize(
    "words",
    [["prune", "resnet20", "--daat", "x"], ["prnue"], ["inspect", "resnet20", "--picture"], ["bench", "--epochs", "3"]],
)
def test_a_mistyped_command_is_found(words: list[str]) -> None:
    with pytest.raises(AssertionError):
        check_metaprune(words)


def test_a_mistyped_option_of_a_benchmark_is_found() -> None:
    check_benchmark(["benchmarks/alignment.py"])
    with pytest.raises(AssertionError, match=r"there is no benchmarks/nowhere\.py"):
        check_benchmark(["benchmarks/nowhere.py"])
    with pytest.raises(AssertionError, match=r"benchmarks/alignment\.py has no --colour"):
        check_benchmark(["benchmarks/alignment.py", "--colour=red"])


OWN = """
import torch
from torch import nn

class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.hidden, self.head = nn.Embedding(30000, 8), nn.Linear(8, 16), nn.Linear(16, 2)

    def forward(self, ids, mask):
        x = self.hidden(self.words(ids)).relu() * mask[..., None]
        return self.head(x.mean(1))

def network(classes=2):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2),
    )

def reader():
    return Reader()
"""

SHORT = {
    "prune": ["--epochs", "2", "--max-steps", "2", "--dense-epochs", "1", "--threads", "1", "--device", "cpu"],
    "evaluate": ["--threads", "1", "--device", "cpu"],
    "bench": ["--threads", "1", "--device", "cpu"],
    "zoo": ["--count", "2", "--epochs", "1", "--threads", "1"],
    "meta-train": ["--epochs", "1", "--threads", "1"],
}
"""What makes them short: an option that is given again counts."""

FEW = ["--patches-per-epoch", "4", "--batch-size", "2"]
RESTORING = ["--patch", "16", *FEW, "--val-images", "1"]
TRANSLATING = ["--patch", "32", *FEW]
RUN = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]


def pictures(folder: Path, count: int, side: int = 24, mode: str = "RGB") -> None:
    """Noise, in files."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = torch.Generator().manual_seed(len(str(folder)))
    for place in range(count):
        noise = torch.randint(0, 256, (side, side, 3), generator=numbers, dtype=torch.uint8)
        Image.fromarray(noise.numpy()).convert(mode).save(folder / f"{place}.png")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what the commands of pages name: own.py and its weights, a network of transformers, no photos."""
    from transformers import ViTConfig, ViTForImageClassification

    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    names: dict[str, Any] = {}
    exec(OWN, names)
    save_file(names["network"]().state_dict(), tmp_path / "own.safetensors")
    config = ViTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    ViTForImageClassification(config).save_pretrained(tmp_path / "path" / "to" / "network")
    for large, small in (("resnet20", "resnet8"), ("resnet56", "resnet8")):
        monkeypatch.setitem(MODELS, large, MODELS[small])
    for name, few in (
        ("edsr", {"blocks": 1, "width": 32}),
        ("dncnn", {"blocks": 3, "width": 16}),
        ("residual_generator", {"blocks": 1, "width": 16}),
        ("cyclegan", {"blocks": 1, "width": 16}),
    ):
        where = next(kind for kind in (SUPER_RESOLUTION, DENOISING, TRANSLATION) if name in kind)
        monkeypatch.setitem(where, name, _smaller(where[name], few))
    for folder in ("maps/A", "maps/B", "horses/A", "horses/B"):
        pictures(tmp_path / folder, 24, 64)
    return tmp_path


def _smaller(build: Any, sizes: dict[str, int]) -> Any:
    return lambda *given, **named: build(*given, **(named | sizes))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUN if any(c[0] == "metaprune" for c in commands(page, False) if c)])
def test_the_commands_of_a_page_run(page: Path, place: Path) -> None:
    for words in commands(page, inline=False):
        if words[0] != "metaprune" or "few-shot" in words:  # tests/cli/test_few_shot.py has characters
            continue
        restoring = "--task" in words
        photos = place / "photos"
        if photos.exists():
            photos.rename(place / f"photos of {len(list(place.iterdir()))}")
        if restoring:
            pictures(photos, 6, 48)
            pictures(place / "set12", 2, 48, "L")
        else:
            for part in ("train", "val", "test"):
                for kind in ("cat", "dog"):
                    pictures(photos / part / kind, 4)
        small = ["--input", f"{1 if 'dncnn' in words else 3}x8x8"]
        special = RESTORING + small if restoring else TRANSLATING if TRANSLATION.keys() & set(words) else []
        more = SHORT.get(words[1], []) + special
        shown = CliRunner().invoke(app, [*words[1:], *more])
        assert shown.exit_code == 0, f"{' '.join(words)}\n{shown.output}"
