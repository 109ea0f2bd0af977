"""The demo: a network trained on real digits, pruned by DHP and by two controls, at equal epochs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from metaprune.cli.resolve import remembering
from metaprune.cli.show import arms_table, console, joined
from metaprune.cost.budget import Budget
from metaprune.data import load
from metaprune.formats.export import export
from metaprune.methods.registry import METHODS
from metaprune.models import MODELS
from metaprune.report import words
from metaprune.session import Result, prune
from metaprune.train.engine import Recipe, fit
from metaprune.train.task import Classification

__all__ = ["run"]

NETWORK = next(iter(MODELS))
"""The smallest network there is."""

DENSE = Recipe(epochs=15, lr=0.1, warmup=1, precision="32-true", device="cpu")
AFTER = Recipe(epochs=15, lr=0.05, precision="32-true", device="cpu")
BATCH = 64


def run(out: Path) -> None:
    """Train, prune three times, compare, write everything to `out`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a network is slower with more
    try:
        _run(out)
    finally:
        torch.set_num_threads(threads)


def _run(out: Path) -> None:
    shown = console()
    digits = load("digits", batch_size=BATCH)
    task = Classification(digits.train, digits.val, digits.test)
    torch.manual_seed(0)
    network = MODELS[NETWORK](classes=digits.classes, channels=digits.shape[0])
    shown.print(f"Training {NETWORK} on scikit-learn's digits ({DENSE.epochs} epochs) …")
    fit(network, task, DENSE, name="dense")
    args = (torch.randn(BATCH, *digits.shape, generator=torch.Generator().manual_seed(0)),)
    results: dict[str, Result] = {}
    for name in ("dhp", "magnitude", "uniform"):
        shown.print(f"Pruning by {name} to half of the MACs ({AFTER.epochs} epochs) …")
        results[name] = prune(
            network,
            args,
            method=METHODS[name](),
            budget=Budget(macs=0.5),
            task=task,
            recipe=AFTER,
            network=NETWORK,
            data="digits",
            commands=("metaprune demo",),
        )
    report = joined([result.report for result in results.values()])
    report = remembering(
        replace(report, commands=("metaprune demo",)), digits.shape, task="classification", classes=str(digits.classes)
    )
    main = replace(results["dhp"], report=report)
    main.save(out)
    onnx = export(main.model.eval(), args, out / "model.onnx")
    arms_table(report)
    images = len(digits.test.labels) if digits.test else 0
    shown.print(f"One seed, {images} test images: rows that differ by a few images do not differ.")
    shown.print("".join(clause.text for clause in words.headline(report)))
    shown.print(
        f"Written to {out}: plan.json, model.safetensors, {onnx.name} (equal outputs in onnxruntime),\n"
        f"report.html. Next: open {out / 'report.html'}; then, on your own network,\n"
        "  metaprune prune MODEL --data DATA --macs 0.5 --out DIR"
    )
