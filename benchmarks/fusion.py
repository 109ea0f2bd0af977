"""Fusing channels against dropping them: accuracy right after the cut, and after tuning.

Run `python benchmarks/fusion.py --data DATA`. Every finished piece is a folder under `--out`; started again it goes on
where it was, and several processes may share the folder. `--table` only writes the page of what there is.

Three networks on CIFAR-10 at half resolution: one with trunks (ResNet-8), a plain one (VGG), and a vision transformer.
Group norms decide what stays, over all axes at once, so that every arm keeps the same channels. Then each arm cuts; the
test set is evaluated right after the cut and after running statistics were measured anew, and of two arms after tuning
for equal epochs. Nothing is chosen by any of these figures.

`DATA` is a folder with `train.parquet` and `test.parquet`, or a name on the Hugging Face Hub.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from experiment import Busy, carry_out, dense_network, mean_and_spread, rows_in
from torch import nn

import metaprune as mp
from metaprune.data import load
from metaprune.models import ResNet, VisionTransformer
from metaprune.train.engine import evaluate, fit

PAGE = Path(__file__).with_name("fusion.md")
SHARES = (0.8, 0.6, 0.5)
SEEDS = (0, 1, 2)
DENSE, TUNED = 8, 1  # epochs
IMAGES = {"train": 15_000, "val": 1_000, "test": 5_000}


def vgg() -> nn.Module:
    """Six convolutions in pairs, a pool between pairs."""
    layers: list[nn.Module] = []
    before = 3
    for width in (24, 48, 96):
        layers += [nn.MaxPool2d(2)] if layers else []
        for _ in range(2):
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "VGG": vgg,
    "ResNet-8": partial(ResNet, 8),
    "ViT": partial(VisionTransformer, pixels=16, width=48, depth=3, hidden=96),
}
ARMS: dict[str, mp.IntraFusion | None] = {
    "drop": None,
    "fuse, one": mp.IntraFusion(consumer="one"),
    "fuse, projection": mp.IntraFusion(consumer="projection"),
    "published": mp.IntraFusion.published(),
}
"""None drops; the others fuse."""
TUNE = ("drop", "fuse, projection")
ORDERS = ("one half alone", "fuse and prune", "prune and fuse")
HALVED = ("VGG",)
Piece = tuple[str, Callable[[], Mapping[str, Any]]]
"""A folder's name, and what makes the row in it."""


def some_of(data: Any) -> mp.Task:
    """The first images of each part."""
    parts = {
        part: replace(whole := getattr(data, part), images=whole.images[:most], labels=whole.labels[:most])
        for part, most in IMAGES.items()
    }
    return mp.Classification(**parts)


def recipe(network: str, epochs: int, seed: int) -> mp.Recipe:
    """How a network is trained from fresh weights, or tuned."""
    fresh = epochs == DENSE
    if network == "ViT":
        return mp.Recipe(
            epochs,
            lr=2e-3 if fresh else 5e-4,
            precision="32-true",
            optimizer="adamw",
            weight_decay=0.05,
            clip_norm=1.0,
            seed=seed,
        )
    return mp.Recipe(epochs, lr=0.1 if fresh else 0.02, warmup=0.5 if fresh else 0.0, seed=seed)


def cell(out: Path, network: str, share: float, seed: int, task: mp.Task) -> tuple[nn.Module, Any, mp.Plan]:
    """The dense network, its graph, and what stays of it."""
    dense = dense_network(NETWORKS[network], task, recipe(network, DENSE, seed), out / f"dense-{network}-{seed}")
    args = (torch.zeros(2, 3, 16, 16),)
    graph = mp.trace(dense, args)
    budget = mp.Budget(macs=share, multiple_of=1)
    return dense, graph, mp.plan(dense, args, method=mp.Magnitude(), budget=budget, graph=graph)


