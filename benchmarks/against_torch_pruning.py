"""metaprune and Torch-Pruning side by side: the graph, a cut to half of every width, and what the cut network is worth.

Run `python benchmarks/against_torch_pruning.py`: an hour or so. It prints a table and writes `torch_pruning.md` beside
itself; `--only DenseNet` runs some networks and writes nothing. The exit code is 1 if a bar is missed.

Every measurement is a process of its own, with one thread and a limit; the tools take turns. Both choose channels at
random, so that no ranking is timed. Times are processor time, so that what else runs on the machine hardly shows, and
are taken after a first small network, because the first call of a process imports much.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from memory import forget_peak, status
from networks import LLAMA_8B, NETWORKS, Attention, GroupedAttention, LanguageModel, Network
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import metaprune as mp

PAGE = Path(__file__).with_name("torch_pruning.md")
TOOLS = {"ours": "metaprune", "theirs": "Torch-Pruning"}
SMALL, LARGE = "DenseNet-121", "DenseNet-201"
META = "Llama-3-8B"
META_LENGTH = 32
TOLERANCE = 1e-8  # relative, in float64

BARS = {
    f"seconds per operator, {LARGE} over {SMALL}": ("at most", 1.3),
    f"Torch-Pruning over metaprune on {LARGE}, graph and cut": ("at least", 4.0),
    f"{META} shape on the meta device, seconds to trace": ("at most", 15.0),
    f"{META} shape, peak memory above the import, GB": ("at most", 1.0),
    f"{META} shape, parameters over those counted by hand": ("exactly", 1.0),
    f"{META} shape, MACs over those counted by hand": ("exactly", 1.0),
}


# In a process of its own: one network, one tool, one measurement.


def say(**facts: Any) -> None:
    """Prints what is known by now; what comes later may run into the limit."""
    print(json.dumps(facts), flush=True)  # noqa: T201  read by the process that started this one


@contextmanager
def timed() -> Iterator[Callable[[], float]]:
    """Gives a function that says how many seconds of processor time have passed."""
    start = time.process_time()
    yield lambda: time.process_time() - start


class Tiny(nn.Sequential):
    """Warms a tool up."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8)
        )


