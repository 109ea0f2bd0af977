"""The law of limits: whatever they are, the plan of every method obeys them and the budget, or the error names them."""

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.errors import BudgetError, MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.objects import open_to_trees
from metaprune.methods.method import Problem
from metaprune.methods.registry import METHODS, decides_by
from tests.laws import oracle
from tests.laws.case import case
from tests.zoo import ZOO, networks

AT_ONCE = [method() for method in METHODS.values() if decides_by(method) == "weights"]
REFUSED = {
    "frozen": ("graph_metanetwork", "metapruning", "transportation"),  # it has nothing that trains
    "lstm_projected": ("metapruning",),  # a projection as wide as the state is another operator
}
"""Methods that refuse a network, with and without limits."""

SMALLEST = ("resnet", "gpt", "mobilenet_v2", "lstm")
TRAINED: dict[str, Callable[[], Any]] = {name: kind for name, kind in METHODS.items() if decides_by(kind) != "weights"}
TRAINED |= {
    "graph_metanetwork": lambda: mp.GraphMetanetwork(trial=0),
    "metapruning": lambda: mp.MetaPruning(population=4, generations=1, parents=2, calibration=1, hidden=4),
}
"""Those that look at data or train, as short as they may be."""

STEPS = 3
DIGITS = re.compile(r"\d+")
NAMED = {
    False: re.compile(r"^limits: "),
    True: re.compile(r"cannot be met; .*% of that is .*(at least|whole|kept|fixed)"),
}
"""What an error says: which limits contradict one another, or what of the network is in the way of the budget."""


DIVERGED = (("expected numbers as the scores of", ", got NaN"), ("expected finite gates, got others for axis", ":"))
"""What stands around the name of an axis in the error of a search that diverged."""


def drawn(graph: ChannelGraph, seed: int) -> tuple[mp.Limits, mp.Budget]:
    """Random limits over the axes of a graph, and a budget that they may leave room for, or not."""
    generator = torch.Generator().manual_seed(seed)

    def some(share: float) -> list[str]:
        return [name for name in graph.free if float(torch.rand((), generator=generator)) < share]

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    keep = some(0.15)
    free = [name for name in graph.free if name not in keep]
    most = {name: between(0.6, 1.0) for name in some(0.3) if name in free}
    least = {name: between(0.1, 0.6) for name in some(0.5)}
    alike = [DIGITS.sub("*", name) for name in some(0.4)] if seed % 2 else []
    together = [some(0.3)] if seed % 4 == 2 else []
    limits = mp.Limits(keep, least, most, alike, alike if seed % 4 == 3 else (), together)
    return limits, mp.Budget(macs=between(0.3, 1.0), multiple_of=1 + seed % 2)


def within(
    dense: ChannelGraph, limits: mp.Limits, budget: mp.Budget
) -> tuple[ChannelGraph, Allocation] | MetapruneError:
    """The limits on the graph and the budget on them, or what is in the way."""
    try:
        graph = limits.on(dense)
        return graph, Allocation(graph, budget)
    except MetapruneError as error:
        return error


def obeyed(dense: ChannelGraph, plan: mp.Plan, limits: mp.Limits, budget: mp.Budget) -> None:
    """Read off the limits as they were written, not off what the allocation made of them."""
    widths = {name: plan.widths.get(name, axis.size) for name, axis in dense.axes.items()}
    assert mp.macs(dense, plan) <= budget.value * mp.macs(dense) + 1e-6
    assert all(widths[name] == dense.axes[name].size for name in limits.keep)
    for name, share in limits.least.items():
        assert widths[name] >= min(share * dense.axes[name].size, dense.axes[name].size) - 1e-6
    for name, share in limits.most.items():
        assert widths[name] <= max(1, share * dense.axes[name].size) + 1e-6
    for pattern in (*limits.alike, *limits.alike_channels):
        kinds: dict[tuple[str, int], set[Any]] = {}
        for name in (name for name in dense.axes if fnmatchcase(name, pattern.replace("[", "[[]"))):
            kept = plan.kept.get(name, tuple(range(dense.axes[name].size)))
            kind = (DIGITS.sub("*", name), dense.axes[name].size)
            kinds.setdefault(kind, set()).add(tuple(kept) if pattern in limits.alike_channels else len(kept))
        assert all(len(found) == 1 for found in kinds.values())
    for group in limits.together:
        assert len({Fraction(widths[name], dense.axes[name].size) for name in group}) <= 1


