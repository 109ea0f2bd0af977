"""Round by round: where a session stands, what each round may cost, and which part of the schedule it has."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from metaprune.cost.bound import Bound
from metaprune.cost.budget import TIMED, Budget
from metaprune.cost.closed_form import ClosedForm
from metaprune.cost.latency_form import NANOSECONDS, LatencyForm
from metaprune.graph.calling import Call
from metaprune.graph.errors import BudgetError, MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.methods.method import Found, Problem
from metaprune.session.cutting import Shrunk
from metaprune.surgery.trace import trace
from metaprune.surgery.values import with_states_cut
from metaprune.train.recipe import Recipe

__all__ = ["Round", "Standing", "absolute", "budgets", "parts"]


@dataclass(frozen=True)
class Standing:
    """A network on the way: cut by what was decided so far, and its own graph.

    Attributes:
        model: The network.
        graph: Its channel graph: the axes of the first network's, narrower.
        plan: What was cut of the first network.
        first: The channel graph of the first network.
        calls: The ways in which the first network is called beside the example inputs.
    """

    model: nn.Module
    graph: ChannelGraph
    plan: Plan
    first: ChannelGraph
    calls: tuple[Call, ...] = ()

    def cut(self, small: nn.Module, plan: Plan) -> Standing:
        """After one more cut, whose channels count in what was left: traced again.

        Raises:
            MetapruneError: The graph of the small network is another one than the first's with smaller widths.
        """
        whole = self.plan.then(plan)
        return replace(self, model=small, graph=again(small, self.first, whole, self.calls), plan=whole)


def again(small: nn.Module, first: ChannelGraph, plan: Plan, calls: Sequence[Call]) -> ChannelGraph:
    """The graph of a network that was cut from another; what must stay whole there must here, and limits hold on."""
    kept = plan.kept
    states = [with_states_cut(call, first.inferences[place], kept) for place, call in enumerate(calls, start=1)]
    graph = trace(small, first.args, first.kwargs, states, first.outputs)
    widths = {name: plan.widths.get(name, axis.size) for name, axis in first.axes.items()}
    if {name: axis.size for name, axis in graph.axes.items()} != widths:
        odd = next((name for name in widths if name not in graph.axes), "its axes")
        raise MetapruneError(f"prune: the network traces to another graph once it is cut ({odd}); cut it at once")
    stuck = {name: axis.fixed for name, axis in first.axes.items() if axis.fixed is not None and name in graph.free}
    limits = first.limits
    free = graph.free.keys() - stuck.keys()
    return replace(
        graph.fixing(stuck),
        limits=replace(
            limits,
            least={name: min(width, widths[name]) for name, width in limits.least.items() if name in free},
            most={name: width for name, width in limits.most.items() if name in free and width < widths[name]},
        ),
    )


@dataclass(frozen=True)
class Round:
    """One decision and what came of it.

    Attributes:
        found: What the method found.
        shrunk: The network cut and trained.
        problem: What the method was given.
        first: The channel graph of the first network.
    """

    found: Found
    shrunk: Shrunk
    problem: Problem
    first: ChannelGraph

    @property
    def share(self) -> float:
        """Of the first network's cost, what the network had that was cut."""
        return self._cost({}) / self._form(self.first).at({})

    @property
    def left(self) -> float:
        """The same of what came out."""
        return self._cost(self.shrunk.cut.plan.widths) / self._form(self.first).at({})

    def _cost(self, widths: Mapping[str, int]) -> int:
        return self._form(self.problem.graph).at(widths)

    def _form(self, graph: ChannelGraph) -> ClosedForm | LatencyForm:
        budget = self.problem.budget
        return Bound.of(graph, budget.cost, 1.0, budget.form).form


def absolute(budget: Budget, graph: ChannelGraph) -> Budget:
    """Shares of the first network's costs as numbers."""
    return _bounded(
        budget,
        {
            cost: max(2, Bound.of(graph, cost, value).limit) if value <= 1 else value
            for cost, value in budget.bounds.items()
            if cost in ("macs", "params")
        },
    )


def _bounded(budget: Budget, limits: Mapping[str, float]) -> Budget:
    """The budget with other bounds on MACs and parameters, as far as it has them."""
    return replace(budget, macs=limits.get("macs"), params=limits.get("params"))


def _in_ms(budget: Budget, limits: Mapping[str, float]) -> Budget:
    """The same with bounds on time, in nanoseconds, as one in milliseconds."""
    times = [limit / NANOSECONDS for cost, limit in limits.items() if cost in TIMED]
    return replace(budget, latency=min(times), speedup=None) if times else budget


def budgets(budget: Budget, graph: ChannelGraph, steps: int) -> list[Budget]:
    """The budget of each round: every cost falls by the same factor from round to round; the last is the budget.

    Raises:
        BudgetError: `steps` is no whole number from 1.
    """
    if type(steps) is not int or steps < 1:
        raise BudgetError(f"prune: expected steps as a whole number from 1, got {steps!r}")
    if steps == 1:
        return [budget]
    bounds = {cost: Bound.of(graph, cost, value, budget.form) for cost, value in budget.bounds.items()}

    def after(place: int) -> Budget:
        """Absolute, since each round begins with another network."""
        limits = {
            cost: bound.end
            if place == steps
            else max(bound.end, int(bound.dense * (bound.end / bound.dense) ** (place / steps)))
            for cost, bound in bounds.items()
        }
        return _in_ms(_bounded(budget, {cost: max(2, limit) for cost, limit in limits.items()}), limits)

    return [after(place) for place in range(1, steps + 1)]


def parts(recipe: Recipe, steps: int) -> list[Recipe]:
    """The one schedule, cut into a part of whole epochs for each round.

    Raises:
        MetapruneError: There are fewer epochs than rounds.
    """
    if steps > recipe.epochs:
        raise MetapruneError(
            f"prune: expected at least an epoch for each of the {steps} steps, got {recipe.epochs}; give a recipe with "
            "more epochs"
        )
    bounds = [round(place * recipe.epochs / steps) for place in range(steps + 1)]
    return [
        replace(recipe, epochs=stop - start, before=recipe.before + start, after=recipe.after + recipe.epochs - stop)
        if steps > 1
        else recipe
        for start, stop in itertools.pairwise(bounds)
    ]
