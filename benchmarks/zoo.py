"""How much of each network of the zoo can be cut, and is the cut right? Writes the table of `docs/zoo.md`.

Run `python benchmarks/zoo.py`. Each network is traced, cut to a random half of every free axis with a few seeds, and
compared with the mask, in float64. What was measured is kept under `runs/zoo` and holds for as long as graph, surgery
and the file of the network are the same, so that a command that was stopped goes on. `--only` runs the networks whose
name holds a word, or whose family it is; the page has all rows that hold. The exit code is 1 if any of them is wrong.
"""

import argparse
import hashlib
import inspect
import os
import platform
import re
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape

import metaprune as mp
from metaprune.graph.graph import ChannelGraph
from metaprune.report.summary import groups, reasons
from metaprune.surgery.slice import carve
from metaprune.train.atomic import read_json, write_json

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # tests are no package that is installed

TOLERANCE = 1e-10
NOT_OURS = ("it is a size of the input", "it is a size of the output", "its rows are chosen by the input")
"""Reasons that hold for any network: what is fixed for one of these is no shortcoming."""
NO_BREAK = "\N{NON-BREAKING HYPHEN}"


@dataclass(frozen=True)
class Row:
    """What was found of one network.

    Attributes:
        name: Its name in the zoo.
        family: Its family there.
        free: Its free axes.
        axes: All its axes.
        free_share: Share of the parameters that lie on free axes.
        kept: Share of the parameters that stays at half of every free axis, the mean over the seeds.
        trace_s: Seconds that the trace took.
        cut_s: Seconds that a cut took, the mean over the seeds.
        error: Largest difference of slice and mask, relative to the largest value of an output; None if it failed.
        whole: What cannot be cut, or was not, and why.
    """

    name: str
    family: str
    free: int = 0
    axes: int = 0
    free_share: float = 0.0
    kept: float = 1.0
    trace_s: float = 0.0
    cut_s: float = 0.0
    error: float | None = None
    whole: str = ""

    @property
    def wrong(self) -> bool:
        """Whether slice and mask differ, or there is nothing to compare."""
        return self.error is None or not self.error <= TOLERANCE


def measured(name: str, seeds: int) -> Row:
    """Trace, cut and compare one network."""
    from tests.laws import oracle
    from tests.zoo import ZOO

    model, args, kwargs = ZOO[name].example()
    start = time.perf_counter()
    graph = mp.trace(model, args, kwargs)
    trace_s = time.perf_counter() - start
    kept, seconds, errors = [], [], []
    undone: dict[str, str] = {}
    for seed in range(seeds):
        start = time.perf_counter()
        cut = carve(model, graph, oracle.half(graph, seed))
        seconds.append(time.perf_counter() - start)
        masked = oracle.call(mp.mask(model, graph, cut.plan), args, kwargs)
        errors.append(oracle.distance(masked, oracle.call(cut.model, args, kwargs)))
        kept.append(mp.params(graph, cut.plan) / max(mp.params(graph), 1))
        undone |= cut.undone
    return Row(
        name=name,
        family=ZOO[name].family,
        free=len(graph.free),
        axes=len(graph.axes),
        free_share=graph.free_share(),
        kept=statistics.mean(kept),
        trace_s=trace_s,
        cut_s=statistics.mean(seconds),
        error=max(errors),
        whole=left_whole(graph, undone),
    )


def left_whole(graph: ChannelGraph, undone: dict[str, str]) -> str:
    """In short: the axes that hold parameters and are fixed, and those whose cut was undone, by reason."""
    said = []
    for reason, held in reasons(groups(graph.fixing(undone))).items():
        names = [f"{ending(group.name)} ({group.size})" for group in held if group.params]
        if names and not reason.startswith(NOT_OURS):
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            mark = "undone, " if any(undone.keys() & group.axes for group in held) else ""
            said.append(f"{', '.join(names[:2])}{more}: {mark}{short(reason)}")
    return "; ".join(said)


def ending(name: str, most: int = 28) -> str:
    """The last parts of a path, as many as are short: a long word would widen its column."""
    parts = name.split(".")
    while len(parts) > 1 and len(".".join(parts)) > most:
        parts = parts[1:]
    kept = ".".join(parts)
    return f"`{kept if kept == name else f'…{kept}'}`"


def short(reason: str, most: int = 140) -> str:
    """A reason on one line, with the names of files for their paths."""
    line = re.sub(r"[^\s'\"]*/([^/\s'\"]+\.py)", r"\1", " ".join(reason.split()))
    return line if len(line) <= most else f"{line[:most]} …"