def searched(model: Any, graph: ChannelGraph, budget: mp.Budget) -> mp.Plan:
    """The plan of a search of a few steps, on whatever the network gives, checked as `finish` does."""
    search = mp.DHP().start(model, graph, budget, steps=STEPS)
    optimizer = torch.optim.SGD(search.groups(1e-3), 1e-3)
    for _ in range(STEPS):
        with open_to_trees(graph.args, graph.kwargs):
            given = pytree.tree_leaves(search.model(*graph.args, **graph.kwargs))
        optimizer.zero_grad()
        outputs = [out for out in given if isinstance(out, Tensor) and out.requires_grad]
        sum((out.square().mean() for out in outputs), torch.zeros(())).backward()
        optimizer.step()
        search.step(1e-3)
    allocation = search.search.allocation
    allocation.check(search.plan, "DHP")
    return search.plan


def obeyed_or_said(dense: ChannelGraph, plan: Callable[[], mp.Plan], limits: mp.Limits, budget: mp.Budget) -> None:
    """A search may diverge on made-up weights, or divide zero by zero where code divides weights by their own size.

    It must then say so, and there is no plan.
    """
    said = ""
    try:
        obeyed(dense, plan(), limits, budget)
    except MetapruneError as error:
        said = str(error)
    assert not said or any(f"{what} {name}{end}" in said for name in dense.free for what, end in DIVERGED), said


@pytest.mark.parametrize("name", networks(families=4))
def test_every_plan_obeys_the_limits_or_the_error_names_what_is_in_the_way(name: str) -> None:
    model, dense = case(name).model, case(name).graph
    before = oracle.fingerprint(model)
    planned = 0
    for seed in range(30):
        if seed >= 4 and (planned or not dense.free):  # where little is free, most of what is drawn leaves no room
            break
        limits, budget = drawn(dense, seed)
        made = within(dense, limits, budget)
        if isinstance(made, MetapruneError):
            assert NAMED[isinstance(made, BudgetError)].search(str(made))
            continue
        graph, allocation = made
        for method in AT_ONCE:
            plan = method.find(Problem(model, graph, budget, None, None)).plan  # type: ignore[arg-type]
            allocation.check(plan, method.name)
            obeyed(dense, plan, limits, budget)
            planned += 1
        if seed == 1 and allocation.limit < allocation.dense:
            obeyed_or_said(dense, partial(searched, model, graph, budget), limits, budget)
    assert planned or not dense.free
    assert oracle.fingerprint(model) == before


def anything(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> mp.Task:
    """Small outputs, whatever they are."""

    def loss(output: Any, batch: Any) -> Tensor:
        outputs = [out for out in pytree.tree_leaves(output) if isinstance(out, Tensor) and out.is_floating_point()]
        return torch.stack([out.square().mean() for out in outputs]).sum()

    data = [(args, kwargs)] * STEPS
    return mp.Task(
        data, data, None, loss=loss, metric=lambda *given: (loss(*given), 1), inputs=lambda batch: (batch[0], batch[1])
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_so_does_every_method_that_looks_at_data(name: str) -> None:
    """Four draws for the smallest, for the others the first that leaves room for its budget."""
    model, args, kwargs = ZOO[name].example()
    dense = mp.trace(model, args, kwargs)
    recipe = mp.Recipe(2, lr=1e-5, precision="32-true", device="cpu", channels_last=False)
    planned = 0
    for seed in range(30):
        if (seed >= 4 or name not in SMALLEST) and (planned or not dense.free):
            break
        limits, budget = drawn(dense, seed)
        made = within(dense, limits, budget)
        if isinstance(made, MetapruneError):
            continue
        graph, allocation = made

        def plan(method: str, graph: ChannelGraph = graph, allocation: Allocation = allocation) -> mp.Plan:
            problem = Problem(model, graph, allocation.budget, anything(args, kwargs), recipe, progress=False)
            found = TRAINED[method]().find(problem).plan
            allocation.check(found, method)
            return found

        for method in TRAINED:
            if method in REFUSED.get(name, ()):
                with pytest.raises(MetapruneError):
                    plan(method)
            else:
                obeyed_or_said(dense, partial(plan, method), limits, budget)
        planned += 1
    assert planned or not dense.free
