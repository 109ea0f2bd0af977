"""What a session has to say, as rows, notes and figures of one report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from metaprune.cost.budget import Allocation, Budget
from metaprune.cost.closed_form import axis_shares, layer_macs
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import digest
from metaprune.methods.method import Found, Method
from metaprune.report.gallery import samples
from metaprune.report.report import Alignment, AxisRow, Epoch, Figures, LayerRow, Report
from metaprune.report.summary import roles, wiring
from metaprune.session.cutting import SILENT, Shrunk
from metaprune.session.measuring import environment, floor, part
from metaprune.session.translating import Measured
from metaprune.surgery.slice import Cut, carve
from metaprune.train.recipe import Recipe
from metaprune.train.run import History, Row
from metaprune.train.task import Task, settings_of

__all__ = ["Asked", "Compared", "of_data", "report_of", "unaligned"]


@dataclass(frozen=True)
class Asked:
    """What a session was asked for.

    Attributes:
        model: The dense network.
        graph: Its channel graph.
        method: Who decides.
        budget: In the units that were asked for.
        task: Data, loss and metric.
        recipe: How to train.
        network: The name of the network in the report.
        data: The name of the data.
        commands: What reproduces the run.
        of_data: From `of_data`, before anything trained.
        of_training: What the user added to the recipe.
    """

    model: nn.Module
    graph: ChannelGraph
    method: Method
    budget: Budget
    task: Task
    recipe: Recipe
    network: str
    data: str
    commands: tuple[str, ...]
    of_data: dict[str, str]
    of_training: dict[str, str]

    @property
    def split(self) -> str:
        """Which split figures are of: "test" where there is one, else "val"."""
        return "val" if self.task.test is None else "test"


def of_data(task: Task) -> dict[str, str]:
    """What the loader and the task say of themselves, and with what weights partners begin."""
    beside = {
        f"partner.{name}": f"weights {digest(partner.module.state_dict())[:12]}"
        + ("" if partner.lr is None else f", lr {partner.lr:g}")
        for name, partner in task.partners.items()
    }
    return settings_of(task.train) | dict(task.settings) | beside


@dataclass(frozen=True)
class Compared:
    """The networks of a report and what was measured of them.

    Attributes:
        dense: Figures of the dense network.
        pruned: Figures of the pruned one.
        dense_val: Metric of the dense one on the validation split.
        alignment: What widths that ignore alignment would have cost.
        translation: What was measured to translate a latency.
    """

    dense: Figures
    pruned: Figures
    dense_val: float | None
    alignment: Alignment | None
    translation: Measured


def report_of(asked: Asked, found: Found, shrunk: Shrunk, measured: Compared) -> Report:
    """The report of a session."""
    graph, task, plan = asked.graph, asked.task, shrunk.cut.plan
    return Report(
        network=asked.network,
        data=asked.data,
        method=asked.method.name,
        reference=asked.method.reference,
        settings=_settings(asked.method, asked.recipe) | asked.of_training | asked.of_data,
        budget=str(asked.budget),
        metric_name=task.metric_name,
        higher_is_better=task.higher_is_better,
        split=asked.split,
        dense=measured.dense,
        pruned=measured.pruned,
        before_cut=shrunk.before,
        as_cut=shrunk.as_cut,
        after_cut=shrunk.after,
        dense_val=measured.dense_val,
        latency_bound=asked.budget.latency,
        axes=_axes(graph, plan),
        layers=_layers(graph, plan),
        history=_history(found, shrunk),
        spent=dict(found.spent),
        alignment=measured.alignment,
        notes=tuple(_notes(asked, found, shrunk, measured.translation)),
        commands=asked.commands,
        wiring=wiring(graph),
        roles=roles(graph),
        environment=environment(asked.recipe),
        example=_example(graph),
        floor=floor(task, asked.split),
        samples=samples({"dense": asked.model, "pruned": shrunk.model}, part(task, asked.split), task, asked.recipe),
    )


def unaligned(found: Found, graph: ChannelGraph, budget: Budget) -> Cut | None:
    """The network that the same scores give without alignment; None where none was asked for."""
    if budget.multiple_of == 1:
        return None
    free = Allocation(graph.fixing(found.whole), replace(budget, multiple_of=1))
    return carve(found.model, graph, free.plan(found.scores))


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


def _history(found: Found, shrunk: Shrunk) -> tuple[Epoch, ...]:
    """Epochs, with the share of the cost left at the end of each epoch of a search.

    Where the weights were drawn anew, the second schedule is drawn after the first.
    """
    searched = found.history[-1].epoch if found.fresh and found.history else 0.0

    def share(row: Row) -> float | None:
        before = [left for epoch, left in found.shares if epoch <= row.epoch + 1e-9]
        return before[-1] if before and row.epoch <= found.epochs else None

    rows = [*found.history, *(replace(row, epoch=row.epoch + searched) for row in shrunk.history.rows)]
    return tuple(Epoch(row.epoch, row.phase, row.loss, row.metric, share(row)) for row in rows)


POINT = 0.01
"""How much better an epoch must be than the last to be mentioned: one point of a percentage, else this share."""


def _of_epochs(tuned: History, asked: Asked) -> list[str]:
    """Which epoch of fine-tuning the weights are of, or that another was better."""
    name = asked.task.metric_name
    if tuned.kept is not None:
        return [f"the weights are those of epoch {tuned.kept:g}, the best of fine-tuning on the validation data"]
    if not tuned.rows:
        return []
    sign, last = 1 if asked.task.higher_is_better else -1, tuned.rows[-1]
    best = max(tuned.rows, key=lambda row: sign * row.metric)
    point = 1.0 if name.endswith("(%)") else POINT * abs(best.metric)
    if sign * (best.metric - last.metric) <= point:
        return []
    return [
        f"epoch {best.epoch:g} of fine-tuning was better on the validation data than the last, which these weights are "
        f"of: {name} {best.metric:.4g} against {last.metric:.4g}; Recipe(keep='best') keeps the best"
    ]


def _example(graph: ChannelGraph) -> str:
    """Sizes of the example inputs, without the batch, and what they hold where that is not usual."""
    leaves = tree_leaves((graph.args, dict(graph.kwargs)))
    return ", ".join(
        "×".join(map(str, leaf.shape[1:])) + ("" if leaf.is_floating_point() else f" {str(leaf.dtype)[6:]}")
        for leaf in leaves
        if isinstance(leaf, torch.Tensor) and leaf.dim() > 1
    )


def _notes(asked: Asked, found: Found, shrunk: Shrunk, translation: Measured) -> list[str]:
    """What a reader should know of the run."""
    graph, cut = asked.graph, shrunk.cut
    notes = list(found.notes)
    if found.spent:
        notes.append("the search cost " + " and ".join(f"{n:,g} {unit}" for unit, n in found.spent.items()))
    if found.fresh:
        notes.append("the weights of the cut network were drawn anew, and its schedule began at 0")
    if shrunk.kept:
        notes.append("no module could draw these anew, and they are what they were: " + ", ".join(shrunk.kept))
    notes += _of_epochs(shrunk.history, asked)
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
    if shrunk.jump > SILENT:
        notes.append(f"the cut was meant to change nothing and changed the outputs by {shrunk.jump:.1%} of the largest")
    if translation:
        tried = ", ".join(f"{share:.2f} of the MACs {ms:.3g} ms" for share, ms in translation)
        notes.append(f"{asked.budget} was translated by measuring cut networks: {tried}")
    return notes
