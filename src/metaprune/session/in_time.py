"""A session on a clock: what is known of time before it, and a result that is measured before it is fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from metaprune.cost.budget import Allocation, Budget
from metaprune.cost.clock import Clock
from metaprune.cost.latency_form import Anchor
from metaprune.graph.errors import BudgetError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.methods.method import Found, Method, Problem
from metaprune.timing import Timed, corrected, recalled, timed
from metaprune.train.processes import now

__all__ = ["on_clock", "tree_of", "within"]

OVER = 1.0
"""A result that takes longer than this times the limit is cut further."""

UNDER = 0.97
"""One that takes less than this, and could keep more, is decided again."""

TRIES = 3

_WORSE = 3.0
"""To be over the limit is as bad as to be so many times as far under it."""


def on_clock(
    model: nn.Module,
    graph: ChannelGraph,
    budget: Budget,
    clock: Clock,
    known: Mapping[str, Any] | None,
    dense: nn.Module,
) -> Timed | None:
    """What is known of time: measured, or as an earlier start of the run found it; None where no bound is on time.

    A speed-up is against `dense`, which is another network than `model` where a result is pruned further.
    """
    if not budget.is_timed:
        return None
    if known is None and now().size > 1:  # one process measures
        known = now().told(lambda: _measured(model, graph, budget, clock, dense).tree)
    return (
        _measured(model, graph, budget, clock, dense) if known is None else recalled(known, model, graph, budget, clock)
    )


def _measured(model: nn.Module, graph: ChannelGraph, budget: Budget, clock: Clock, dense: nn.Module) -> Timed:
    if budget.speedup is not None and dense is not model:
        first = clock.latencies({"dense": dense}, graph.args, graph.kwargs)["dense"].median_ms / budget.speedup
        latency = first if budget.latency is None else min(first, budget.latency)
        budget = replace(budget, speedup=None, latency=latency)
    return timed(model, graph, budget, clock)


def tree_of(time: Timed, plan: Plan | None = None) -> dict[str, Any]:
    """What a later start of the run must know of it, as JSON holds it."""
    return time.tree | ({} if plan is None else {"plan": {name: list(stays) for name, stays in plan.kept.items()}})


def within(
    time: Timed,
    found: Found,
    problem: Problem,
    method: Method,
    clock: Clock,
    begun: nn.Module,
    known: Mapping[str, Any] | None = None,
) -> tuple[Found, Timed]:
    """What a method found, measured, and decided again until it takes the time that was asked for.

    A method that was trained for its plan gives up more of its channels, by its own scores; others are asked again.

    Args:
        time: What is known of time.
        found: What the method found.
        problem: What it was given.
        method: The method.
        clock: Where time is measured.
        begun: The network that the session began with.
        known: What an earlier start of the run decided, which then holds.

    Returns:
        A plan that takes no longer, as far as three measurements go, and what is known then.
    """
    if known is not None and "plan" in known:
        plan = Plan({name: tuple(stays) for name, stays in known["plan"].items()})
        return replace(found, plan=plan, exact=found.exact and plan == found.plan), time.settled
    first, best, trained = found, found, found.epochs > 0 or bool(found.spent) or found.fresh
    best_ratio = float("inf")
    for turn in range(TRIES):
        time, ratio = _corrected(found, problem.graph, time, clock, begun)
        if _missed(ratio) < _missed(best_ratio):
            best, best_ratio = found, ratio
        widest = not found.plan.kept or (trained and found is first)
        if turn == TRIES - 1 or (ratio <= OVER and (ratio >= UNDER or widest)):
            break
        try:
            again = _again(replace(problem.budget, form=time.budget.form), first, problem, method, trained)
        except BudgetError:
            break
        if again.plan == found.plan:
            break
        found = again
    return best, time


def _corrected(found: Found, graph: ChannelGraph, time: Timed, clock: Clock, begun: nn.Module) -> tuple[Timed, float]:
    """`corrected`, of several processes by the first; the others are told."""
    if now().size == 1:
        return corrected(found.model, graph, found.plan, time, clock, begun)

    def measured() -> tuple[dict[str, int], float, float]:
        known, ratio = corrected(found.model, graph, found.plan, time, clock, begun)
        return dict(known.later[-1].widths), known.later[-1].ms, ratio

    widths, ms, ratio = now().told(measured)
    steady, form = Anchor(widths, ms), time.budget.form
    assert form is not None
    return replace(time, budget=time.budget.on(form.through(steady)), later=(*time.later, steady)), ratio


def _missed(ratio: float) -> float:
    """How far a time is from what it may take, as a share of it; too long is worse than too short."""
    return _WORSE * (ratio - OVER) if ratio > OVER else 1 - ratio


def _again(budget: Budget, found: Found, problem: Problem, method: Method, trained: bool) -> Found:
    if not trained:
        return method.find(replace(problem, budget=budget))
    graph = problem.graph.fixing(found.whole)
    scores = {name: score.clone() for name, score in found.scores.items() if name in graph.free}
    for name, stays in found.plan.kept.items():
        if name in scores:
            gone = torch.ones(len(scores[name]), dtype=torch.bool)
            gone[list(stays)] = False
            scores[name] = scores[name].double().masked_fill(gone.to(scores[name].device), -torch.inf)
    return replace(found, plan=Allocation(graph, budget).plan(scores), exact=False)
