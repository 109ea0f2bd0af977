"""Which channel counts does this machine like? Times layers at every width, and a network cut to 0.7.

Run `python benchmarks/alignment.py`: some minutes. `docs/alignment.md` reads the tables. One thread is timed
in processor time, so that what else runs on the machine hardly shows; more threads want an idle machine.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.benchmark import Timer

import metaprune as mp
from metaprune.models import MODELS

FIRST, LAST = 16, 64
CLASSES = {"×16": 16, "×8": 8, "×4": 4, "×2": 2, "odd": 1}
LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "conv3x3 c→c": lambda c: nn.Conv2d(c, c, 3, padding=1, bias=False),
    "conv3x3 c→32": lambda c: nn.Conv2d(c, 32, 3, padding=1, bias=False),
    "conv3x3 32→c": lambda c: nn.Conv2d(32, c, 3, padding=1, bias=False),
    "conv1x1 c→c": lambda c: nn.Conv2d(c, c, 1, bias=False),
    "linear c→c": lambda c: nn.Linear(c, c),
    "batch norm c": lambda c: nn.BatchNorm2d(c),
}


class Mode(NamedTuple):
    """How a network is run."""

    bf16: bool
    last: bool  # in memory as (N, H, W, C)
    backward: bool

    def __str__(self) -> str:
        """Says it in three words."""
        return " ".join(
            (
                "bf16" if self.bf16 else "fp32",
                "NHWC" if self.last else "NCHW",
                "train" if self.backward else "infer",
            )
        )


MODES = [Mode(*flags) for flags in itertools.product((False, True), repeat=3)]


def milliseconds(model: nn.Module, x: Tensor, mode: Mode, seconds: float) -> float:
    """Returns the least time of one call of `model`, in ms; the model stays in that mode."""
    layout = torch.channels_last if mode.last else torch.contiguous_format
    model.train(mode.backward).to(memory_format=layout)
    x = x.detach().to(memory_format=layout if x.dim() == 4 else torch.preserve_format)
    x.requires_grad_(mode.backward)

    def call() -> None:
        with torch.set_grad_enabled(mode.backward), torch.autocast("cpu", torch.bfloat16, enabled=mode.bf16):
            y = model(x)
        if mode.backward:
            y.backward(torch.ones_like(y))

    threads = torch.get_num_threads()
    clock = time.process_time if threads == 1 else time.perf_counter
    timer = Timer("call()", globals={"call": call}, timer=clock, num_threads=threads)
    return min(timer.blocked_autorange(min_run_time=seconds).times) * 1e3


def layer_rows(batch: int, size: int, seconds: float) -> Iterator[list[str]]:
    """Yields a row for each layer and mode: ms at two widths, then the slowdown of each class of widths."""
    for (name, layer_of), mode in itertools.product(LAYERS.items(), MODES):
        if mode.last and name.startswith("linear"):
            continue
        times = {}
        for c in range(FIRST, LAST + 1):
            layer = layer_of(c)
            x = example(layer, c, batch, size)
            if mode.bf16 and isinstance(layer, nn.BatchNorm2d):
                x = x.bfloat16()  # what a convolution before it hands on under autocast
            times[c] = milliseconds(layer, x, mode, seconds)
        slow = by_class({c: t / line(times, c) for c, t in times.items()})
        yield [name, str(mode), f"{times[32]:.2f}", f"{times[31]:.2f}", *slow]


def example(layer: nn.Module, channels: int, batch: int, size: int) -> Tensor:
    """Returns an input: (batch, channels, size, size); for a linear layer (batch * size * size, channels)."""
    if isinstance(layer, nn.Linear):
        return torch.randn(batch * size * size, channels)
    return torch.randn(batch, layer.in_channels if isinstance(layer, nn.Conv2d) else channels, size, size)


def line(times: dict[int, float], c: int) -> float:
    """Returns the time at `c` on the straight line between the neighbouring multiples of 16."""
    low = c // 16 * 16
    return times[low] + (c - low) / 16 * (times[min(low + 16, LAST)] - times[low])


def by_class(values: dict[int, float]) -> list[str]:
    """Returns the median per class: a width belongs to the largest of 16, 8, 4, 2, 1 that divides it."""
    best = {c: next(m for m in CLASSES.values() if c % m == 0) for c in values}
    return [f"{statistics.median(v for c, v in values.items() if best[c] == m):.2f}" for m in CLASSES.values()]


def network_columns(name: str, share: float, batch: int, seconds: float) -> Iterator[list[str]]:
    """Yields a column for the dense network and one for each rounding: MACs, then ms in each mode."""
    model, x = MODELS[name](), torch.randn(batch, 3, 32, 32)
    graph = mp.trace(model, (x[:2],))
    for multiple in (None, 1, 4, 8, 16):
        sizes = {axis: graph.axes[axis].size for axis in graph.free} if multiple else {}
        widths = {axis: nearest(share * size, multiple) for axis, size in sizes.items()}
        plan = mp.Plan({axis: range(width) for axis, width in widths.items()})
        small = mp.slice(model, graph, plan)
        times = [min(milliseconds(small, x, mode, seconds) for _ in range(5)) for mode in MODES]
        head = f"×{multiple}" if multiple else "dense"
        yield [head, f"{mp.macs(graph, plan) / 1e6:.1f}", *(f"{t:.1f}" for t in times)]


def nearest(width: float, multiple: int) -> int:
    """Returns the multiple of `multiple` that is nearest to `width`, and not 0."""
    return max(1, round(width / multiple)) * multiple


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=0.02, help="time for each measurement of a layer")
    parser.add_argument("--network", default="resnet20", help="which built-in network to cut")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(width=110)

    table = Table("layer", "mode", "ms at 32", "ms at 31", *CLASSES, title="time / line through the multiples of 16")
    rows = layer_rows(options.batch, 16, options.seconds)
    for row in track(rows, "layers", len(LAYERS) * len(MODES) - 4, console=console, transient=True):
        table.add_row(*row)
    console.print(table)

    columns = network_columns(options.network, 0.7, options.batch, 10 * options.seconds)
    header, *body = zip(
        ["ms", "million MACs", *map(str, MODES)], *track(columns, "network", 5, console=console), strict=True
    )
    table = Table(*header, title=f"{options.network}, batch {options.batch}, widths cut to 0.7 and rounded")
    for line_of in body:
        table.add_row(*line_of)
    console.print(table)


if __name__ == "__main__":
    main()
