"""Does it hold on networks of other people's libraries? Writes `sweep.md`.

Run `python benchmarks/sweep.py`, with the libraries that `sweep_networks.py` names on the path (install them with
`pip install --no-deps --target FOLDER`, so that PyTorch stays what it is, and put FOLDER on PYTHONPATH). Each network
is a process of its own with one thread (or `--threads`), a limit of processor time and of memory. It is traced; half of
every free axis is cut, and then every free axis to a random width (of those that its operators take); what comes out is
compared with the mask in float64, in every call that the graph knows. What was found is kept row by row under
`runs/sweep`, so that a command that was stopped goes on, and rows hold for as long as graph and surgery are the same.
`--only` names networks, libraries or verdicts; `--missing` takes rows of older code as they are. The exit code is 1 if
any network is wrong or ends in an exception that is not ours.
"""

import argparse
import contextlib
import copy
import hashlib
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.steps import steps_of_operators
from metaprune.graph.term import Term, axes_of, width
from metaprune.surgery.slice import carve
from metaprune.surgery.still import Still
from metaprune.surgery.values import Judge
from metaprune.train.atomic import read_json, write_json

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # tests are no package that is installed

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-1}
"""By the least precise step on the way: code that computes in float32 is float32 in any network."""
FULL = 0.45  # of the parameters that stay at half of every axis: what is cut in full
SMALL = 0.05  # of the parameters: what may stay whole for no accepted reason where the rest is accepted
SECONDS = 30.0
ACCEPTED = (
    *("it is a size of the input", "it is a size of the output", "its rows are chosen by the input"),
    *("it is a kernel's extent", "it counts the pieces of a split", "it counts the parts of a concatenation"),
    *("its size is made by the code or by the example inputs", "single entries of it are picked by position"),
)
"""Reasons that hold for any network, by how they begin: what is fixed for one of these is no shortcoming."""
_PLACE = re.compile(r"(?<![<\w])[\w./-]+\.py:\d+")
_WAY_OUT = re.compile(r"\b(trace|use|wrap|give|pass|register|set|call|replace|move|leave|compute|write|put)\b")

VERDICTS = {
    "wrong": "slice and mask differ",
    "raw": "an exception that is not ours, or a process that died",
    "mute": "refused without line or way out",
    "refused": "refused with line and way out",
    "undone": "an axis that trace calls free was left whole by slice",
    "slow": f"more than {SECONDS:.0f} s for a trace or for a cut",
    "left": f"more than {FULL} of the parameters stay, for a reason that is not accepted",
    "whole": f"more than {FULL} of the parameters stay, for accepted reasons",
    "full": f"at most {FULL} of the parameters stay",
}


@dataclass
class Row:
    """What was found of one network.

    Attributes:
        name: Library and name.
        code: A digest of graph and surgery when it was measured.
        stage: How far it came: build, trace, slice, mask, compare, done.
        trace_s: Seconds of the trace.
        slice_s: Seconds of the slower of the two cuts.
        threads: That computed.
        free: Its free axes.
        axes: All its axes.
        kept: Share of the parameters that stay at half of every free axis.
        best: The same, if all axes could be halved that are fixed for no accepted reason.
        errors: Call and plan -> largest difference of slice and mask, over the tolerance: up to 1 is right.
        undone: Axis -> why slice left it whole though trace called it free.
        fixed: Reason -> share of the parameters on axes fixed for it, those without an accepted reason.
        unjudged: Why outputs were not compared, where they were not.
        refusal: Type and text of the error that ended it.
        ours: Whether that error is one of ours.
    """

    name: str
    code: str = ""
    stage: str = "build"
    trace_s: float = 0.0
    slice_s: float = 0.0
    threads: int = 1
    free: int = 0
    axes: int = 0
    kept: float = 1.0
    best: float = 1.0
    errors: dict[str, float] = field(default_factory=dict)
    undone: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, float] = field(default_factory=dict)
    unjudged: str | None = None
    refusal: str = ""
    ours: bool = False

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        if any(not error <= 1 for error in self.errors.values()):
            return "wrong"
        if self.refusal and not self.ours:
            return "raw"
        if self.refusal:
            lines = self.refusal.splitlines()
            told = _PLACE.search(self.refusal) and _WAY_OUT.search(self.refusal.lower()) and len(lines) <= 3
            return "refused" if told else "mute"
        if self.undone:
            return "undone"
        if max(self.trace_s, self.slice_s) > SECONDS:
            return "slow"
        if self.kept <= FULL:
            return "full"
        return "whole" if self.kept - self.best <= SMALL else "left"


