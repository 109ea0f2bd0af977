"""Channels priced by time or by MACs, at equal measured time: DHP and Taylor, three seeds, equal epochs.

Run `python benchmarks/by_time.py --data DATA`: hours on a CPU; `--network mobilenet_v2` is the other network. Both arms
of a method are given the same speed-up on the same clock, and their results are measured and corrected before they are
fine-tuned. They differ in what a channel is thought to cost: what the tables of operators say, or its MACs, of which
the time then is taken as a straight line through the same anchors. Accuracies are of the test set after the last epoch.

Every finished run is a folder under `--out`; started again it goes on where it was. `--minutes 9` begins no run after
so many minutes; `--table` only writes the page of what there is. On a busy machine the times mean little.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from experiment import Run, carry_out, mean_and_spread, rows_in
from torch import Tensor, nn

import metaprune as mp
from metaprune.cost.clock import Clock
from metaprune.cost.latency_form import Sum
from metaprune.cost.roofline import KINDS, Roofline
from metaprune.graph.infer import Inference
from metaprune.graph.term import Term
from methods import SETTINGS, subject

PAGE = Path(__file__).with_suffix(".md")
METHODS = {"DHP": mp.DHP(), "Taylor": mp.Taylor()}
ARMS = [f"{method} by {price}" for method in METHODS for price in ("time", "MACs")]


class Macs:
    """A sum over operators of what they multiply, and nothing else."""

    def __init__(self, sum_: Roofline) -> None:
        self.sum = Roofline(sum_.products, tuple(float(kind == "MACs") for kind in KINDS))
        self.terms: tuple[Term, ...] = self.sum.terms

    def at(self, sizes: Tensor) -> Tensor:
        """At sizes of shape (terms, candidates)."""
        return self.sum.at(sizes)

    def parts(self) -> Mapping[str, Any]:
        """For each place in the network its part."""
        return self.sum.parts()


@dataclass(frozen=True)
class ClockOfMacs(Clock):
    """A clock that thinks that MACs are what takes time, and measures whole networks as every clock does."""

    def operators(self, graph: mp.ChannelGraph, inference: Inference) -> Sum:
        """The MACs."""
        return Macs(Roofline.of(graph))


def row_of(
    run: Run, network: nn.Module, recipe: mp.Recipe, task: mp.Task, example: Tensor, batch: int
) -> dict[str, Any]:
    """One run of the experiment."""
    method, price = run.arm.split(" by ")
    kind = Clock if price == "time" else ClockOfMacs
    began = time.process_time()
    result = mp.prune(
        network,
        (example,),
        method=METHODS[method],
        budget=mp.Budget(speedup=run.share, multiple_of=8),
        task=task,
        recipe=replace(recipe, seed=run.seed),
        clock=kind(batch=batch, threads=1),
        progress=False,
    )
    report = result.report
    assert report.dense.latency is not None
    assert report.pruned.latency is not None
    return {
        "arm": run.arm,
        "speedup": run.share,
        "seed": run.seed,
        "dense": report.dense.metric,
        "metric": report.pruned.metric,
        "macs": report.pruned.macs / report.dense.macs,
        "measured": report.dense.latency.median_ms / report.pruned.latency.median_ms,
        "seconds": time.process_time() - began,
    }


def table(rows: Sequence[Mapping[str, Any]], network: str, epochs: int, batch: int) -> str:
    """The page: accuracy of each arm at each speed-up, with what was measured."""
    speeds = sorted({row["speedup"] for row in rows})
    heads = " | ".join(f"{speed:g}× asked: accuracy | measured, MACs that stay" for speed in speeds)
    lines = [
        f"# {network} on CIFAR-10 at half resolution, dense {rows[0]['dense']:.2f} %",
        "",
        f"{epochs} epochs each, batch {batch}, one thread; mean ± standard deviation over the seeds.",
        "",
        f"| arm | {heads} |",
        "|---|" + "--:|--:|" * len(speeds),
    ]
    for arm in sorted({row["arm"] for row in rows}, key=ARMS.index):
        cells = []
        for speed in speeds:
            ours = [row for row in rows if (row["arm"], row["speedup"]) == (arm, speed)]
            measured, macs = (statistics.mean([row[name] for row in ours] or [0]) for name in ("measured", "macs"))
            cells.append(f"{mean_and_spread([row['metric'] for row in ours])} ({len(ours)})" if ours else "")
            cells.append(f"{measured:.2f}×, {macs:.2f}" if ours else "")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is left, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--network", choices=["resnet20", "mobilenet_v2"], default="resnet20")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--speeds", nargs="+", type=float, default=[1.5, 2.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=None, help="other than usual, after the dense network")
    parser.add_argument("--batch", type=int, default=32, help="at which time is measured")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many minutes")
    parser.add_argument("--out", type=Path, default=Path("runs/by_time"))
    parser.add_argument("--table", action="store_true", help="only write the page of the runs there are")
    args = parser.parse_args()
    torch.set_num_threads(1)
    out, setting = args.out / args.network, SETTINGS[args.network]
    recipe = replace(setting.pruned, epochs=args.epochs or setting.pruned.epochs)
    started = time.monotonic()
    if not args.table:
        network, task, example = subject(args.data, args.network, out)
        for seed, speed, arm in itertools.product(args.seeds, args.speeds, args.arms):
            if time.monotonic() - started <= 60 * args.minutes:
                run = Run(arm, speed, seed)
                piece = partial(row_of, run, network, recipe, task, example, args.batch)
                carry_out(out / run.folder.replace(" ", "-"), piece)
    rows = rows_in(out)
    if rows:
        page = table(rows, args.network, recipe.epochs, args.batch)
        (PAGE if args.network == "resnet20" else PAGE.with_stem(f"by_time_{args.network}")).write_text(page)
        print(page)  # noqa: T201


if __name__ == "__main__":
    main()
