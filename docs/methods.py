"""What documentation says of methods, read from the registry: a page for each room, and the table of the README.

`python docs/methods.py` writes the table anew; the build of the documentation writes the pages. Figures are read off
the pages that benchmarks wrote: `methods.md`, where all methods stand side by side, else `cifar10.md`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metaprune.methods.method import Method
from metaprune.methods.registry import METHODS, decides_by, first_line

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- methods: written by docs/methods.py -->", "<!-- methods end -->"
CONTRACT = ("find", "scores")
"""What all methods have, and `Method` documents."""


def room(method: type[Method]) -> str:
    """The folder of a method, under `methods/`."""
    return method.__module__.split(".")[2]


@dataclass(frozen=True)
class Said:
    """What a row of the table says of a method besides figures.

    Attributes:
        learns: What is learned.
        choose: When to choose it.
        cost: What it costs beside fine-tuning.
        gained: What else was measured, where the two pages do not tell it.
    """

    learns: str
    choose: str
    cost: str
    gained: str = ""


SAID = {
    "dhp": Said(
        "a latent per channel, with the weights, from the given network on",
        "one cut at once would hurt, and there are epochs: the cut at its end changes nothing",
        "40 % of the epochs; a step takes 1.03 to 1.08 times a plain one",
    ),
    "graph_metanetwork": Said(
        "once, from many networks: edits of the weights, and a ranking of the channels",
        "several networks of one kind are to be pruned",
        "meta-training, once; then a trial of half an epoch",
        "+0.7 on a ResNet-8 at 1/3, tried first (3 seeds)",
    ),
    "intra_fusion": Said(
        "nothing: what goes hands on what it contributed, by optimal transport",
        "there are no data, or too few to fine-tune",
        "seconds",
        "right after the cut, without data: +6 to +21 over dropping on two CNNs (3 seeds); after tuning nothing at "
        "half of the MACs, +0.8 at a tenth to three tenths on nine small networks",
    ),
    "magnitude": Said("nothing", "first: it is quick, and leaves all epochs to fine-tuning", "nothing"),
    "random": Said("nothing", "to see what any ranking is worth", "nothing"),
    "uniform": Said("nothing", "to see what a ranking between axes is worth", "nothing"),
    "metapruning": Said(
        "weights as a function of the widths; then a search for widths",
        "widths are what is wanted: for fresh weights, a family of sizes, a trade-off",
        "epochs of a network that makes weights, and 256 evaluations",
    ),
    "taylor": Said(
        "nothing: gradients of gates on some batches",
        "channels of different layers differ much in cost, and there are few epochs",
        "a backward pass on some batches",
    ),
    "transportation": Said(
        "a score per channel, with the weights, through a soft mask that costs the budget",
        "the budget must hold from the first step of the search on",
        "40 % of the epochs",
    ),
}
PENDING = "not measured yet"
RIVAL = "magnitude"
SHARE = "0.3"
TABLES = (("methods.md", SHARE), ("cifar10.md", SHARE), ("methods.md", "0.5"))
"""Where a figure is looked for, the first that has one: a page, and a share of the MACs."""


def measured(folder: Path = ROOT / "benchmarks") -> dict[str, tuple[str, str]]:
    """Arm -> what it gained over magnitude, and its minutes of one core, where a page has them."""
    found: dict[str, tuple[str, str]] = {}
    for page, share in TABLES:
        path = folder / page
        rows = _rows(path.read_text(encoding="utf-8"), share) if path.exists() else {}
        if RIVAL not in rows:
            continue
        rival = float(rows[RIVAL]["accuracy"].split()[0])
        for arm, row in rows.items():
            seeds = "1 seed" if row["seeds"] == "1" else f"{row['seeds']} seeds"
            gain = float(row["accuracy"].split()[0]) - rival
            at = "" if share == SHARE else f" at {share}"
            said = "what others are set against" if arm == RIVAL else f"{gain:+.1f}{at} ({seeds})"
            found.setdefault(arm, (said, row.get("minutes", "")))
    return found


def _rows(page: str, share: str) -> dict[str, Mapping[str, str]]:
    """The rows of a page's table at a share of the MACs, by their arm."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    found: dict[str, Mapping[str, str]] = {}
    for cells in lines[2:]:
        row = dict(zip(lines[0], cells, strict=False))
        if cells[0] == share and re.fullmatch(r"[\w-]+", cells[1]):
            found[cells[1]] = row
    return found


def table() -> str:
    """A row for each method, in Markdown."""
    figures = measured()
    rows = [
        "| method, `--method` | decides by | what it learns | choose it where | what it cost | what it gained here |",
        "|---|---|---|---|---|---|",
    ]
    for name, method in METHODS.items():
        link = f"[`mp.{method.__name__}`](src/metaprune/methods/{room(method)}/README.md), `{name}`"
        said = SAID.get(name, Said(first_line(method).rstrip("."), "its README says", PENDING))
        gain, minutes = figures.get(name, ("", ""))
        gained = "; ".join(filter(None, (gain, said.gained))) or PENDING
        cost = f"{said.cost}; {minutes} min in all" if minutes else said.cost
        cells = (link, decides_by(method), said.learns, said.choose, cost, gained)
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows)


def with_table(text: str) -> str:
    """A page whose table is as the registry says."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def pages() -> dict[str, str]:
    """For each room, by its name: its README, and the public names of its methods."""
    found: dict[str, str] = {}
    for method in METHODS.values():
        name = room(method)
        own = [word for word, value in vars(method).items() if not word.startswith("_") and _documented(value)]
        members = [word for word in own if word not in CONTRACT]
        entry = f".. autoclass:: {method.__name__}\n" + (f"   :members: {', '.join(members)}\n" if members else "")
        if name not in found:
            found[name] = (
                f"```{{include}} ../../src/metaprune/methods/{name}/README.md\n```\n\n"
                "## Public names\n\n```{eval-rst}\n.. currentmodule:: metaprune\n\n```\n"
            )
        found[name] = found[name].removesuffix("```\n") + f"{entry}\n```\n"
    return found


def write_pages(folder: Path) -> None:
    """A file for each room; what is as it should be is not touched, and what has no room goes."""
    folder.mkdir(exist_ok=True)
    wanted = {f"{name}.md": text for name, text in pages().items()}
    for path in folder.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _documented(value: object) -> bool:
    """Whether it is a method or property of a class, with words of its own."""
    function = getattr(value, "__func__", getattr(value, "fget", value))
    return inspect.isfunction(function) and bool(function.__doc__)


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