def leaves(value: Any) -> Iterator[Tensor]:
    """The tensors in what a network returns."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from leaves(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from leaves(one)
    elif is_dataclass(value):
        for one in fields(value):
            yield from leaves(getattr(value, one.name))


def double(value: Any) -> Any:
    """Floating-point tensors in float64."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: double(one) for key, one in value.items()}
    return type(value)(map(double, value)) if isinstance(value, list | tuple) else value


@torch.no_grad()
def run(model: nn.Module, args: Any, kwargs: Any) -> list[Tensor]:
    """The outputs, with the same random numbers each time."""
    torch.manual_seed(1)
    copy = [one.clone() if isinstance(one, Tensor) else one for one in args]
    return list(
        leaves(model(*copy, **{key: one.clone() if isinstance(one, Tensor) else one for key, one in kwargs.items()}))
    )


def answer(model: nn.Module, call: mp.Call) -> list[Tensor]:
    """What a network gives in a call, with dropout letting everything pass; its mode and its buffers move."""
    model.train(call.training)
    args, kwargs = copy.deepcopy((call.args, dict(call.kwargs)))
    torch.manual_seed(1)
    with torch.no_grad(), Still():
        return list(leaves(getattr(model, call.method)(*args, **kwargs)))


def example(name: str) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """The network in evaluation mode with random weights, in float64 where its code can do that."""
    from sweep_networks import NETWORKS
    from tests.zoo.entry import randomise

    torch.manual_seed(0)
    model, args, kwargs = NETWORKS[name]()
    model.eval()
    plain = {key: value.clone() for key, value in model.state_dict().items()}
    precise = double(args), double(kwargs)
    for attempt in ("double", "plain", "single"):
        with contextlib.suppress(Exception):
            model = model.float() if attempt == "single" else model.double()
            model.load_state_dict(plain)
            if attempt != "plain":
                randomise(model, torch.Generator().manual_seed(0))
            inputs = (args, kwargs) if attempt == "single" else precise
            if all(one.isfinite().all() for one in run(model, *inputs)):
                return model, *inputs
    model.float().load_state_dict(plain)
    return model, args, kwargs


class Stopwatch:
    """What somebody waits on a machine that does nothing else: of processor and elapsed time, the lesser.

    The one is more where several threads share the work, the other where other processes do.
    """

    def __init__(self) -> None:
        self.started = time.process_time(), time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        processor, elapsed = self.started
        return min(time.process_time() - processor, time.perf_counter() - elapsed)


