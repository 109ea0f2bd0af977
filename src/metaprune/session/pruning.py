"""The whole pipeline: trace, decide, cut, fine-tune, measure, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from metaprune.cost.budget import Allocation, Budget
from metaprune.cost.clock import Clock
from metaprune.cost.closed_form import macs
from metaprune.graph.arguments import brief
from metaprune.graph.calling import Call
from metaprune.graph.counting import Outputs
from metaprune.graph.errors import MetapruneError
from metaprune.graph.limits import Limits, limited
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import digest
from metaprune.methods.method import Found, Method, Problem
from metaprune.report.report import Alignment, Figures, Report
from metaprune.run_folder import RunFolder, remembered
from metaprune.session.cutting import shrink
from metaprune.session.in_time import on_clock, tree_of, within
from metaprune.session.measuring import clock_of, figures, floor, in_turns_or_why
from metaprune.session.reporting import Asked, Compared, of_data, report_of, unaligned
from metaprune.session.result import Result
from metaprune.session.rounds import Round, Standing, absolute, budgets, parts
from metaprune.surgery.attention import written_out
from metaprune.surgery.trace import trace
from metaprune.timing import Timed
from metaprune.train import processes
from metaprune.train.callbacks import Callback
from metaprune.train.engine import evaluate, in_processes, rehearse
from metaprune.train.extras import Extras
from metaprune.train.folder import one_at_a_time
from metaprune.train.optimizers import Factory, described
from metaprune.train.recipe import Recipe
from metaprune.train.task import Task

__all__ = ["prune"]


@in_processes
@one_at_a_time
def prune(
    model: nn.Module | Result,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    method: Method,
    budget: Budget,
    task: Task,
    recipe: Recipe | None = None,
    steps: int = 1,
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
    clock: Clock | None = None,
) -> Result:
    """Cut a trained network down to a budget with a learned method, fine-tune it, and measure what was won.

    Args:
        model: The network; left untouched. Or a result, to prune further: its network is cut once more, plans compose,
            and budget and report are against the first dense network; what limited the first cut still holds.
        args: Example inputs; the first dimension of the first tensor is the batch that latency is measured at. A result
            knows them.
        kwargs: Example keyword inputs.
        method: Who decides: `mp.DHP()`, `mp.Magnitude()` …
        budget: What may stay.
        task: Data, loss and metric. The validation data are evaluated after each epoch; the test data once, at the end.
        recipe: How to train; its schedule spans search and fine-tuning together.
        steps: In how many goes to cut: costs fall by the same factor each time, and the one schedule is divided between
            them, so that the network is trained between the cuts.
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
        clock: Where times are measured, those of the budget and of the report; by default in float32 on the recipe's
            device, at the batch of the example inputs.

    Returns:
        The smaller network, its plan and the report; `Result.save` writes them.

    Raises:
        MetapruneError: One of its kinds: a network that does not trace, a budget that cannot be met, training that
            diverged, a folder that holds another run.
    """
    recipe = recipe or Recipe(lr=0.05)
    _known(budget, task, recipe, method, limits, clock)
    extras = Extras(optimizer, loggers, callbacks)
    extras.check("prune")
    of_training = {} if optimizer is None else {"recipe.optimizer": described(optimizer, recipe)}
    clock = clock or clock_of(recipe)

    if (group := processes.now()).size > 1 and isinstance(model, nn.Module | Result):
        given = model.model if isinstance(model, Result) else model
        group.same(digest(given.state_dict()), "prune: the weights of the network")
    dense, now, former = _begun(model, args, kwargs, calls, outputs, limits)
    asked_for = budget if former is None else absolute(budget, now.first)
    known = processes.now().told(lambda: remembered(out, budget))
    time = on_clock(now.model, now.graph, asked_for, clock, known, dense)
    if time is None:
        processes.now().told(lambda: clock.rehearse(dense, now.first.args, now.first.kwargs))
    bounds = budgets(asked_for if time is None else time.budget, now.graph, steps)
    schedule = parts(recipe, steps)
    for bound in bounds:
        Allocation(now.graph, bound)
    rehearse(now.model, task, recipe)

    task = task.cloned()  # search and fine-tuning train the same partners, and not the user's
    name = network or type(dense).__name__
    said = of_data(task) | ({} if steps == 1 else {"steps": f"{steps}"})
    asked = Asked(dense, now.first, method, budget, task, recipe, name, data, commands, said, of_training, former)
    whole, without = figures(dense, now.first, None, task, recipe, asked.split), floor(task, asked.split)
    dense_val = whole.metric if asked.split == "val" else evaluate(dense, task.val, task, recipe)
    folder = None
    if out is not None:
        claim = partial(RunFolder.claim, out, now.model, now.graph, method, budget, recipe, data, said)
        folder = processes.now().told(claim)
    if folder and time and known is None:
        processes.now().told(partial(folder.remember, budget, tree_of(time)))

    run = _Run(asked, folder, extras, clock, progress)
    val = dense_val if former is None else evaluate(now.model, task.val, task, recipe)
    done, now, time = run.go_down(now, bounds, schedule, val, time, known)
    plan = now.plan.then(done[-1].shrunk.cut.plan)
    measured = run.compare(done[-1], now, plan, whole, dense_val, time)
    for logger in loggers if processes.now().leads else ():
        getattr(logger, "finalize", lambda status: None)("success")
    partners = {name: partner.module for name, partner in task.partners.items()}
    report = report_of(asked, done, plan, measured, without)
    return Result(done[-1].shrunk.model, plan, report, now.first, partners, dense, now.calls)


@dataclass(frozen=True)
class _Run:
    """What stays the same from round to round."""

    asked: Asked
    folder: RunFolder | None
    extras: Extras
    clock: Clock
    progress: bool

    def go_down(
        self,
        now: Standing,
        bounds: Sequence[Budget],
        schedule: Sequence[Recipe],
        val: float | None,
        time: Timed | None,
        known: Mapping[str, Any] | None,
    ) -> tuple[list[Round], Standing, Timed | None]:
        """Decide, cut and fine-tune, once for each budget and part of the schedule.

        Args:
            now: Where the session begins.
            bounds: What may stay after each round.
            schedule: How to train in it.
            val: Metric of the network that it begins with, on the validation data.
            time: What is known of time, where a bound is on it.
            known: What an earlier start of the run remembered.

        Returns:
            The rounds, where the session stood before the last cut, and what is known of time then.
        """
        asked, begun, done = self.asked, now.model, list[Round]()
        for place, (bound, part) in enumerate(zip(bounds, schedule, strict=True), start=1):
            if done:
                now = now.cut(done[-1].shrunk.model, done[-1].shrunk.cut.plan)
                val = evaluate(now.model, asked.task.val, asked.task, asked.recipe)
            stages = [self._stage(name, place, len(bounds)) for name in ("search", "fine-tuning")]
            plain = written_out(now.model, now.graph.written_out)
            problem = Problem(plain, now.graph, bound, asked.task, part, stages[0], self.progress, extras=self.extras)
            found = agreed(asked.method.find(problem))
            Allocation(now.graph, bound).check(found.plan, asked.method.name)
            if time is not None and place == len(bounds):
                found, time = within(time, found, problem, asked.method, self.clock, begun, known)
                found = agreed(found)
                if self.folder:
                    processes.now().told(partial(self.folder.remember, asked.budget, tree_of(time, found.plan)))
            done.append(Round(found, shrink(found, problem, val, stages[1]), problem, now.first))
        return done, now, time

    def _stage(self, name: str, place: int, of: int) -> Path | None:
        """Where the checkpoints of a stage of a round lie."""
        return self.folder.stage(name if of == 1 else f"{name}-{place}") if self.folder else None

    def compare(
        self, last: Round, now: Standing, plan: Plan, whole: Figures, dense_val: float | None, time: Timed | None
    ) -> Compared:
        """Measure the result beside the dense network, and beside the one that widths without alignment would give."""
        asked, small, budget = self.asked, last.shrunk.model, last.problem.budget
        rough = unaligned(last.found, now.graph, budget)
        networks = {"dense": asked.model, "pruned": small} | ({"rough": rough[0]} if rough else {})
        times, untimed = in_turns_or_why(networks, now.first, self.clock)
        alignment = None
        if rough is not None:
            alignment = Alignment(budget.step, macs(now.graph, rough[1]), times.get("rough"))
        pruned = figures(small, now.first, plan, asked.task, asked.recipe, asked.split)
        return Compared(
            dense=replace(whole, latency=times.get("dense")),
            pruned=replace(pruned, latency=times.get("pruned")),
            dense_val=dense_val,
            alignment=alignment,
            time=time,
            untimed=untimed,
        )


def agreed(found: Found) -> Found:
    """What the first process found, on all: where machines differ, so may the last bits that plans hang on."""
    plan = processes.now().told(lambda: found.plan)
    return found if plan == found.plan else replace(found, plan=plan, exact=False)


def _begun(
    model: nn.Module | Result,
    args: tuple[Any, ...] | None,
    kwargs: Mapping[str, Any] | None,
    calls: Sequence[Call],
    outputs: Outputs,
    limits: Limits | None,
) -> tuple[nn.Module, Standing, Report | None]:
    """The dense network, where the session begins, and the report of the result that it goes on from."""
    if isinstance(model, type) or not isinstance(model, nn.Module | Result):
        raise MetapruneError(
            f"prune: expected a network, an nn.Module, or a result to prune further, got {brief(model)}"
        )
    if not isinstance(model, Result):
        if args is None:
            raise MetapruneError("prune: expected example inputs as a tuple, got none; mp.prune(model, (x,), …)")
        graph = limited(trace(model, args, kwargs, calls, outputs), limits)
        return model, Standing(model, graph, Plan({}), graph, tuple(calls)), None
    if args is not None or kwargs is not None or calls or outputs is not None:
        raise MetapruneError("prune: a result knows its example inputs, calls and outputs; leave them out")
    if model.dense is None:
        raise MetapruneError(
            "prune: this result does not hold the dense network to compare with; prune its network instead, "
            "mp.prune(result.model, args, …)"
        )
    start = Standing(model.dense, model.graph, Plan({}), limited(model.graph, limits), model.calls)
    return model.dense, start.cut(model.model, model.plan), model.report


def _known(budget: object, task: object, recipe: object, method: object, limits: object, clock: object) -> None:
    """Refuse what is of another kind."""
    for name, given, kind, example in (
        ("budget", budget, Budget, "mp.Budget(macs=0.5)"),
        ("task", task, Task, "mp.Classification(train_loader, val_loader)"),
        ("recipe", recipe, Recipe, "mp.Recipe(epochs=10)"),
        ("method", method, Method, "mp.DHP()"),
        ("clock", clock or Clock(), Clock, "mp.Clock(precision='bf16-mixed')"),
        ("limits", limits or Limits(), Limits, "mp.Limits(keep=('stem',))"),
    ):
        if isinstance(given, type) or not isinstance(given, kind):
            raise MetapruneError(f"prune: expected the {name} as {example} or the like, got {brief(given)}")
