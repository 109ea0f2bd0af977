"""Memory and time of one edit by a graph metanetwork, forward and backward, beside gather and scatter.

Run `python benchmarks/metanetwork.py`; `--only ResNet-56` for a look. It writes `metanetwork.md` when all has been
measured. Each measurement is a process of its own with one thread. Memory is the peak of the process's resident memory
during the edit, less what it held before (the network, its graph, and PyTorch): the C library keeps what is freed, so
it is an upper bound of what was needed. Time is processor time, so that a busy machine does not count. Weights are
random; neither memory nor time depends on them.

"Scatter" is the same message passing over an explicit list of edges with PyTorch Geometric, as the reference does it;
it is the oracle of the tests, stores what its backward pass needs, and leaves attributes as they are. It is run where
it fits, there in three processes of each form by turns: times are their medians, since its own differ by half from
process to process, and memory is the largest.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from memory import forget_peak, status
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # tests and benchmarks are no packages that are installed

SPEED_UP = 5.0
ROUNDS = 3


@dataclass(frozen=True)
class Setting:
    """A network, a size of metanetwork, and the bar.

    Attributes:
        network: Its name here.
        hidden: The metanetwork's state size.
        layers: Its layers.
        most: Gigabytes that one edit, forward and backward, may take.
        scatter: Whether gather and scatter fit a common machine.
    """

    network: str
    hidden: int
    layers: int
    most: float
    scatter: bool = False


SETTINGS = (
    Setting("ResNet-56", 64, 8, 0.5, scatter=True),
    Setting("ResNet-50", 16, 6, 2.0),
    Setting("ViT-B/16", 16, 3, 4.0),
)


@dataclass(frozen=True)
class Measured:
    """What one process measured.

    Attributes:
        edges: Kernels between two channels.
        nodes: Channels.
        forward: Seconds of processor time of an edit without a tape; the median of nine where that does not take long.
        backward: Of an edit with a tape and its backward pass; None where it was left out.
        memory: Gigabytes at the peak of both, above what was held before.
    """

    edges: int
    nodes: int
    forward: float
    backward: float | None
    memory: float


def network(name: str) -> tuple[nn.Module, tuple[Tensor]]:
    """The network and an example of its input."""
    if name == "ResNet-56":
        from metaprune.models import resnet56

        return resnet56().eval(), (torch.randn(1, 3, 32, 32),)
    from networks import NETWORKS

    return NETWORKS[name].build().eval(), (NETWORKS[name].example(),)


def measure(setting: Setting, form: str, backward: bool) -> Measured:
    """In this process: an edit without a tape, then one with, and its backward pass."""
    import metaprune as mp
    from metaprune.methods.graph_metanetwork import Metanetwork, graph_of

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, args = network(setting.network)
    graph = graph_of(model, mp.trace(model, args))
    metanetwork = Metanetwork(setting.hidden, setting.layers)
    for writer in (metanetwork.write_edges, metanetwork.write_attributes):
        nn.init.normal_(writer.outer)
    edit: Callable[[], Sequence[Tensor]]
    if form == "dense":

        def edit() -> Sequence[Tensor]:
            weights, scores, _ = metanetwork(graph)
            return [*weights.values(), scores]
    else:
        from tests.methods.graph_metanetwork import scatter

        lists = scatter.listed(graph)

        def edit() -> Sequence[Tensor]:
            return list(scatter.edited(metanetwork, graph, lists).values())

    if setting.scatter:
        with torch.no_grad():
            edit()  # what is only done once
    held = forget_peak()
    forwards = []
    for _ in range(9 if setting.scatter else 1):
        start = time.process_time()
        with torch.no_grad():
            edit()
        forwards.append(time.process_time() - start)
    forward = statistics.median(forwards)
    taken = None
    if backward:
        start = time.process_time()
        edited = edit()
        torch.autograd.backward(edited, [tensor.detach() for tensor in edited])
        taken = time.process_time() - start
    edges = sum(block.matrix[0].numel() for block in graph.edges)
    return Measured(edges, len(graph.axis), forward, taken, (status("VmHWM") - held) / 1e9)


def in_a_process(setting: Setting, form: str, backward: bool) -> Measured:
    """The same in a process of its own."""
    call = [sys.executable, __file__, "--measure", setting.network, form, *([] if backward else ["--forward-only"])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def together(measured: Sequence[Measured]) -> Measured:
    """Medians of times, and the largest memory."""
    backwards = [found.backward for found in measured if found.backward is not None]
    return replace(
        measured[0],
        forward=statistics.median(found.forward for found in measured),
        backward=statistics.median(backwards) if backwards else None,
        memory=max(found.memory for found in measured),
    )


def page(rows: Sequence[tuple[Setting, str, Measured]], faster: float) -> str:
    """The page of results."""
    table = [
        "| network | h, layers | channels | kernels | form | forward | forward and backward | peak memory | bar |",
        "|---|---|--:|--:|---|--:|--:|--:|--:|",
    ]
    for setting, form, found in rows:
        both = "not run" if found.backward is None else f"{found.backward:.1f} s"
        bar = f"{setting.most:g} GB" if form == "dense" else ""
        table.append(
            f"| {setting.network} | {setting.hidden}, {setting.layers} | {found.nodes:,} | {found.edges:,} | {form} | "
            f"{found.forward:.2f} s | {both} | {found.memory:.2f} GB | {bar} |"
        )
    machine = f"{platform.machine()}, one thread, PyTorch {torch.__version__}, float32"
    return "\n".join(
        [
            "# One edit by a graph metanetwork",
            "",
            f"Written by `python benchmarks/metanetwork.py` ({machine}). Processor time; memory above what was held.",
            "",
            *table,
            "",
            f"On ResNet-56 the dense forward pass is {faster:.1f} times as fast as gather and scatter "
            f"(bar: {SPEED_UP:g}).",
            "",
        ]
    )


def main() -> int:
    """Measure, print and write; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="networks whose name holds this; nothing is written")
    parser.add_argument("--forward-only", action="store_true", help="leave the backward pass out; nothing is written")
    parser.add_argument("--measure", nargs=2, metavar=("NETWORK", "FORM"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        name, form = given.measure
        setting = next(setting for setting in SETTINGS if setting.network == name)
        sys.stdout.write(json.dumps(asdict(measure(setting, form, not given.forward_only))) + "\n")
        return 0
    rows = []
    console = Console()
    table = Table("network", "form", "forward", "forward and backward", "memory")
    for setting in SETTINGS:
        if given.only in setting.network:
            forms = ("dense", "scatter") if setting.scatter else ("dense",)
            rounds = [
                [in_a_process(setting, form, not given.forward_only) for form in forms]
                for _ in range(ROUNDS if setting.scatter else 1)
            ]
            for form, measured in zip(forms, zip(*rounds, strict=True), strict=True):
                found = together(measured)
                rows.append((setting, form, found))
                both = "not run" if found.backward is None else f"{found.backward:.1f} s"
                table.add_row(setting.network, form, f"{found.forward:.2f} s", both, f"{found.memory:.2f} GB")
    console.print(table)
    times = {form: found.forward for setting, form, found in rows if setting.scatter}
    faster = times["scatter"] / times["dense"] if times else None
    if faster is not None:
        console.print(f"dense against scatter, forward: {faster:.1f} times as fast")
        if not given.only and not given.forward_only:
            Path(__file__).with_suffix(".md").write_text(page(rows, faster), encoding="utf-8")
    missed = [s.network for s, form, found in rows if form == "dense" and found.memory > s.most]
    if faster is not None and faster < SPEED_UP:
        missed.append("the speed")
    if missed:
        console.print(f"missed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
