"""What a session has to say, as rows, notes and figures of one report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from metaprune.cost.budget import Allocation, Budget
from metaprune.cost.closed_form import axis_shares, layer_macs, macs
from metaprune.cost.latency_form import Anchor
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import digest
from metaprune.methods.method import Found, Method
from metaprune.report.gallery import samples
from metaprune.report.report import Alignment, AxisRow, Epoch, Figures, Floor, LayerRow, Report, Sample
from metaprune.report.summary import roles, wiring
from metaprune.session.cutting import SILENT
from metaprune.session.measuring import environment, part
from metaprune.session.rounds import Round
from metaprune.surgery.attention import written_out
from metaprune.surgery.resized import cropped
from metaprune.surgery.shapes import failure
from metaprune.surgery.slice import carve
from metaprune.timing import Timed
from metaprune.train.checks import said
from metaprune.train.recipe import Recipe
from metaprune.train.run import Row
from metaprune.train.task import Task, averaged, settings_of

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
        former: The report of the result that is pruned further.
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
    former: Report | None = None

    @property
    def split(self) -> str:
        """Which split figures are of: "test" where there is one, else "val"."""
        return "val" if self.task.test is None else "test"


def of_data(task: Task) -> dict[str, str]:
    """What the loader and the task say of themselves, and with what weights partners begin.

    It is part of what a run is: with another the folder of a run is refused.
    """
    beside = {
        f"partner.{name}": f"weights {digest(partner.module.state_dict())[:12]}"
        + ("" if partner.lr is None else f", lr {partner.lr:g}")
        for name, partner in task.partners.items()
    }
    return settings_of(task.train) | dict(task.settings) | beside | averaged(task)


@dataclass(frozen=True)
class Compared:
    """The networks of a report and what was measured of them.

    Attributes:
        dense: Figures of the dense network.
        pruned: Figures of the pruned one.
        dense_val: Metric of the dense one on the validation split.
        alignment: What widths that ignore alignment would have cost.
        time: What is known of time; None where no bound is on it.
        untimed: Why the networks could not be timed in the end; empty where they were.
    """

    dense: Figures
    pruned: Figures
    dense_val: float | None
    alignment: Alignment | None
    time: Timed | None
    untimed: str = ""


def report_of(asked: Asked, rounds: Sequence[Round], plan: Plan, measured: Compared, without: Floor | None) -> Report:
    """The report of a session.

    Args:
        asked: For what it was asked.
        rounds: What was done.
        plan: What all rounds together cut of the dense network.
        measured: The networks.
        without: What there is without a network.
    """
    graph, task, former, last = asked.graph, asked.task, asked.former, rounds[-1].shrunk
    shown, unseen = _samples(asked, last.model)
    return Report(
        network=asked.network,
        data=asked.data,
        method=asked.method.name,
        reference=asked.method.reference,
        settings=_settings(asked),
        budget=str(asked.budget),
        metric_name=task.metric_name,
        higher_is_better=task.higher_is_better,
        split=asked.split,
        dense=measured.dense,
        pruned=measured.pruned,
        before_cut=last.before,
        as_cut=last.as_cut,
        after_cut=last.after,
        dense_val=measured.dense_val,
        latency_bound=_bound(asked.budget, measured.dense),
        axes=_axes(graph, plan),
        layers=_layers(graph, plan),
        history=_history(rounds, former),
        spent=_spent(rounds, former),
        alignment=measured.alignment,
        notes=tuple(dict.fromkeys((*_notes(asked, rounds, plan, measured), *unseen))),
        commands=(*(former.commands if former else ()), *asked.commands),
        wiring=wiring(graph),
        roles=roles(graph),
        environment=environment(asked.recipe),
        example=_example(graph),
        floor=without,
        samples=shown,
    )


def _samples(asked: Asked, pruned: nn.Module) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """What the report shows of pictures; and, where that fails, a note: after all that was trained, nothing is lost."""
    networks = {"dense": asked.model, "pruned": pruned}
    try:
        return samples(networks, part(asked.task, asked.split), asked.task, asked.recipe), ()
    except Exception as error:
        return (), (f"no pictures are shown, since showing them failed: {said(error)}",)


def unaligned(found: Found, graph: ChannelGraph, budget: Budget) -> tuple[nn.Module, Plan] | None:
    """The network that the same scores give without alignment, to be timed, and its plan; None where none was asked.

    It is not verified, which would take longer than all the rest, unless its code does not run, or may not.
    """
    if budget.multiple_of == 1:
        return None
    plan = Allocation(graph.fixing(found.whole), replace(budget, multiple_of=1)).plan(found.scores)
    rough = cropped(written_out(found.model, graph.written_out), graph, plan.kept)
    if failure(rough, graph.calls[:1]) is None:
        return rough, plan
    cut = carve(found.model, graph, plan)
    return cut.model, cut.plan


def _settings(asked: Asked) -> dict[str, str]:
    method = asked.method
    own: dict[str, Any] = asdict(method) if is_dataclass(method) and not isinstance(method, type) else {}
    usual = Recipe()
    quiet = ("before", "after", "compile", "devices", "strategy", "nodes")  # said where they are not as usual
    of_recipe = {
        name: value
        for name, value in asdict(asked.recipe).items()
        if name not in quiet or value != getattr(usual, name)
    }
    said = {f"{method.name}.{name}": str(value) for name, value in own.items()}
    said |= {f"recipe.{name}": str(value) for name, value in of_recipe.items()}
    if (former := asked.former) is not None:
        said["pruned before"] = f"by {former.method} to {former.budget}"
    return said | asked.of_training | asked.of_data


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


def _history(rounds: Sequence[Round], former: Report | None) -> tuple[Epoch, ...]:
    """All epochs one after another, with the share of the cost that stays as long as more is cut.

    Where weights were drawn anew, the second schedule is drawn after the first.
    """
    found: list[Epoch] = []
    if former is not None:
        left = former.pruned.macs / (former.dense.macs or 1)
        found += [replace(epoch, macs=left if epoch.macs is None else epoch.macs) for epoch in former.history]
    several = former is not None or len(rounds) > 1
    at = max((epoch.epoch for epoch in found), default=0.0)
    for place, one in enumerate(rounds):
        goes_on = place + 1 < len(rounds)
        anew = one.found.history[-1].epoch if one.found.fresh and one.found.history else 0.0
        for row in one.found.history:
            share = _share(one, row)
            stays = one.share if share is None and several else share
            found.append(Epoch(at + row.epoch, row.phase, row.loss, row.metric, stays))
        at += anew
        for row in one.shrunk.history.rows:
            stays = one.left if goes_on else None
            found.append(Epoch(at + row.epoch, row.phase, row.loss, row.metric, stays))
        at += one.problem.recipe.epochs
    return tuple(found)


def _share(one: Round, row: Row) -> float | None:
    """What was left at the end of an epoch of a search, where the method says."""
    before = [left for epoch, left in one.found.shares if epoch <= row.epoch + 1e-9]
    return one.share * before[-1] if before and row.epoch <= one.found.epochs else None


def _spent(rounds: Sequence[Round], former: Report | None) -> dict[str, float]:
    """What all searches cost together."""
    total = dict(former.spent) if former else {}
    for one in rounds:
        for unit, number in one.found.spent.items():
            total[unit] = total.get(unit, 0) + number
    return total


POINT = 0.01
"""How much better an epoch must be than the last to be mentioned: one point of a percentage, else this share."""


def _of_epochs(one: Round, asked: Asked) -> list[str]:
    """Which epoch of the last fine-tuning the weights are of, or that another was better."""
    name, tuned = asked.task.metric_name, one.shrunk.history
    before = one.problem.recipe.before - asked.recipe.before
    if tuned.kept is not None:
        return [
            f"the weights are those of epoch {before + tuned.kept:g}, the best of fine-tuning on the validation data"
        ]
    if not tuned.rows:
        return []
    sign, last = 1 if asked.task.higher_is_better else -1, tuned.rows[-1]
    best = max(tuned.rows, key=lambda row: sign * row.metric)
    point = 1.0 if name.endswith("(%)") else POINT * abs(best.metric)
    if sign * (best.metric - last.metric) <= point:
        return []
    return [
        f"epoch {before + best.epoch:g} of fine-tuning was better on the validation data than the last, which these "
        f"weights are of: {name} {best.metric:.4g} against {last.metric:.4g}; Recipe(keep='best') keeps the best"
    ]


def _example(graph: ChannelGraph) -> str:
    """Sizes of the example inputs, without the batch, and what they hold where that is not usual."""
    leaves = tree_leaves((graph.args, dict(graph.kwargs)))
    return ", ".join(
        "×".join(map(str, leaf.shape[1:])) + ("" if leaf.is_floating_point() else f" {str(leaf.dtype)[6:]}")
        for leaf in leaves
        if isinstance(leaf, torch.Tensor) and leaf.dim() > 1
    )


def _notes(asked: Asked, rounds: Sequence[Round], plan: Plan, measured: Compared) -> list[str]:
    """What a reader should know of the run."""
    graph, former = asked.graph, asked.former
    notes = [] if former is None else [f"it was pruned before, by {former.method} to {former.budget}"]
    if len(rounds) > 1:
        shares = ", ".join(f"{one.left:.2f}" for one in rounds)
        notes.append(f"it was cut in {len(rounds)} steps, trained between them: {shares} of the cost was left")
    for one in rounds:
        notes += _of_round(one)
    notes += _of_epochs(rounds[-1], asked)
    if numbers := graph.left_alone(plan.widths):
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
    notes += [] if measured.time is None else _of_time(graph, asked.budget, measured.time)
    notes += [f"the networks were not timed, since that failed: {measured.untimed}"] if measured.untimed else []
    return notes + list(former.notes if former else ())


def _of_round(one: Round) -> list[str]:
    """What there is to say of one decision and its cut."""
    found, shrunk = one.found, one.shrunk
    notes = list(found.notes)
    if found.spent:
        notes.append("the search cost " + " and ".join(f"{n:,g} {unit}" for unit, n in found.spent.items()))
    if found.fresh:
        notes.append("the weights of the cut network were drawn anew, and its schedule began at 0")
    if shrunk.kept:
        notes.append("no module could draw these anew, and they are what they were: " + ", ".join(shrunk.kept))
    notes += [f"{axis} was left whole by the method: {reason}" for axis, reason in found.whole.items()]
    undone = shrunk.cut.undone.items()
    notes += [f"{axis} was left whole, its cut could not be verified: {reason}" for axis, reason in undone]
    if shrunk.cut.unjudged is not None:
        notes.append(f"outputs were not compared with the masked network's: {shrunk.cut.unjudged}")
    if shrunk.jump > SILENT:
        notes.append(f"the cut was meant to change nothing and changed the outputs by {shrunk.jump:.1%} of the largest")
    return notes


def _bound(budget: Budget, dense: Figures) -> float | None:
    """Milliseconds that the pruned network may take."""
    fast = budget.speedup is not None and dense.latency is not None
    given = [budget.latency, dense.latency.median_ms / budget.speedup if fast else None]  # type: ignore[union-attr, operator]
    return min((ms for ms in given if ms is not None), default=None)


def _of_time(graph: ChannelGraph, budget: Budget, time: Timed) -> list[str]:
    """How time was foretold, and what the widths cost."""
    whole = macs(graph)
    sizes = {name: axis.size for name, axis in graph.free.items()}

    def share(anchor: Anchor) -> float:
        return macs(graph, Plan({name: range(anchor.widths.get(name, size)) for name, size in sizes.items()})) / whole

    tried = ", ".join(f"{share(anchor):.2f} of the MACs {anchor.ms:.3g} ms" for anchor in (*time.anchors, *time.later))
    notes = [f"{budget}: times were foretold from those of operators, and set right by measuring cut networks: {tried}"]
    if time.steps:
        kept = ", ".join(f"of {step} {stays:.0%}" for step, stays in time.steps.items())
        notes.append(
            f"in that time, widths in multiples {kept} of the MACs stay; multiples of {time.budget.step} were taken"
        )
    return notes + ([] if time.note is None else [time.note])