def cut(arm: str, dense: nn.Module, graph: Any, plan: mp.Plan) -> nn.Module:
    """The small network of an arm."""
    method = ARMS[arm]
    return mp.slice(dense if method is None else method.fused(dense, graph, plan), graph, plan)


def after_the_cut(out: Path, network: str, share: float, seed: int, task: mp.Task) -> Mapping[str, Any]:
    """The test accuracy of each arm, right after the cut and with statistics measured anew."""
    dense, graph, plan = cell(out, network, share, seed, task)
    how = recipe(network, TUNED, seed)
    row: dict[str, Any] = {
        "network": network,
        "share": share,
        "seed": seed,
        "dense": evaluate(dense, task.test, task, how),
    }
    for arm in ARMS:
        small = cut(arm, dense, graph, plan)
        row[arm] = evaluate(small, task.test, task, how)
        if mp.recalibrate(small, task.train, most=16):
            row[f"{arm}, recalibrated"] = evaluate(small, task.test, task, how)
    return row | {"macs": mp.macs(graph, plan) / mp.macs(graph)}


def after_tuning(out: Path, arm: str, network: str, share: float, seed: int, task: mp.Task) -> Mapping[str, Any]:
    """The test accuracy of an arm after its last epoch."""
    small = cut(arm, *cell(out, network, share, seed, task))
    mp.recalibrate(small, task.train, most=16)
    fit(small, task, recipe(network, TUNED, seed), progress=False)
    metric = evaluate(small, task.test, task, recipe(network, TUNED, seed))
    return {"network": network, "share": share, "seed": seed, "tuned": arm, "metric": metric}


def halves(out: Path, order: str, network: str, share: float, seed: int, task: mp.Task) -> Mapping[str, Any]:
    """Two networks trained on half of the images each, pruned and fused in one order or the other, tuned on all.

    The control is the first of them alone, pruned and tuned as long.
    """
    count = len(task.train.labels) // 2
    both = []
    for place in range(2):
        part = slice(place * count, (place + 1) * count)
        half = replace(task.train, images=task.train.images[part], labels=task.train.labels[part])
        own = recipe(network, DENSE, seed + place)
        folder = out / f"half-{place}-{network}-{seed}"
        both.append(dense_network(NETWORKS[network], mp.Classification(half, task.val), own, folder))
    args = (torch.zeros(2, 3, 16, 16),)
    graph = mp.trace(both[0], args)
    method, budget = mp.IntraFusion(mp.Uniform()), mp.Budget(macs=share, multiple_of=1)

    def pruned(one: nn.Module) -> nn.Module:
        plan = mp.plan(one, args, method=method, budget=budget, graph=graph)
        return mp.slice(method.fused(one, graph, plan), graph, plan)

    if order == "fuse and prune":
        small = pruned(mp.fuse(*both, args, graph=graph))
    elif order == "prune and fuse":
        small = mp.fuse(*map(pruned, both), args)
    else:
        small = pruned(both[0])
    mp.recalibrate(small, task.train, most=16)
    how = recipe(network, TUNED, seed)
    before = evaluate(small, task.test, task, how)
    fit(small, task, how, progress=False)
    row = {"order": order, "network": network, "share": share, "seed": seed}
    return row | {
        "before": before,
        "metric": evaluate(small, task.test, task, how),
        "dense": [evaluate(one, task.test, task, how) for one in both],
    }


def cuts(out: Path, network: str, seed: int, task: mp.Task) -> Iterator[Piece]:
    """What is measured right after the cut."""
    for share in SHARES:
        yield f"{network}-{share:g}-{seed}", partial(after_the_cut, out, network, share, seed, task)


def tunings(out: Path, network: str, seed: int, task: mp.Task) -> Iterator[Piece]:
    """What is measured after tuning."""
    for share, arm in itertools.product(SHARES, TUNE):
        yield f"{network}-{share:g}-{seed}-{arm}", partial(after_tuning, out, arm, network, share, seed, task)


