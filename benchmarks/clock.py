"""How well are times foretold, and are budgets in time met? For some networks, batches and precisions.

Run `python benchmarks/clock.py --out clock.jsonl` on an idle machine; `--only resnet20 --batch 32 --precision 32-true`
is its smallest part. What is in the file already is not done again; the page is of all that is in it, and `--table`
only writes that. One thread is timed, by its own clock, the least of interleaved rounds, so that what else runs matters
least; on a busy machine the figures mean nothing all the same.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from networks import NETWORKS
from torch import Tensor, nn

import metaprune as mp
from metaprune.cost import stopwatch
from metaprune.cost.budget import Allocation
from metaprune.cost.clock import Clock
from metaprune.cost.latency_form import NANOSECONDS, Anchor, LatencyForm
from metaprune.graph import tensors
from metaprune.graph.errors import BudgetError
from metaprune.methods.method import Problem
from metaprune.methods.saliency import group_norms
from metaprune.models import MODELS
from metaprune.session.in_time import within
from metaprune.surgery.attention import written_out
from metaprune.surgery.resized import Resized
from metaprune.timing import form_of, inference_at, timed

PAGE = Path(__file__).with_suffix(".md")
CUTS = 12
SPEEDS = (1.4, 2.0)
METHODS: dict[str, Any] = {"magnitude": mp.Magnitude(), "Taylor": mp.Taylor(), "DHP": mp.DHP(search=0.5)}
STEPS, BATCH = 16, 2
CPU = torch.device("cpu")


class Subject(NamedTuple):
    """A network and one example of its input."""

    build: Callable[[], nn.Module]
    example: Callable[[], Tensor]


SUBJECTS = {
    "resnet20": Subject(lambda: MODELS["resnet20"](), lambda: torch.randn(1, 3, 32, 32)),
    "mobilenet_v2": Subject(lambda: MODELS["mobilenet_v2"](pixels=64), lambda: torch.randn(1, 3, 64, 64)),
    "edsr": Subject(lambda: MODELS["edsr"](), lambda: torch.randn(1, 3, 32, 32)),
    "vit": Subject(lambda: MODELS["vit"](), lambda: torch.randn(1, 3, 32, 32)),
    "resnet50": Subject(NETWORKS["ResNet-50"].build, NETWORKS["ResNet-50"].example),
}


def least_times(networks: Sequence[nn.Module], x: Tensor, precision: str, rounds: int) -> list[float]:
    """For each network the least time of a pass in ms, over rounds forwards and backwards through them."""

    def forward(network: nn.Module) -> Callable[[], Any]:
        network = tensors.clone(network).eval()

        def run() -> None:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                network(x)

        return run

    runs = [forward(network) for network in networks]
    best = [float("inf")] * len(runs)
    for turn in range(rounds):
        for place in range(len(runs))[:: -1 if turn % 2 else 1]:
            best[place] = min(best[place], stopwatch.least(runs[place], CPU, time.thread_time))
    return best


def draws(allocation: Allocation, count: int) -> Iterator[dict[str, int]]:
    """Random widths, each network with a least share of its own."""
    draw = random.Random(0)
    for _ in range(count):
        low = draw.uniform(0.1, 0.8)
        yield {a: lane.nearest(draw.uniform(low, 1.0)) for lane in allocation.lanes.values() for a in lane.axes}


def errors(foretold: Sequence[float], measured: Sequence[float]) -> dict[str, float]:
    """The mean and the largest error in percent."""
    off = [100 * abs(said / is_ - 1) for said, is_ in zip(foretold, measured, strict=True)]
    return {"mean": statistics.mean(off), "most": max(off)}


def through(values: Sequence[float], anchors: tuple[float, float]) -> list[float]:
    """The straight line through the first two values' times, at all the others."""
    slope = (anchors[0] - anchors[1]) / (values[0] - values[1])
    return [anchors[0] + slope * (value - values[0]) for value in values[2:]]


def measure(name: str, batch: int, precision: str, rounds: int, cache: Path) -> dict[str, Any]:
    """One row of the page; the tables are measured anew, into a folder of their own."""
    stopwatch.hold_memory()
    torch.manual_seed(0)
    model, x = SUBJECTS[name].build().eval(), SUBJECTS[name].example()
    graph = mp.trace(model, (x,))
    clock = Clock(batch=batch, precision=precision, threads=1, seconds=0.5, cache=cache)
    begun = time.process_time()
    form = form_of(model, graph, clock)
    seconds = time.process_time() - begun
    begun = time.process_time()
    plain = Clock(batch=batch, precision=precision, threads=1, cache=cache)
    plain.operators(graph, inference_at(model, graph, plain))
    again = time.process_time() - begun

    (inputs,), _ = clock.inputs((x,), {})
    resized, loosest = Resized(model, graph), Allocation(graph, mp.Budget(macs=1.0))
    widths = [{}, loosest.least, *draws(loosest, CUTS)]
    plans = [mp.Plan({axis: range(width) for axis, width in one.items()}) for one in widths]
    times = least_times([resized.copy(plan) for plan in plans], inputs, precision, rounds)
    anchored = LatencyForm(graph, form.sum, [Anchor(one, ms) for one, ms in zip(widths[:2], times[:2], strict=True)])
    macs = through([mp.macs(graph, plan) for plan in plans], (times[0], times[1]))
    row = {
        "network": name,
        "batch": batch,
        "precision": precision,
        "machine": f"{clock.machine}, torch {torch.__version__}",
        "ms": times[0],
        "least ms": times[1],
        "points": clock.table.measured,
        "table s": seconds,
        "again s": again,
        "form": errors([anchored.at(one) / NANOSECONDS for one in widths[2:]], times[2:]),
        "macs": errors(macs, times[2:]),
    }
    for speed in SPEEDS:
        row[f"speed {speed}"] = met(model, graph, x, clock, speed, rounds)
    return row