def half(graph: mp.ChannelGraph) -> mp.Plan:
    """A random half of every free axis."""
    return mp.Plan(
        {
            name: torch.randperm(axis.size)[: -(-axis.size // 2)].sort().values.tolist()
            for name, axis in graph.free.items()
        }
    )


def ours(model: nn.Module, x: Tensor, output: nn.Module, report: bool = True) -> tuple[nn.Module, Any]:
    """Traces and slices; returns the cut network and its mask."""
    with timed() as seconds:
        graph = mp.trace(model, (x,))
        if report:
            say(graph=seconds(), operators=len(graph.operators), macs=mp.macs(graph))
        plan = half(graph)
        small = mp.slice(model, graph, plan)
        if report:
            say(total=seconds())
    return small, lambda: mp.mask(model, graph, plan)


def theirs(model: nn.Module, x: Tensor, output: nn.Module, report: bool = True) -> tuple[nn.Module, Any]:
    """Builds the dependency graph, then prunes as the examples of Torch-Pruning do; the network given is cut."""
    import torch_pruning as tp

    if report:
        with timed() as seconds:
            tp.DependencyGraph().build_dependency(model, example_inputs=x)
            say(graph=seconds())
    with timed() as seconds:
        heads: dict[nn.Module, int] = {}
        for module in model.modules():
            if isinstance(module, Attention):
                heads[module.qkv] = module.num_heads
            elif isinstance(module, GroupedAttention):
                heads[module.q_proj] = module.num_heads
                heads[module.k_proj] = heads[module.v_proj] = module.num_kv_heads
        rotary = isinstance(model, LanguageModel)
        pruner = tp.pruner.BasePruner(
            model,
            x,
            importance=tp.importance.RandomImportance(),
            pruning_ratio=0.5,
            ignored_layers=[output],
            num_heads=heads,
            prune_num_heads=rotary,
            prune_head_dims=not rotary,
            head_pruning_ratio=0.5 if rotary else 0.0,
        )
        pruner.step()
        for module in model.modules():
            if isinstance(module, Attention):
                module.num_heads = pruner.num_heads[module.qkv]
                module.head_dim = module.qkv.out_features // (3 * module.num_heads)
            elif isinstance(module, GroupedAttention):
                module.num_heads = module.q_proj.out_features // module.head_dim
                module.num_kv_heads = module.k_proj.out_features // module.head_dim
        if report:
            say(total=seconds())
    return model, None


def measure(network: Network, tool: Callable[..., Any], limit: int) -> None:
    """Says graph and total (seconds), memory (bytes), kept (share of parameters), and whether the result runs."""
    torch.manual_seed(0)
    model, x = network.build().eval(), network.example()
    count = sum(parameter.numel() for parameter in model.parameters())
    with timed() as seconds:
        warm = Tiny().eval()
        tool(warm, torch.randn(1, 3, 8, 8), warm[-1], report=False)
        say(parameters=count, warm=seconds())
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + limit, used + limit))
    before = forget_peak()
    small, _ = tool(model, x, model.get_submodule(network.output))
    say(memory=status("VmHWM") - before, kept=sum(p.numel() for p in small.parameters()) / count)
    try:
        with torch.no_grad():
            small(x)
        say(runs=True)
    except Exception as error:  # whatever it is, it is the result
        say(runs=False, why=" ".join(str(error).split())[:200])


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Values that are all different, so that each entry of a cut tensor can be found again in the whole one."""
    for tensor in [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]:
        if tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
        else:
            tensor.normal_(std=tensor[0].numel() ** -0.5)


@torch.no_grad()
def zeroed(model: nn.Module, small: nn.Module) -> nn.Module:
    """`model` with zeros in the place of every entry that `small` does not hold: what the cut network computes.

    True where no statistic runs over channels.
    """
    known = dict(small.named_parameters()) | dict(small.named_buffers())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not name.endswith("running_var"):
            values, places = tensor.flatten().sort()
            found = torch.searchsorted(values, known[name].flatten()).clamp(max=len(values) - 1)
            if not torch.equal(values[found], known[name].flatten()):
                raise ValueError(f"{name} holds values that the whole network did not")
            stays = torch.zeros(len(values), dtype=torch.bool)
            stays[places[found]] = True
            tensor.mul_(stays.reshape(tensor.shape))
    return model


def judge(network: Network, tool: Callable[..., Any], limit: int) -> None:
    """Says how far the cut network is from the whole one without the channels that went, where that can be told."""
    torch.manual_seed(0)
    model, x = network.build().double().eval(), network.example()
    x = x.double() if x.is_floating_point() else x
    randomise(model)
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + 2 * limit, used + 2 * limit))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small, mask = tool(model, x, model.get_submodule(network.output), report=False)
    whole = network.build().double().eval()
    whole.load_state_dict(state)
    if any(isinstance(module, nn.BatchNorm2d) for module in whole.modules()):
        expected, by = zeroed(whole, small), "zeros"
    elif mask is not None:
        expected, by = mask(), "mask"
    else:
        return
    with torch.no_grad():
        one, other = small(x), expected(x)
    say(distance=((one - other).abs().max() / other.abs().max()).item(), by=by)


def on_meta(limit: int) -> None:
    """Says what tracing the large language model without its weights takes, and what is predicted for it."""
    warm = Tiny().eval()
    ours(warm, torch.randn(1, 3, 8, 8), warm[-1], report=False)
    before = forget_peak()
    with torch.device("meta"):
        model = LanguageModel(LLAMA_8B).eval()
        x = torch.zeros(1, META_LENGTH, dtype=torch.long)
    wall = time.perf_counter()
    with timed() as seconds:
        graph = mp.trace(model, (x,))
        say(graph=seconds(), wall=time.perf_counter() - wall)
    say(memory=status("VmHWM") - before, operators=len(graph.operators), free=graph.free_share())
    say(parameters=mp.params(graph), macs=mp.macs(graph))


# The process that starts the others, and reads what they say.


@dataclass
class Row:
    """What is known of one network under one tool; several repeats."""

    facts: dict[str, Any] = field(default_factory=dict)
    graph: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    stopped: str = ""

    def add(self, facts: dict[str, Any]) -> None:
        """Takes in what one process said."""
        for key in ("graph", "total", "memory"):
            if key in facts:
                getattr(self, key).append(facts.pop(key))
        self.stopped = self.stopped or facts.pop("stopped", "")
        self.facts |= facts


def started(*words: str, limit: int) -> dict[str, Any]:
    """Runs this file again with `words`; what it said, and why it stopped if it did."""
    command = [sys.executable, __file__, "--limit", str(limit), "--process", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10 * limit, check=False)
        output, code, errors = done.stdout, done.returncode, done.stderr
    except subprocess.TimeoutExpired as late:
        output, code, errors = (late.stdout or b"").decode(), -24, ""
    facts: dict[str, Any] = {}
    for line in output.splitlines():
        if line.startswith("{"):
            facts |= json.loads(line)
    if code in (-24, -9):
        facts["stopped"] = f"not in {limit} s"
    elif code:
        facts["stopped"] = (errors.strip().splitlines() or ["failed"])[-1][:200]
    return facts


def cells(name: str, tool: str, row: Row) -> list[str]:
    """One line of the table."""

    def median(values: list[float], scale: float = 1.0, digits: int = 1) -> str:
        return f"{statistics.median(values) / scale:.{digits}f}" if values else (row.stopped or "–")

    facts = row.facts
    runs = {True: "yes", False: "no", None: "–"}[facts.get("runs")]
    right = "–"
    if "distance" in facts:
        right = "yes" if facts["distance"] < TOLERANCE else f"off by {facts['distance']:.1e}"
        right += f" ({facts['by']})"
    elif facts.get("judged"):
        right = facts["judged"]
    return [
        name,
        f"{facts['parameters'] / 1e6:.1f}" if "parameters" in facts else "–",
        f"{facts['macs'] / 1e9:.2f}" if "macs" in facts else "",
        TOOLS[tool],
        median(row.graph),
        median(row.total),
        median(row.memory, 2**20, 0),
        f"{facts['kept']:.1%}" if "kept" in facts else "–",
        runs,
        right,
    ]


HEADER = [
    "network",
    "million parameters",
    "giga MACs",
    "tool",
    "graph, s",
    "graph and cut, s",
    "peak, MB",
    "parameters kept",
    "runs",
    "right",
]


def bars(rows: dict[tuple[str, str], Row], meta: dict[str, Any]) -> list[tuple[str, float | None]]:
    """The value that each bar is held against; None where it was not measured."""

    def of(name: str, tool: str, key: str) -> float | None:
        values = getattr(rows.get((name, tool), Row()), key)
        return statistics.median(values) if values else None

    def over(one: float | None, other: float | None) -> float | None:
        return one / other if one and other else None

    each = [
        over(of(name, "ours", "graph"), rows.get((name, "ours"), Row()).facts.get("operators"))
        for name in (LARGE, SMALL)
    ]
    memory = meta.get("memory")
    values = [
        over(*each),
        over(of(LARGE, "theirs", "total"), of(LARGE, "ours", "total")),
        meta.get("graph"),
        None if memory is None else memory / 2**30,
        over(meta.get("parameters"), LLAMA_8B.parameters),
        over(meta.get("macs"), LLAMA_8B.macs(META_LENGTH)),
    ]
    return list(zip(BARS, values, strict=True))


def met(value: float | None, bar: tuple[str, float]) -> bool:
    """Whether a value is as good as it must be."""
    kind, limit = bar
    if value is None:
        return False
    return value <= limit if kind == "at most" else value >= limit if kind == "at least" else value == limit


def machine() -> str:
    """What it ran on, in a sentence."""
    info = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), platform.machine())
    from importlib.metadata import version

    return (
        f"{cpu}, {os.cpu_count()} cores of which one is used, Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}, Torch-Pruning {version('torch-pruning')}, metaprune {version('metaprune')}"
    )


def notes(rows: dict[tuple[str, str], Row], repeats: int, limit: int) -> list[str]:
    """What a reader of the table must know."""
    warm = {
        tool: [row.facts["warm"] for (_, t), row in rows.items() if t == tool and "warm" in row.facts] for tool in TOOLS
    }
    first = ", ".join(
        f"{statistics.median(seconds):.1f} s of {TOOLS[tool]}" for tool, seconds in warm.items() if seconds
    )
    why = [
        f"{name}, {TOOLS[tool]}: {reason}."
        for (name, tool), row in rows.items()
        if (reason := row.facts.get("why") or row.stopped)
    ]
    return [
        f"Seconds of processor time of one thread, the median of {repeats}; every measurement in a new process, the "
        f"tools in turn, {limit} s at most. Not in it: a first small network ({first}, most of it imports).",
        "Graph: `mp.trace`, and `tp.DependencyGraph().build_dependency`. Graph and cut: `mp.trace` and `mp.slice`, "
        "which checks the result by tracing it again; and `tp.pruner.BasePruner(…, pruning_ratio=0.5)` and its `step`, "
        "which builds the graph itself. Both choose the channels at random. Torch-Pruning is told which layer is the "
        "output, and the heads of attention, as its examples tell it: it halves the head size in the vision "
        "transformer, and the number of heads in the language model, where positions fix the head size. metaprune is "
        "told nothing, and halves whatever is free.",
        "Peak: what the process held at most, above what it held before the graph.",
        "Right: in float64, against the whole network with zeros in the place of every entry that is gone (zeros), or "
        "where statistics run over channels against `mp.mask` (mask). There, Torch-Pruning's cut has no judge that is "
        "not ours: left out.",
        *why,
    ]


def render(rows: dict[tuple[str, str], Row], meta: dict[str, Any], repeats: int, limit: int) -> str:
    """The page."""
    lines = ["# metaprune and Torch-Pruning side by side", ""]
    lines += ["Written by `python benchmarks/against_torch_pruning.py`.", "", f"Machine: {machine()}.", ""]
    lines += [f"| {' | '.join(HEADER)} |", f"|---|--:|--:|---|{'--:|' * 4}---|---|"]
    lines += [f"| {' | '.join(cells(name, tool, row))} |" for (name, tool), row in rows.items()]
    lines += [""] + [f"- {note}" for note in notes(rows, repeats, limit)]
    lines += ["", "## Bars", "", "| measured | value | bar | met |", "|---|--:|---|---|"]
    for what, value in bars(rows, meta):
        kind, bar = BARS[what]
        shown, verdict = (
            ("–", "–") if value is None else (f"{value:.2f}", "yes" if met(value, BARS[what]) else "**no**")
        )
        lines.append(f"| {what} | {shown} | {kind} {bar:g} | {verdict} |")
    if "parameters" in meta:
        lines += [
            "",
            f"{META} shape, one sentence of {META_LENGTH} tokens, {meta['operators']} operators, "
            f"{meta['free']:.1%} of the parameters on free axes: {meta['parameters']:,} parameters (by hand "
            f"{LLAMA_8B.parameters:,}), {meta['macs']:,} MACs (by hand {LLAMA_8B.macs(META_LENGTH):,}).",
        ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int, default=300, help="seconds for one measurement")
    parser.add_argument("--only", help="only networks whose name holds this word; nothing is written")
    parser.add_argument("--process", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        if options.process[0] == "meta":
            on_meta(options.limit)
        else:
            task, name, tool = options.process
            {"measure": measure, "judge": judge}[task](
                NETWORKS[name], {"ours": ours, "theirs": theirs}[tool], options.limit
            )
        return 0

    console = Console(width=150)
    names = [name for name in NETWORKS if options.only is None or options.only in name]
    rows = {(name, tool): Row() for name in names for tool in TOOLS}
    for repeat in range(options.repeats):
        for name in names:
            for tool in list(TOOLS)[:: -1 if repeat % 2 else 1]:
                if not rows[name, tool].stopped:
                    rows[name, tool].add(started("measure", name, tool, limit=options.limit))
                    console.print(
                        repeat + 1, *cells(name, tool, rows[name, tool])[:1], *cells(name, tool, rows[name, tool])[3:]
                    )
    for (name, tool), row in rows.items():
        if row.facts.get("runs"):
            said = started("judge", name, tool, limit=options.limit)
            row.facts |= {"judged": said.pop("stopped", ""), **said}
    meta = started("meta", limit=options.limit) if options.only is None or options.only in META else {}

    table = Table(*HEADER)
    for (name, tool), row in rows.items():
        table.add_row(*cells(name, tool, row))
    console.print(table)
    page = render(rows, meta, options.repeats, options.limit)
    if options.only is None:
        PAGE.write_text(page)
    console.print(page.partition("\n- ")[2], markup=False)
    return 0 if all(met(value, BARS[what]) for what, value in bars(rows, meta)) or options.only else 1


if __name__ == "__main__":
    sys.exit(main())
