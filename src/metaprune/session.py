"""The whole pipeline: trace, decide, cut, fine-tune, measure, report; and what comes out of it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from metaprune.cost.bound import Bound
from metaprune.cost.budget import Allocation, Budget
from metaprune.cost.closed_form import axis_shares, layer_macs, macs, params
from metaprune.cost.latency import Latency, latencies
from metaprune.graph.arguments import brief
from metaprune.graph.calling import Call
from metaprune.graph.capture import inference_mode_of
from metaprune.graph.counting import Outputs
from metaprune.graph.errors import BudgetError, MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.limits import Limits, limited
from metaprune.graph.plan import Plan
from metaprune.methods.method import Found, Method, Problem
from metaprune.methods.saliency import group_norms
from metaprune.report.gallery import samples
from metaprune.report.report import Alignment, AxisRow, Epoch, Figures, Floor, LayerRow, Report
from metaprune.report.summary import roles, wiring
from metaprune.run_folder import RunFolder, remembered
from metaprune.surgery.attention import written_out
from metaprune.surgery.recalibrate import recalibrate
from metaprune.surgery.slice import Cut, carve
from metaprune.surgery.trace import trace
from metaprune.train.engine import Recipe, device_of, evaluate, fit, rehearse
from metaprune.train.folder import one_at_a_time
from metaprune.train.randomness import isolated, seed
from metaprune.train.run import Row
from metaprune.train.scores import scores, scores_of_outputs
from metaprune.train.task import Loader, Task, settings_of
from metaprune.version import VERSION

__all__ = ["Result", "figures", "in_turns", "prune"]


@dataclass(frozen=True)
class Result:
    """What pruning gives back.

    Attributes:
        model: The smaller network: a plain module of the user's own classes.
        plan: The channels that stayed.
        report: What was cut, what it cost and what it won.
        graph: The channel graph of the network that was given.
    """

    model: nn.Module
    plan: Plan
    report: Report
    graph: ChannelGraph

    def __repr__(self) -> str:
        """What came of it, in a line."""
        return f"Result({type(self.model).__name__}; {self.report!r})"

    def _repr_html_(self) -> str:
        return self.report._repr_html_()

    def save(self, folder: str | Path) -> Path:
        """Write plan.json, model.safetensors, report.html, report.json and README.md (the model card).

        Raises:
            SavingError: The folder cannot be written.
        """
        from metaprune.saving import save

        return save(folder, self.model, self.plan, self.graph, self.report)


@one_at_a_time
def prune(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    method: Method,
    budget: Budget,
    task: Task,
    recipe: Recipe | None = None,
    limits: Limits | None = None,
    calls: Sequence[Call] = (),
    outputs: Outputs = None,
    out: str | Path | None = None,
    network: str | None = None,
    data: str = "user's data",
    commands: tuple[str, ...] = (),
    progress: bool = True,
) -> Result:
    """Cut a trained network down to a budget with a learned method, fine-tune it, and measure what was won.

    Args:
        model: The network; left untouched.
        args: Example inputs; the first dimension of the first tensor is the batch that latency is measured at.
        kwargs: Example keyword inputs.
        method: Who decides: `mp.DHP()`, `mp.Magnitude()` …
        budget: What may stay.
        task: Data, loss and metric. The validation data are evaluated after each epoch; the test data once, at the end.
        recipe: How to train; its schedule spans search and fine-tuning together.
        limits: Layers that stay, least and largest widths, equal widths in equal blocks: every method obeys them.
        calls: Other ways in which the network is called, as for `mp.trace`: the cut is verified in them too.
        outputs: Which outputs count, as for `mp.trace`.
        out: A folder for checkpoints: a run that was killed goes on when it is started again with the same arguments.
        network: Its name in the report.
        data: The name of the data in the report.
        commands: What reproduces the run, for the report.
        progress: Whether to show progress.

    Returns:
        The smaller network, its plan and the report; `Result.save` writes them.

    Raises:
        MetapruneError: One of its kinds: a network that does not trace, a budget that cannot be met, training that
            diverged, a folder that holds another run.
    """
    recipe = recipe or Recipe(lr=0.05)
    for name, given, kind, example in (
        ("budget", budget, Budget, "mp.Budget(macs=0.5)"),
        ("task", task, Task, "mp.Classification(train_loader, val_loader)"),
        ("recipe", recipe, Recipe, "mp.Recipe(epochs=10)"),
        ("method", method, Method, "mp.DHP()"),
        ("limits", limits or Limits(), Limits, "mp.Limits(keep=('stem',))"),
    ):
        if isinstance(given, type) or not isinstance(given, kind):
            raise MetapruneError(f"prune: expected the {name} as {example} or the like, got {brief(given)}")
    graph = trace(model, args, kwargs, calls, outputs)
    graph = limited(graph, limits)
    bounded, measured = remembered(out, budget) or _computable(model, graph, budget, recipe)
    allocation = Allocation(graph, bounded)
    rehearse(model, task, recipe)
    split = "test" if task.test is not None else "val"
    dense = figures(model, graph, None, task, recipe, split)
    dense_val = evaluate(model, task.val, task, recipe) if split == "test" else dense.metric
    said = settings_of(task.train) | dict(task.settings)
    folder = None if out is None else RunFolder.claim(out, model, graph, method, budget, recipe, data, said)
    if folder and measured:
        folder.remember(budget, bounded, measured)

    def stage(name: str) -> Path | None:
        return folder.stage(name) if folder else None

    plain = written_out(model, graph.written_out)
    found = method.find(Problem(plain, graph, bounded, task, recipe, stage("search"), progress))
    allocation.check(found.plan, method.name)
    searched = found.searched or found.model
    before = dense_val if searched is plain else evaluate(searched, task.val, task, recipe)
    cut = carve(found.model, graph, found.plan)
    small = cut.model
    jump = _jump(searched, small, graph) if found.exact else 0.0
    if cut.plan.kept and (not found.exact or jump > _SILENT):
        with isolated():
            seed(recipe.seed)
            recalibrate(small, task.train, task.inputs)
    after = evaluate(small, task.val, task, recipe)
    tuned: list[Row] = []
    if found.epochs < recipe.epochs:
        tuned = fit(small, task, recipe, start=found.epochs, checkpoint=stage("fine-tuning"), progress=progress).rows
    rough = _unaligned(found, graph, bounded)
    networks = {"dense": model, "pruned": small} | ({"rough": rough.model} if rough else {})
    times = in_turns(networks, graph, recipe)
    report = Report(
        network=network or type(model).__name__,
        data=data,
        method=method.name,
        reference=method.reference,
        settings=_settings(method, recipe) | said,
        budget=str(budget),
        metric_name=task.metric_name,
        higher_is_better=task.higher_is_better,
        split=split,
        dense=replace(dense, latency=times["dense"]),
        pruned=replace(figures(small, graph, cut.plan, task, recipe, split), latency=times["pruned"]),
        before_cut=before,
        after_cut=after,
        dense_val=dense_val,
        latency_bound=budget.latency,
        axes=_axes(graph, cut.plan),
        layers=_layers(graph, cut.plan),
        history=_history([*found.history, *tuned], found),
        alignment=None if rough is None else Alignment(bounded.multiple_of, macs(graph, rough.plan), times["rough"]),
        notes=_notes(found, cut, graph, budget, measured, jump),
        commands=commands,
        wiring=wiring(graph),
        roles=roles(graph),
        environment=environment(recipe),
        example=_example(graph),
        floor=_floor(task, split),
        samples=samples({"dense": model, "pruned": small}, _part(task, split), task, recipe),
    )
    return Result(small, cut.plan, report, graph)


_SILENT = 1e-3
"""Outputs that change by less than this share of the largest are called the same (float32)."""


def _jump(large: nn.Module, small: nn.Module, graph: ChannelGraph) -> float:
    """How far cutting moved the outputs on the example inputs, relative to the largest output."""
    with inference_mode_of(large), inference_mode_of(small), torch.no_grad(), isolated():
        ours, theirs = (
            [leaf for leaf in tree_leaves(net(*graph.args, **graph.kwargs)) if isinstance(leaf, torch.Tensor)]
            for net in (large, small)
        )
    return max(
        (
            float((a - b).abs().max() / a.abs().max().clamp(min=1e-12))
            for a, b in zip(ours, theirs, strict=True)
            if a.shape == b.shape and a.numel()  # what does not count may have changed its size
        ),
        default=0.0,
    )


def figures(
    model: nn.Module, graph: ChannelGraph, plan: Plan | None, task: Task, recipe: Recipe, split: str
) -> Figures:
    """What a network costs and how good it is on a split of the task; its time is not measured."""
    found = scores(model, _part(task, split), task, recipe)
    weights = {id(t): t for t in [*model.parameters(), *model.buffers()]}.values()
    return Figures(
        macs=macs(graph, plan),
        params=params(graph, plan),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in weights),
        metric=found.metric,
        latency=None,
        further=found.further,
    )


def _part(task: Task, split: str) -> Loader:
    """The batches of a split."""
    return task.test if split == "test" and task.test is not None else task.val


def _floor(task: Task, split: str) -> Floor | None:
    """How good the inputs are without a network, where the task can say."""
    if task.pictures is None:
        return None
    found = scores_of_outputs(task.pictures.floor, _part(task, split), task)
    return Floor(task.pictures.floor_name, found.metric, found.further)


def _example(graph: ChannelGraph) -> str:
    """Sizes of the example inputs, without the batch, and what they hold where that is not usual."""
    leaves = tree_leaves((graph.args, dict(graph.kwargs)))
    return ", ".join(
        "×".join(map(str, leaf.shape[1:])) + ("" if leaf.is_floating_point() else f" {str(leaf.dtype)[6:]}")
        for leaf in leaves
        if isinstance(leaf, torch.Tensor) and leaf.dim() > 1
    )


def in_turns(networks: Mapping[str, nn.Module], graph: ChannelGraph, recipe: Recipe) -> dict[str, Latency]:
    """Times of networks on the graph's example inputs, in turns, in float32, on the recipe's device.

    Tensors are contiguous, as those that `load` gives, whatever layout the recipe trains with.
    """
    return latencies(networks, graph.args, graph.kwargs, device=recipe.device)


def environment(recipe: Recipe) -> dict[str, str]:
    """The machine and versions, for the report."""
    device = device_of(recipe)
    machine = f"{'CPU' if device.type == 'cpu' else device.type} ({platform.machine()})"
    return {
        "metaprune": VERSION,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else machine,
        "threads": str(torch.get_num_threads()),
        "date": date.today().isoformat(),
    }


def _computable(
    model: nn.Module, graph: ChannelGraph, budget: Budget, recipe: Recipe
) -> tuple[Budget, list[tuple[float, float]]]:
    """A budget in MACs or parameters: a latency is translated by cutting and measuring, halving the interval.

    Returns:
        The budget, and what was measured: pairs of (share of the MACs, milliseconds).
    """
    if budget.latency is None:
        return budget, []
    scores = group_norms(model, graph)
    loosest = Allocation(graph, Budget(macs=1.0, multiple_of=budget.multiple_of))
    low, high = loosest.form.at(loosest.least), loosest.dense
    measured: list[tuple[float, float]] = []

    def time(macs: int) -> float:
        plan = loosest.plan(scores, limit=macs)
        found = in_turns({"cut": carve(model, graph, plan).model}, graph, recipe)
        measured.append((macs / loosest.dense, found["cut"].median_ms))
        return measured[-1][1]

    most = 1.0 if budget.macs is None else budget.macs
    if (dense := time(high)) <= budget.latency:
        return replace(budget, latency=None, macs=most), measured
    if (least := time(low)) > budget.latency:
        raise BudgetError(
            f"budget: {budget} cannot be met; the smallest network takes {least:.3g} ms and the dense one "
            f"{dense:.3g} ms on this device; ask for more"
        )
    for _ in range(6):
        middle = (low + high) // 2
        low, high = (middle, high) if time(middle) <= budget.latency else (low, middle)
    within = min(max(low, 2), Bound.of(graph, "macs", most).limit)
    return replace(budget, latency=None, macs=within), measured


def _settings(method: Method, recipe: Recipe) -> dict[str, str]:
    own: dict[str, Any] = asdict(method) if is_dataclass(method) and not isinstance(method, type) else {}
    return {f"{method.name}.{name}": str(value) for name, value in own.items()} | {
        f"recipe.{name}": str(value) for name, value in asdict(recipe).items()
    }


def _axes(graph: ChannelGraph, plan: Plan) -> tuple[AxisRow, ...]:
    shares = axis_shares(graph)
    return tuple(
        AxisRow(
            name=name,
            before=axis.size,
            after=plan.widths.get(name, axis.size),
            kept=plan.kept.get(name, tuple(range(axis.size))),
            fixed=axis.fixed,
            members=axis.members,
            macs_share=shares[name],
        )
        for name, axis in graph.axes.items()
    )


def _layers(graph: ChannelGraph, plan: Plan) -> tuple[LayerRow, ...]:
    before, after = layer_macs(graph), layer_macs(graph, plan)
    return tuple(LayerRow(name, operator, cost, after[name][1]) for name, (operator, cost) in before.items())


def _history(rows: list[Row], found: Found) -> tuple[Epoch, ...]:
    """Epochs, with the share of the cost left at the end of each epoch of a search."""

    def share(row: Row) -> float | None:
        before = [left for epoch, left in found.shares if epoch <= row.epoch + 1e-9]
        return before[-1] if before and row.epoch <= found.epochs else None

    return tuple(Epoch(row.epoch, row.phase, row.loss, row.metric, share(row)) for row in rows)


def _unaligned(found: Found, graph: ChannelGraph, budget: Budget) -> Cut | None:
    """The network that the same scores give without alignment; None where none was asked for."""
    if budget.multiple_of == 1:
        return None
    free = Allocation(graph.fixing(found.whole), replace(budget, multiple_of=1))
    return carve(found.model, graph, free.plan(found.scores))


def _notes(
    found: Found,
    cut: Cut,
    graph: ChannelGraph,
    budget: Budget,
    measured: list[tuple[float, float]],
    jump: float,
) -> tuple[str, ...]:
    notes = list(found.notes)
    notes += [f"{axis} was left whole by the method: {reason}" for axis, reason in found.whole.items()]
    notes += [f"{axis} was left whole, its cut could not be verified: {reason}" for axis, reason in cut.undone.items()]
    if cut.unjudged is not None:
        notes.append(f"outputs were not compared with the masked network's: {cut.unjudged}")
    if numbers := graph.left_alone(cut.plan.widths):
        notes.append(
            "these numbers equal a size that was cut, were not followed to it by the calls that were traced, and were "
            "left as they are: " + "; ".join(numbers)
        )
    notes += [f"the cut was verified: {line}" for line in graph.said_of_calls()]
    if graph.written_out:
        notes.append(
            "PyTorch's attention module cannot be cut, so it was replaced by an equivalent one of four linear layers: "
            + ", ".join(graph.written_out)
        )
    if jump > _SILENT:
        notes.append(f"the cut was meant to change nothing and changed the outputs by {jump:.1%} of the largest")
    if measured:
        tried = ", ".join(f"{share:.2f} of the MACs {ms:.3g} ms" for share, ms in measured)
        notes.append(f"{budget} was translated by measuring cut networks: {tried}")
    return tuple(notes)
