"""What documentation says of methods, read from the registry: a page for each room, and the table of the README.

`python docs/methods.py` writes the table anew; the build of the documentation writes the pages.
"""

from __future__ import annotations

import inspect
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


def table() -> str:
    """A row for each method, in Markdown."""
    rows = ["| method | `--method` | what it does | decides by |", "|---|---|---|---|"]
    for name, method in METHODS.items():
        link = f"[`mp.{method.__name__}`](src/metaprune/methods/{room(method)}/README.md)"
        does = first_line(method).replace("|", r"\|")
        rows.append(f"| {link} | `{name}` | {does} | {decides_by(method)} |")
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