def met(
    model: nn.Module, graph: mp.ChannelGraph, x: Tensor, clock: Clock, speed: float, rounds: int
) -> dict[str, Any] | None:
    """The errors of a budget in percent for each of `METHODS`, as a session meets it; None where nothing can meet it.

    A session takes two networks as anchors and one or two near the budget, asks the method, measures what it found and
    corrects that before any fine-tuning. `first` are the errors before that correction.
    """
    try:
        time_ = timed(model, graph, mp.Budget(speedup=speed), clock)
    except BudgetError:
        return None
    task, recipe = task_of(model, x), mp.Recipe(epochs=2, lr=0.01, device="cpu", channels_last=False)
    plain = written_out(model, graph.written_out)
    problem = Problem(plain, graph, time_.budget, task, recipe, progress=False)
    plans = []
    for method in METHODS.values():
        found = method.find(problem)
        plans += [found.plan, within(time_, found, problem, method, clock, model)[0].plan]
    begun = time.process_time()
    Allocation(graph, time_.budget).plan(group_norms(plain, graph))
    seconds = time.process_time() - begun
    (inputs,), _ = clock.inputs((x,), {})
    resized = Resized(model, graph)
    networks = [model, *(resized.copy(plan) for plan in plans)]
    dense, *times = least_times(networks, inputs, clock.precision, 3 * rounds)
    off = [100 * (ms * speed / dense - 1) for ms in times]
    return {
        "plan s": seconds,
        "first": dict(zip(METHODS, off[::2], strict=True)),
        "missed": dict(zip(METHODS, off[1::2], strict=True)),
    }


def task_of(model: nn.Module, x: Tensor) -> mp.Task:
    """Something to learn, so that methods that must train have what to rank by: random inputs, random outputs."""
    with torch.no_grad():
        like = model(x)
    inputs, wanted = (torch.randn(STEPS, BATCH, *tensor.shape[1:]) for tensor in (x, like))
    batches = list(zip(inputs, wanted, strict=True))

    def loss(output: Any, batch: Any) -> Tensor:
        return F.mse_loss(output, batch[1])

    def metric(output: Any, batch: Any) -> tuple[Tensor, int]:
        return -loss(output, batch) * len(output), len(output)

    return mp.Task(batches, batches[:1], None, loss, metric, "likeness")


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a page."""

    def budget(found: dict[str, float] | None) -> str:
        return "cannot" if found is None else ", ".join(f"{off:+.1f}" for off in found["missed"].values())

    found = [row[f"speed {speed}"] for row in rows for speed in SPEEDS]
    off = [abs(error) for met in found if met is not None for error in met["missed"].values()]
    refused = (
        f"{sum(met is None for met in found)} of {len(found)} ask for more than the smallest network gives, and are "
        "refused before anything trains."
    )
    missed = (
        f"Budgets that can be met are missed by {statistics.mean(off):.1f} % on average, by {max(off):.1f} % at most "
        f"({len(off)} results); "
        if off
        else "Of the budgets "
    )
    machines = " and ".join(sorted({row["machine"] for row in rows}))
    lines = [
        "# Times foretold, and budgets in time",
        "",
        f"Written by `python benchmarks/clock.py` on one thread of {machines}.",
        "",
        f"Form and MACs: the error of {CUTS} networks of random widths, mean and largest, both set right by the same "
        "two measured networks, the dense and the smallest. Table: processor seconds to measure the operators, and to "
        "start again once they are known. Budgets: how much longer (+) or shorter than asked for the result of each "
        f"method takes ({', '.join(METHODS)}), as a session finds it: two networks more are measured near the budget, "
        "and the result is corrected up to twice. 'Cannot': the smallest network takes longer.",
        "",
        missed + refused,
        "",
        "| network | batch | precision | dense, smallest (ms) | table (s), again | form (%) | MACs (%) | 1.4× | 2× |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['network']} | {row['batch']} | {row['precision']} | {row['ms']:.3g}, {row['least ms']:.3g} "
        f"| {row['table s']:.0f}, {row['again s']:.1f} | {row['form']['mean']:.1f}, {row['form']['most']:.1f} "
        f"| {row['macs']['mean']:.1f}, {row['macs']['most']:.1f} "
        f"| {budget(row['speed 1.4'])} | {budget(row['speed 2.0'])} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Does what is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("clock.jsonl"))
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--precision", nargs="+", default=["32-true", "bf16-mixed"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--table", action="store_true", help="only write the page of the rows there are")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = options.out.read_text(encoding="utf-8").splitlines() if options.out.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {(row["network"], row["batch"], row["precision"]) for row in rows}
    for name in () if options.table else options.only:
        for batch in options.batch:
            for precision in options.precision:
                if (name, batch, precision) not in done:
                    with tempfile.TemporaryDirectory() as cache:
                        row = measure(name, batch, precision, options.rounds, Path(cache))
                    rows.append(row)
                    with options.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    print(page([row]).splitlines()[-1], flush=True)  # noqa: T201
    if rows:
        PAGE.write_text(page(rows), encoding="utf-8")
        print(page(rows))  # noqa: T201


if __name__ == "__main__":
    main()
