"""Decide only: the plan or the scores of a method that needs no training, without anything else of a session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from metaprune.cost.budget import Allocation, Budget
from metaprune.cost.clock import Clock
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.limits import Limits, limited
from metaprune.graph.plan import Plan
from metaprune.methods.method import Method, OneShot, Problem, check_method
from metaprune.surgery.attention import written_out
from metaprune.surgery.trace import trace
from metaprune.timing import timed
from metaprune.train.recipe import Recipe
from metaprune.train.task import Classification, Task

__all__ = ["plan", "scores"]


def plan(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    method: Method,
    budget: Budget,
    task: Task | None = None,
    limits: Limits | None = None,
    graph: ChannelGraph | None = None,
    seed: int = 0,
    clock: Clock | None = None,
) -> Plan:
    """What a one-shot method would cut: nothing is trained or cut, and nothing measured but for a budget in time.

    Args:
        model: The network; left untouched.
        args: Example inputs.
        kwargs: Example keyword inputs.
        method: `mp.Magnitude()`, `mp.Taylor()` …; not one that decides while it trains, as DHP does.
        budget: What may stay.
        task: Data and loss, for methods that ask data.
        limits: What the widths must obey.
        graph: From `mp.trace(model, …)`, where it is at hand.
        seed: Of the order of the data.
        clock: Where time is measured, if the budget bounds it; by default in float32 on the CPU.

    Returns:
        The plan, within the budget and the limits. `mp.slice(model, graph, plan)` cuts by it.

    Raises:
        MetapruneError: The method must train, or asks data and has no task; the budget cannot be met.
    """
    asked, problem = _problem("plan", model, args, kwargs, method, budget, task, limits, graph, seed, clock)
    found = asked.find(problem).plan
    Allocation(problem.graph, problem.budget).check(found, asked.name)
    return found


def scores(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    method: Method,
    task: Task | None = None,
    graph: ChannelGraph | None = None,
    budget: Budget | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """What each channel is worth to a one-shot method; channels with the smallest scores go first.

    Args:
        model: The network; left untouched.
        args: Example inputs.
        kwargs: Example keyword inputs.
        method: As for `plan`.
        task: Data and loss, for methods that ask data.
        graph: From `mp.trace(model, …)`, where it is at hand.
        budget: Whose cost channels are weighed against, where the method weighs them; by default MACs.
        seed: Of the order of the data.

    Returns:
        For each free axis a tensor of shape (size,), comparable between axes.

    Raises:
        MetapruneError: The method must train, or asks data and has no task.
    """
    bounded = budget or Budget(macs=1.0)
    asked, problem = _problem("scores", model, args, kwargs, method, bounded, task, None, graph, seed)
    return dict(asked.scores(problem))


def _problem(
    who: str,
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    method: Method,
    budget: Budget,
    task: Task | None,
    limits: Limits | None,
    graph: ChannelGraph | None,
    seed: int,
    clock: Clock | None = None,
) -> tuple[OneShot, Problem]:
    """What the method is asked, after all that can be known of its answer was checked."""
    check_method(method, who, "mp.Magnitude()")
    if not isinstance(method, OneShot):
        raise MetapruneError(
            f"{who}: {method.name} decides while it trains; use mp.prune, or a one-shot method as mp.Taylor()"
        )
    if not isinstance(budget, Budget):
        raise MetapruneError(f"{who}: expected the budget as mp.Budget(macs=0.5) or the like, got {budget!r}")
    if method.asks_data and task is None:
        raise MetapruneError(
            f"{who}: {method.name} asks the training data; give task=mp.Classification(train, val) or the like"
        )
    graph = trace(model, args, kwargs) if graph is None else graph
    graph = limited(graph, limits)
    plain = written_out(model, graph.written_out)
    graph.check(plain)
    if budget.is_timed:
        budget = timed(model, graph, budget, clock or Clock()).budget
    Allocation(graph, budget)
    return method, Problem(
        plain, graph, budget, task or Classification([], []), Recipe(seed=seed), progress=False, at_once=True
    )
