"""The whole pipeline: trace, decide, cut, fine-tune, measure, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from metaprune.cost.budget import Allocation, Budget
from metaprune.cost.closed_form import macs
from metaprune.graph.arguments import brief
from metaprune.graph.calling import Call
from metaprune.graph.counting import Outputs
from metaprune.graph.errors import MetapruneError
from metaprune.graph.limits import Limits, limited
from metaprune.methods.method import Method, Problem
from metaprune.report.report import Alignment
from metaprune.run_folder import RunFolder, remembered
from metaprune.session.cutting import shrink
from metaprune.session.measuring import figures, in_turns
from metaprune.session.reporting import Asked, Compared, of_data, report_of, unaligned
from metaprune.session.result import Result
from metaprune.session.translating import translated
from metaprune.surgery.attention import written_out
from metaprune.surgery.trace import trace
from metaprune.train.callbacks import Callback
from metaprune.train.engine import evaluate, rehearse
from metaprune.train.extras import Extras
from metaprune.train.folder import one_at_a_time
from metaprune.train.optimizers import Factory, described
from metaprune.train.recipe import Recipe
from metaprune.train.task import Task

__all__ = ["prune"]


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
    optimizer: Factory | None = None,
    loggers: Sequence[Any] = (),
    callbacks: Sequence[Callback] = (),
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
        optimizer: Makes the optimizer of search and fine-tuning from groups of parameters, each with its "lr" and
            "weight_decay", in the recipe's place: `torch.optim.RAdam`, `partial(torch.optim.SGD, momentum=0.8)`.
        loggers: Those of Lightning or Fabric (CSV, TensorBoard …), told of losses, the rate and the metric.
        callbacks: Who is told of each step and epoch: see `mp.Callback`.

    Returns:
        The smaller network, its plan and the report; `Result.save` writes them.

    Raises:
        MetapruneError: One of its kinds: a network that does not trace, a budget that cannot be met, training that
            diverged, a folder that holds another run.
    """
    recipe = recipe or Recipe(lr=0.05)
    _known(budget, task, recipe, method, limits)
    extras = Extras(optimizer, loggers, callbacks)
    extras.check("prune")
    of_training = {} if optimizer is None else {"recipe.optimizer": described(optimizer, recipe)}
    graph = limited(trace(model, args, kwargs, calls, outputs), limits)
    bounded, translation = remembered(out, budget) or translated(model, graph, budget, recipe)
    allocation = Allocation(graph, bounded)
    rehearse(model, task, recipe)
    task = task.cloned()  # search and fine-tuning train the same partners, and not the user's

    name = network or type(model).__name__
    asked = Asked(model, graph, method, budget, task, recipe, name, data, commands, of_data(task), of_training)
    dense = figures(model, graph, None, task, recipe, asked.split)
    dense_val = dense.metric if asked.split == "val" else evaluate(model, task.val, task, recipe)
    folder = None if out is None else RunFolder.claim(out, model, graph, method, budget, recipe, data, asked.of_data)
    if folder and translation:
        folder.remember(budget, bounded, translation)

    def stage(name: str) -> Path | None:
        return folder.stage(name) if folder else None

    plain = written_out(model, graph.written_out)
    problem = Problem(plain, graph, bounded, task, recipe, stage("search"), progress, extras=extras)
    found = method.find(problem)
    allocation.check(found.plan, method.name)
    shrunk = shrink(found, problem, dense_val, stage("fine-tuning"))

    small, plan = shrunk.model, shrunk.cut.plan
    rough = unaligned(found, graph, bounded)
    times = in_turns({"dense": model, "pruned": small} | ({"rough": rough.model} if rough else {}), graph, recipe)
    measured = Compared(
        dense=replace(dense, latency=times["dense"]),
        pruned=replace(figures(small, graph, plan, task, recipe, asked.split), latency=times["pruned"]),
        dense_val=dense_val,
        alignment=None if rough is None else Alignment(bounded.multiple_of, macs(graph, rough.plan), times["rough"]),
        translation=translation,
    )
    for logger in loggers:
        getattr(logger, "finalize", lambda status: None)("success")
    partners = {name: partner.module for name, partner in task.partners.items()}
    return Result(small, plan, report_of(asked, found, shrunk, measured), graph, partners)


def _known(budget: object, task: object, recipe: object, method: object, limits: object) -> None:
    """Refuse what is of another kind."""
    for name, given, kind, example in (
        ("budget", budget, Budget, "mp.Budget(macs=0.5)"),
        ("task", task, Task, "mp.Classification(train_loader, val_loader)"),
        ("recipe", recipe, Recipe, "mp.Recipe(epochs=10)"),
        ("method", method, Method, "mp.DHP()"),
        ("limits", limits or Limits(), Limits, "mp.Limits(keep=('stem',))"),
    ):
        if isinstance(given, type) or not isinstance(given, kind):
            raise MetapruneError(f"prune: expected the {name} as {example} or the like, got {brief(given)}")