def kept_row(folder: Path, name: str, seeds: int) -> tuple[Path, Row | None]:
    """Where the row of a network is kept, and the row, if it was measured with the same code."""
    from tests.zoo import ZOO

    sources = [path for part in ("graph", "surgery") for path in sorted((ROOT / "src/metaprune" / part).rglob("*.py"))]
    sources.append(Path(inspect.getsourcefile(ZOO[name].build) or __file__))
    digest = hashlib.sha256(f"{seeds} {name} {torch.__version__}".encode())
    for path in sources:
        digest.update(path.read_bytes())
    place = folder / f"{name}.{digest.hexdigest()[:16]}.json"
    return place, Row(**read_json(place)) if place.exists() else None


def page(rows: list[Row], networks: int, seeds: int) -> str:
    """The Markdown page."""
    heads = ["network", "family", "free axes", "on free axes", "kept", "trace s", "cut s", "error"]
    marks = [*(":--",) * 2, *("--:",) * 6, ":--"]
    table = [f"| {' | '.join([*heads, 'left whole, and why'])} |", f"| {' | '.join(marks)} |"]
    for row in rows:
        error = "failed" if row.error is None else f"{row.error:.0e}".replace("-", NO_BREAK) if row.error else "0"
        cells = [
            row.name,
            row.family,
            f"{row.free}/{row.axes}",
            f"{row.free_share:.1%}",
            f"{row.kept:.1%}",
            f"{row.trace_s:.2f}",
            f"{row.cut_s:.2f}",
            f"**{error}**" if row.wrong else error,
            row.whole,
        ]
        table.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |")
    done = [row for row in rows if row.error is not None]
    wrong = [row.name for row in rows if row.wrong]
    missing = f" (of {networks} in the zoo; the others have not been run)" if len(rows) < networks else ""

    def mean(values: list[float]) -> float:
        return statistics.mean(values) if values else 0.0

    return f"""# The zoo

Every network that the tests know, as small as it can be and still be itself: traced, cut to a random half of every
free axis with {seeds} seeds, and compared with the mask (`mp.mask`, which computes the same function at full width) in
float64. Made by:

```bash
python benchmarks/zoo.py
```

- **Networks**: {len(rows)}{missing}.
- **Wrong** (slice and mask differ by more than {TOLERANCE:.0e}, or it failed): {len(wrong)}\
{f" ({', '.join(wrong)})" if wrong else ""}.
- **Share of the parameters on free axes**: {mean([row.free_share for row in done]):.1%} in the mean over networks;
  **kept** at half of every free axis: {mean([row.kept for row in done]):.1%}. Half of both of its axes leaves a weight
  a quarter of its entries.
- **Time**: {mean([row.trace_s for row in done]):.2f} s for a trace and {mean([row.cut_s for row in done]):.2f} s for a
  verified cut, in the mean.
- **Measured on**: {processor()}, {torch.get_num_threads()} thread{"s" * (torch.get_num_threads() != 1)},
  PyTorch {torch.__version__}.

The error is the largest difference of an output, relative to its largest value. The last column leaves out the sizes
of inputs, outputs and vocabularies, and what holds no parameters.

{chr(10).join(table)}
"""


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return f"{found[1].strip() if found else platform.processor() or platform.machine()} ({os.cpu_count()} cores)"


def main() -> int:
    """Measures what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="WORD", help="networks with a word in the name, or of a family")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure anew what was measured with the same code")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "zoo", help="where rows are kept")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "zoo.md", help="the page")
    options = parser.parse_args()
    from tests.zoo import ZOO

    torch.set_num_threads(options.threads)
    mp.trace(torch.nn.Linear(2, 2), (torch.zeros(2, 2),))  # what the first trace of a process pays
    options.runs.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False)
    rows = []
    for name, entry in ZOO.items():
        place, row = kept_row(options.runs, name, options.seeds)
        chosen = not options.only or any(word in (name, entry.family) or word in name for word in options.only)
        if chosen and (row is None or options.again):
            try:
                row = measured(name, options.seeds)
                write_json(place, asdict(row))
            except Exception as error:
                row = Row(name, entry.family, whole=short(f"{type(error).__name__}: {error}"))
            verdict = "[bold red]WRONG[/]" if row.wrong else "ok"
            times = f"trace {row.trace_s:6.2f} s, cut {row.cut_s:6.2f} s"
            found = f"{row.free:>3}/{row.axes:<3} free, {times}, error {row.error}"
            found = row.whole if row.error is None else found
            console.print(f"{name:<36} {escape(found)}  {verdict}", soft_wrap=True)
        if row is not None:
            rows.append(row)
    options.out.write_text(page(rows, len(ZOO), options.seeds), encoding="utf-8")
    wrong = [row.name for row in rows if row.wrong]
    console.print(f"rows: {len(rows)}, wrong: {len(wrong)}; wrote {options.out}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