def halvings(out: Path, network: str, seed: int, task: mp.Task) -> Iterator[Piece]:
    """What two networks of half the images each are good for; of the first seed alone."""
    for order in ORDERS if network in HALVED and seed == SEEDS[0] else ():
        yield f"{network}-halves-{order}-{seed}", partial(halves, out, order, network, 0.6, seed, task)


def page(rows: list[dict[str, Any]]) -> str:
    """What there is, in Markdown."""
    seeds = ", ".join(sorted({str(row["seed"]) for row in rows}))
    lines = [
        "# Fusing channels against dropping them",
        "",
        "`python benchmarks/fusion.py --data DATA`: CIFAR-10 at half resolution (16×16), one thread of a CPU, "
        f"{DENSE} epochs from fresh weights, {TUNED} of tuning; the share is of the MACs. Test accuracy in percent (± "
        f"over seeds where there are several; seeds here: {seeds}). The first {IMAGES['train']:,} images train, the "
        f"first {IMAGES['test']:,} test, and the test set chose nothing. Every arm keeps the same channels, those of "
        "the largest group norms.",
        "",
        "## Right after the cut",
        "",
        "Without data / with running statistics measured anew on 16 training batches (the transformer has none).",
        "",
        "| network | share | " + " | ".join(ARMS) + " |",
        "|---|--:|" + "--:|" * len(ARMS),
    ]
    cuts = [row for row in rows if "macs" in row]
    for network, share in itertools.product(NETWORKS, SHARES):
        found = [row for row in cuts if (row["network"], row["share"]) == (network, share)]
        if found:
            dense = mean_and_spread([row["dense"] for row in found])
            cells = [
                " / ".join(
                    mean_and_spread([row[name] for row in found])
                    for name in (arm, f"{arm}, recalibrated")
                    if name in found[0]
                )
                for arm in ARMS
            ]
            lines.append(f"| {network} ({dense} dense) | {share:g} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## After tuning",
        "",
        "| network | share | " + " | ".join(TUNE) + " |",
        "|---|--:|" + "--:|" * len(TUNE),
    ]
    for network, share in itertools.product(NETWORKS, SHARES):
        tuned = [row for row in rows if "tuned" in row and (row["network"], row["share"]) == (network, share)]
        if tuned:
            cells = [[row["metric"] for row in tuned if row["tuned"] == arm] for arm in TUNE]
            lines.append(
                f"| {network} | {share:g} | " + " | ".join(mean_and_spread(c) if c else "" for c in cells) + " |"
            )
    if fused := [row for row in rows if "order" in row]:
        lines += [
            "",
            "## Networks trained on halves of the images",
            "",
            "Pruned to equal widths (the same share of every axis) by Intra-Fusion, tuned on all images.",
            "",
            "| network | share | each half | order | before tuning | after |",
            "|---|--:|--:|---|--:|--:|",
        ]
        for row in sorted(fused, key=lambda row: (row["network"], -row["share"], row["order"])):
            dense = ", ".join(f"{one:.2f}" for one in row["dense"])
            lines.append(
                f"| {row['network']} | {row['share']:g} | {dense} | {row['order']} | {row['before']:.2f} | "
                f"{row['metric']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Do what is not done yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("--out", type=Path, default=Path("runs/fusion"))
    parser.add_argument("--only", choices=list(NETWORKS), help="one network")
    parser.add_argument("--table", action="store_true", help="only write the page")
    given = parser.parse_args()
    if not given.table:
        torch.set_num_threads(1)
        task = some_of(load(given.data, size=16))
        networks = [given.only] if given.only else list(NETWORKS)
        for stage, seed, network in itertools.product((cuts, tunings, halvings), SEEDS, networks):
            try:
                for name, piece in stage(given.out, network, seed, task):
                    carry_out(given.out / name, piece)
            except Busy as busy:
                print(busy)  # noqa: T201
    PAGE.write_text(page(rows_in(given.out)), encoding="utf-8")


if __name__ == "__main__":
    main()
