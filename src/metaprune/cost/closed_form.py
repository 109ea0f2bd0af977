"""MACs and parameters as closed forms of the widths: exact for whole numbers, differentiable for any."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from metaprune.graph.arguments import wanted
from metaprune.graph.errors import PlanError
from metaprune.graph.graph import ChannelGraph, Operator
from metaprune.graph.plan import Plan
from metaprune.graph.rehearsal import on_the_cpu
from metaprune.graph.term import Axis, Term, axes_of, fold, size

__all__ = ["ClosedForm", "axis_shares", "layer_macs", "macs", "macs_form", "params", "params_form"]

Monomials = Counter[tuple[str, ...]]


class ClosedForm:
    """A polynomial in the widths of the free axes.

    Attributes:
        axes: The names of the widths it depends on, in the graph's order.
        monomials: Names multiplied together (sorted, repeated for powers) -> coefficient.
        divisor: The value is divided by it (the examples in the batch) and rounded down.
    """

    def __init__(self, graph: ChannelGraph, products: Iterable[Sequence[Term]], divisor: int = 1) -> None:
        self.axes = tuple(graph.free)
        self.divisor = divisor
        self.sizes = {name: axis.size for name, axis in graph.free.items()}
        self.monomials: Monomials = Counter()
        known: dict[Term, Monomials] = {}
        for product in products:
            for term in product:
                if term not in known:
                    known[term] = _expand(term, self.sizes)
            self.monomials.update(_multiply([known[term] for term in product]))

    @on_the_cpu()
    def at(self, widths: Mapping[str, int]) -> int:
        """The exact value at whole widths; axes that are not named are whole."""
        counts, factors = self._table
        whole = torch.tensor([*(widths.get(name, size) for name, size in self.sizes.items()), 1])
        return int((counts * whole[factors].prod(1)).sum()) // self.divisor

    @on_the_cpu()
    def many(self, widths: Tensor) -> Tensor:
        """The exact values at many whole widths.

        Args:
            widths: int64 of shape (candidates, axes), columns in the order of `axes`.

        Returns:
            int64 of shape (candidates,).
        """
        counts, factors = self._table
        padded = torch.cat([widths, widths.new_ones(len(widths), 1)], 1)
        return (counts * padded[:, factors].prod(2)).sum(1) // self.divisor

    @cached_property
    def _table(self) -> tuple[Tensor, Tensor]:
        """Coefficients, and the factors of each monomial as positions in (*axes, 1)."""
        place = {name: index for index, name in enumerate(self.axes)}
        degree = max(map(len, self.monomials), default=0)
        factors = [[place[name] for name in names] + [len(place)] * (degree - len(names)) for names in self.monomials]
        counts = torch.tensor(list(self.monomials.values()), dtype=torch.int64)
        return counts, torch.tensor(factors, dtype=torch.int64).reshape(len(counts), degree)

    def __call__(self, widths: Tensor) -> Tensor:
        """The value at real widths.

        Args:
            widths: Shape (axes,), one width per name in `axes`.

        Returns:
            A float64 scalar, differentiable in `widths`.
        """
        counts, factors = (table.to(widths.device) for table in self._table)
        padded = torch.cat([widths.double(), widths.new_ones(1, dtype=torch.float64)])
        return (counts * padded[factors].prod(1)).sum() / self.divisor

    @on_the_cpu()
    def slopes(self, widths: Tensor) -> Tensor:
        """What a channel of each axis costs at real widths, the derivative: float64 of shape (axes,)."""
        with torch.enable_grad():
            point = widths.detach().requires_grad_()
            found: Tensor = torch.autograd.grad(self(point), point)[0]
        return found.double()


def macs_form(graph: ChannelGraph) -> ClosedForm:
    """Multiply-accumulates of one example (contractions only: norms, activations and biases are not counted)."""
    return ClosedForm(graph, [product for operator in graph.operators for product in operator.macs], graph.batch)


def params_form(graph: ChannelGraph) -> ClosedForm:
    """Number of parameters; tied ones count once, buffers do not."""
    return ClosedForm(graph, [graph.tensors[name] for name in graph.parameters])


def macs(graph: ChannelGraph, plan: Plan | None = None) -> int:
    """Multiply-accumulates of one example, before or after a plan.

    Raises:
        PlanError: The plan does not fit the graph.
    """
    _wanted("macs", graph, plan)
    return macs_form(graph).at(_widths(graph, plan))


def params(graph: ChannelGraph, plan: Plan | None = None) -> int:
    """Number of parameters, before or after a plan.

    Raises:
        PlanError: The plan does not fit the graph.
    """
    _wanted("params", graph, plan)
    return params_form(graph).at(_widths(graph, plan))


def _wanted(who: str, graph: object, plan: object) -> None:
    wanted(who, "graph", graph, ChannelGraph, "mp.trace(model, args) returns it", PlanError)
    wanted(who, "plan", plan or Plan({}), Plan, "mp.Plan({'conv1': [0, 1]})", PlanError)


def layer_macs(graph: ChannelGraph, plan: Plan | None = None) -> dict[str, tuple[str, int]]:
    """For each module that multiplies, its operator and the multiply-accumulates of one example."""
    widths = _widths(graph, plan)
    layers: dict[str, list[Operator]] = {}
    for operator in graph.operators:
        if operator.macs:
            layers.setdefault(operator.layer or operator.name, []).append(operator)
    return {
        layer: (
            operators[0].name.removeprefix("aten."),
            ClosedForm(graph, [product for operator in operators for product in operator.macs], graph.batch).at(widths),
        )
        for layer, operators in layers.items()
    }


def axis_shares(graph: ChannelGraph) -> dict[str, float]:
    """For each axis, the share of the network's multiply-accumulates that it takes part in."""
    shares = dict.fromkeys(graph.axes, 0)
    total = 0
    for operator in graph.operators:
        for product in operator.macs:
            cost = math.prod(size(term) for term in product)
            total += cost
            for name in {axis.name for term in product for axis in axes_of(term)} & shares.keys():
                shares[name] += cost
    return {name: share / max(total, 1) for name, share in shares.items()}


def _widths(graph: ChannelGraph, plan: Plan | None) -> dict[str, int]:
    if plan is None:
        return {}
    plan.check(graph)
    return plan.widths


def _expand(term: Term, free: Mapping[str, int]) -> Monomials:
    def leaf(axis: Axis) -> Monomials:
        return Counter({(axis.name,): 1}) if axis.name in free else Counter({(): axis.size})

    return fold(term, leaf, _multiply, lambda parts: sum(parts, Counter()))


def _multiply(factors: Sequence[Monomials]) -> Monomials:
    result: Monomials = Counter({(): 1})
    for factor in factors:
        if len(factor) == 1 and () in factor:
            result = Counter({names: count * factor[()] for names, count in result.items()})
        else:
            product: Monomials = Counter()
            for names, count in result.items():
                for more, times in factor.items():
                    product[tuple(sorted(names + more))] += count * times
            result = product
    return result