def measured(row: Row, quick: bool) -> Iterator[Row]:
    """Fill in a row, stage by stage; yields it as it stands at the end of each."""
    from tests.laws import oracle

    model, args, kwargs = example(row.name)
    row.stage = "trace"
    yield row
    stopwatch = Stopwatch()
    graph = mp.trace(model, args, kwargs)
    row.trace_s = stopwatch.seconds
    row.free, row.axes = len(graph.free), len(graph.axes)
    row.fixed, row.best = left_whole(graph)
    plans = {"half": taken(graph, oracle.half(graph)), "ragged": taken(graph, oracle.ragged(graph, 1))}
    for plan_name, plan in list(plans.items())[: 1 if quick else None]:
        row.stage = f"slice {plan_name}"
        yield row
        stopwatch = Stopwatch()
        cut = carve(model, graph, plan)
        row.slice_s = max(row.slice_s, stopwatch.seconds)
        row.undone |= cut.undone
        row.unjudged = cut.unjudged
        if plan_name == "half":
            row.kept = mp.params(graph, cut.plan) / max(mp.params(graph), 1)
        judge = Judge(model, graph)
        for place, call in enumerate(graph.calls):
            row.stage = f"compare {plan_name}, {call}"
            yield row
            if not judge.is_random(judge.seen[place]):
                masked = mp.mask(model, graph, cut.plan)
                masked.train(call.training)  # a way of calling it that is new is exported first, and draws numbers too
                masked.programs.interpreter(cut.plan.kept, call.args, dict(call.kwargs), method=call.method)
                off = distance(answer(masked, call), answer(copy.deepcopy(cut.model), call))
                row.errors[f"{call}, {plan_name}"] = off / TOLERANCE[coarsest(graph)]
    row.stage = "done"
    yield row


