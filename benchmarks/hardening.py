"""What a soft mask loses on its way to a plan: Transportation on a ResNet-20, CIFAR-10 at half resolution.

Run `python benchmarks/hardening.py --data DATA`: some five minutes of one core. A dense network of four epochs on the
first 12,800 images; then two epochs of search for each budget. Said of each: the largest distance of the soft widths'
cost from the budget until the plan is decided, how hard the mask was then, and test accuracy (the first 4,000 images)
when the plan was decided, right before the mask is 0 and 1, right after, and at the end. Nothing is chosen by them.

`DATA` is a folder with `train.parquet` and `test.parquet`, or a name on the Hugging Face Hub.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from experiment import carry_out, dense_network, rows_in
from torch import nn

import metaprune as mp
from metaprune.data import load
from metaprune.methods.transportation.annealing import DECIDED, LANDED
from metaprune.models import ResNet
from metaprune.train.engine import evaluate

PAGE = Path(__file__).with_suffix(".md")
CELLS = ((0.5, 1), (0.5, 8), (0.3, 1), (0.3, 8))
"""Share of the MACs, and what widths are multiples of."""

IMAGES = {"train": 12_800, "val": 2_000, "test": 4_000}
DENSE = mp.Recipe(4, lr=0.1, warmup=0.5)
EPOCHS, RATE = 2, 0.05


def task_of(data: Any) -> mp.Task:
    """The first images of each part."""
    parts = {
        part: replace(whole := getattr(data, part), images=whole.images[:most], labels=whole.labels[:most])
        for part, most in IMAGES.items()
    }
    return mp.Classification(**parts)


def row_of(dense: nn.Module, graph: Any, task: mp.Task, share: float, multiple_of: int) -> Mapping[str, Any]:
    """A search, looked at on its way."""
    steps = EPOCHS * len(task.train)
    budget = mp.Budget(macs=share, multiple_of=multiple_of)
    running = mp.Transportation().start(dense, graph, budget, steps=steps)
    optimizer = torch.optim.SGD(running.groups(RATE), RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    masks, allocation = running.search.masks, running.search.allocation
    row: dict[str, Any] = {"share": share, "multiple_of": multiple_of, "off": 0.0}

    def accuracy() -> float:
        return evaluate(running.model, task.test, task, mp.Recipe())

    def look(done: int) -> None:
        if done < int(DECIDED * steps):
            widths = torch.stack([masks.named()[name].detach().double().sum() for name in allocation.form.axes])
            row["off"] = max(row["off"], abs(float(allocation.form(widths)) / allocation.limit - 1))
        if done == int(DECIDED * steps):
            row["decided"] = accuracy()
        if done == int(LANDED * steps):
            row["soft"] = accuracy()

    torch.manual_seed(0)
    for done, (images, labels) in enumerate((batch for _ in range(EPOCHS) for batch in task.train), start=1):
        running.model.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(running.model(images), labels).backward()
        optimizer.step()
        look(done)
        running.step(RATE)
        if done == int(LANDED * steps):
            row["hard"] = accuracy()
    return row | {
        "dense": evaluate(dense, task.test, task, mp.Recipe()),
        "hardness": running.search.hardness,
        "end": accuracy(),
        "cut": mp.macs(graph, running.plan) / mp.macs(graph),
    }


def page(rows: list[dict[str, Any]]) -> str:
    """What there is, in Markdown."""
    lines = [
        "# A soft mask on its way to a plan",
        "",
        "`python benchmarks/hardening.py --data DATA`: ResNet-20 on CIFAR-10 at half resolution, "
        f"{rows[0]['dense']:.2f} % dense, {EPOCHS} epochs of search at a constant rate, one seed. Test accuracy (%).",
        "",
        "| MACs | multiples of | largest distance from the budget | hardness when decided | when decided | right "
        "before the mask is hard | right after | at the end | MACs of the plan |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['share']:g} | {row['multiple_of']} | {row['off']:.0e} | {row['hardness']:.1e} | "
        f"{row['decided']:.2f} | {row['soft']:.2f} | {row['hard']:.2f} | {row['end']:.2f} | {row['cut']:.4f} |"
        for row in sorted(rows, key=lambda row: (-row["share"], row["multiple_of"]))
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Do what is not done yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("--out", type=Path, default=Path("runs/hardening"))
    parser.add_argument("--table", action="store_true", help="only write the page")
    given = parser.parse_args()
    if not given.table:
        torch.set_num_threads(1)
        task = task_of(load(given.data, size=16))
        dense = dense_network(partial(ResNet, 20), task, DENSE, given.out / "dense")
        graph = mp.trace(dense, (torch.zeros(2, 3, 16, 16),))
        for share, multiple_of in CELLS:
            folder = given.out / f"{share:g}-{multiple_of}"
            carry_out(folder, partial(row_of, dense, graph, task, share, multiple_of))
    if rows := rows_in(given.out):
        PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