def taken(graph: ChannelGraph, plan: mp.Plan) -> mp.Plan:
    """The plan at widths that the operators take: grouped products want multiples of 16 bytes, say."""
    steps = steps_of_operators(graph)
    kept = {name: (stays, steps.get(name, 1), graph.axes[name].size) for name, stays in plan.kept.items()}
    fits = {
        name: stays[: max(len(stays) // step, 1) * step] for name, (stays, step, size) in kept.items() if step <= size
    }
    more = {name: range(step) for name, (stays, step, size) in kept.items() if len(stays) < step <= size}
    return mp.Plan({**fits, **more})


def distance(masked: list[Tensor], cut: list[Tensor]) -> float:
    """The largest difference of floating-point outputs, relative to the largest value of each; infinite in shape."""
    if [one.shape for one in masked] != [one.shape for one in cut]:
        return float("inf")
    worst = 0.0
    for one, other in zip(masked, cut, strict=True):
        if one.is_floating_point() and one.numel():
            if not torch.equal(one.isfinite(), other.isfinite()):
                return float("inf")
            one, other = one.nan_to_num(0, 0, 0), other.nan_to_num(0, 0, 0)
            worst = max(worst, ((one - other).abs().max() / one.abs().max().clamp(min=1e-30)).item())
    return worst


def coarsest(graph: ChannelGraph) -> torch.dtype:
    """The least precise floating-point type that a step of the network computes in."""
    nodes = [node for inference in graph.inferences for node in inference.program.graph.nodes]
    values = [value for node in nodes for value in leaves(node.meta.get("val"))]
    return min(
        (value.dtype for value in values if value.is_floating_point()),
        key=lambda dtype: -torch.finfo(dtype).eps,
        default=torch.float64,
    )


def left_whole(graph: ChannelGraph) -> tuple[dict[str, float], float]:
    """Reasons that are not accepted, with the share of the parameters on their axes; what would stay without them."""
    total = sum(product(graph.tensors[name], {}) for name in graph.parameters)
    half = {
        name: -(-axis.size // 2) for name, axis in graph.axes.items() if axis.fixed is None or not accepted(axis.fixed)
    }
    stays = sum(product(graph.tensors[name], half) for name in graph.parameters)
    shares: dict[str, float] = {}
    for name in graph.parameters:
        terms = graph.tensors[name]
        known = {graph.axes.get(axis.name) for term in terms for axis in axes_of(term)}
        for reason in {axis.fixed for axis in known if axis is not None and axis.fixed and not accepted(axis.fixed)}:
            shares[reason] = shares.get(reason, 0.0) + product(terms, {}) / max(total, 1)
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    return {reason: share for reason, share in ordered if share > 0.001}, stays / max(total, 1)


def accepted(reason: str) -> bool:
    """Whether a reader accepts a reason."""
    return _PLACE.sub("", reason, count=1).removeprefix(": ").startswith(ACCEPTED)


def product(terms: tuple[Term, ...], widths: Mapping[str, int]) -> int:
    """The entries of a tensor at given widths."""
    entries = 1
    for term in terms:
        entries *= width(term, widths)
    return entries


def one(name: str, place: Path, quick: bool, limit: int, memory: int, threads: int) -> None:
    """Measure one network in this process, within bounds, and write its row after each stage."""
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (memory << 30, memory << 30))
    log = os.open(place.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(threads)
    row = Row(name, code(), threads=threads)
    try:
        for _ in measured(row, quick):
            write_json(place, asdict(row))
    except Exception as error:
        traceback.print_exc()
        row.refusal, row.ours = f"{type(error).__name__}: {error}", isinstance(error, MetapruneError)
        write_json(place, asdict(row))


def prepare() -> None:
    """What all networks would pay anew: libraries, and what the first trace of a process takes."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # more threads than one do not survive a fork
    os.environ |= {"HF_HUB_OFFLINE": "1", "YOLO_CONFIG_DIR": tempfile.gettempdir(), "YOLO_VERBOSE": "False"}
    from sweep_networks import load

    load()
    mp.trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), (torch.zeros(2, 3, 4, 4),))


def code() -> str:
    """A digest of graph and surgery."""
    sources = [path for part in ("graph", "surgery") for path in sorted((ROOT / "src/metaprune" / part).rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def commit() -> str:
    """The commit that is checked out, where that can be told."""
    found = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def place_of(folder: Path, name: str) -> Path:
    """Where the row of a network is kept."""
    return folder / f"{name.replace('/', '__')}.json"


def kept_row(folder: Path, name: str) -> Row | None:
    """The row of a network, if it was measured to its end: not where the sweep itself was killed meanwhile."""
    place = place_of(folder, name)
    row = Row(**read_json(place)) if place.exists() else None
    return row if row is not None and (row.stage == "done" or row.refusal) else None


def measure(folder: Path, name: str, limit: int, memory: int, quick: bool, threads: int = 1) -> Row:
    """Measure one network in a process of its own, which finds the libraries loaded already."""
    place = place_of(folder, name)
    place.unlink(missing_ok=True)
    child = multiprocessing.get_context("fork").Process(target=one, args=(name, place, quick, limit, memory, threads))
    child.start()
    child.join(limit * 4)
    if child.is_alive():
        child.kill()
        child.join()
    row = kept_row(folder, name) or Row(name, code())
    if row.stage != "done" and not row.refusal:
        row.refusal = f"the process ended ({child.exitcode}) at the stage {row.stage!r}"
        write_json(place, asdict(row))
    return row


def page(rows: list[Row], networks: int) -> str:
    """The Markdown page."""
    counts = Counter(row.verdict for row in rows)
    good = sum(counts[verdict] for verdict in ("full", "whole"))
    verdicts = "\n".join(f"| {verdict} | {meaning} | {counts[verdict]} |" for verdict, meaning in VERDICTS.items())
    table = [
        "| network | verdict | free axes | kept | trace s | cut s | what was left whole, and why; or the refusal |",
        "|:--|:--|--:|--:|--:|--:|:--|",
    ]
    for row in sorted(rows, key=lambda row: (list(VERDICTS).index(row.verdict), row.name)):
        cells = [
            row.name,
            row.verdict,
            f"{row.free}/{row.axes}",
            f"{row.kept:.0%}",
            f"{row.trace_s:.1f}",
            f"{row.slice_s:.1f}",
        ]
        table.append(
            "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in [*cells, why(row)]) + " |"
        )
    missing = f" (of {networks}; the others have not been run)" if len(rows) < networks else ""
    old = sum(row.code != code() for row in rows)
    missing += f", {old} of them with an earlier state of the code" if old else ""
    return f"""# The sweep

Networks of other people's libraries, chosen before any of them was measured (`sweep_networks.py`): traced, cut to half
of every free axis and to random widths that their operators take, and compared with the mask in float64, in every call
that the graph knows. Made by:

```bash
pip install --no-deps --target FOLDER timm torchvision …
PYTHONPATH=FOLDER python benchmarks/sweep.py
```

{len(rows)} networks{missing}, at commit {commit()}.
{good} of them ({good / max(len(rows), 1):.0%}) are cut in full or left whole for reasons that a reader accepts: they
are sizes of inputs or outputs, rows of a vocabulary, or kernels.

| verdict | what it means | networks |
|:--|:--|--:|
{verdicts}

Seconds are the lesser of processor and elapsed time, so that what else runs on the machine counts little; of one
thread, where a row says no other number. `kept` is the share of the parameters that stays at half of every free axis; a
reason comes with the share of the parameters that lie on axes fixed for it.

{chr(10).join(table)}
"""


def why(row: Row, most: int = 3) -> str:
    """In short, what keeps a network from being cut in full."""
    said = [f"**{call}: {error:.0e} of what is allowed**" for call, error in row.errors.items() if not error <= 1]
    said += [short(row.refusal)] if row.refusal else []
    said += [f"undone, `{axis}`: {short(reason)}" for axis, reason in list(row.undone.items())[:most]]
    if not row.refusal and row.verdict != "full":
        said += [f"{share:.0%}: {short(reason)}" for reason, share in list(row.fixed.items())[:most]]
    if row.threads > 1:
        said.append(f"{row.threads} threads")
    if row.unjudged:
        said.append(f"outputs not compared: {row.unjudged}")
    if row.code != code():
        said.append("*with an earlier state of the code*")
    return "; ".join(said)


def short(reason: str, most: int = 200) -> str:
    """A reason on one line, with the names of files for their paths."""
    line = re.sub(r"[^\s'\"]*/([^/\s'\"]+\.py)", r"\1", " ".join(reason.split()))
    return line if len(line) <= most else f"{line[:most]} …"


def say(line: str) -> None:
    """One line on the screen, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Measures what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="WORD", help="networks, libraries, or verdicts of the last time")
    parser.add_argument("--missing", action="store_true", help="only what was never measured, with whichever code")
    parser.add_argument("--again", action="store_true", help="measure anew what was measured with the same code")
    parser.add_argument("--quick", action="store_true", help="only the cut to half of every axis")
    parser.add_argument("--threads", type=int, default=1, help="that compute")
    parser.add_argument("--limit", type=int, default=400, help="processor seconds of one network")
    parser.add_argument("--memory", type=int, default=10, help="GiB of one network")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "sweep", help="where rows are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="the page")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    from sweep_networks import NETWORKS

    prepare()
    rows = []
    for name in NETWORKS:
        row = kept_row(options.runs, name)
        words = (name, name.split("/")[0], row.verdict if row is not None else "new")
        chosen = not options.only or any(word in words or word in name for word in options.only)
        stale = row is None or (row.code != code() and not options.missing)
        if chosen and (stale or options.again):
            row = measure(options.runs, name, options.limit, options.memory, options.quick, options.threads)
            times = f"trace {row.trace_s:6.1f} s, cut {row.slice_s:6.1f} s"
            say(f"{name:<44} {row.verdict:<8} kept {row.kept:4.0%}  {times}  {why(row, 1)[:300]}")
        if row is not None:
            rows.append(row)
    options.out.write_text(page(rows, len(NETWORKS)), encoding="utf-8")
    counts = Counter(row.verdict for row in rows)
    say(f"{', '.join(f'{counts[one]} {one}' for one in VERDICTS if counts[one])}; wrote {options.out}")
    return 1 if counts["wrong"] or counts["raw"] else 0


if __name__ == "__main__":
    sys.exit(main())
