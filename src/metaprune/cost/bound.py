"""A bound on one cost of a graph, and what stands in its way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from metaprune.cost.closed_form import ClosedForm, macs_form, params_form
from metaprune.cost.latency_form import NANOSECONDS, LatencyForm
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.term import Term, axes_of

__all__ = ["Bound"]

AIM = 0.99
"""Plans within a time aim at this share of it."""


@dataclass(frozen=True)
class Bound:
    """An upper bound on MACs, parameters or time.

    Attributes:
        cost: "macs", "params", "latency" or "speedup".
        form: The cost as a function of the widths.
        dense: Of the whole network; times are in nanoseconds.
        limit: The largest that is allowed, absolute.
        asked: Of times, what was asked for: a plan aims a little below, since what is measured has a spread.
    """

    cost: str
    form: ClosedForm | LatencyForm
    dense: int
    limit: int
    asked: int | None = None

    @property
    def end(self) -> int:
        """What may not be exceeded: what was asked for, of times."""
        return self.limit if self.asked is None else self.asked

    def within(self, smallest: int) -> Bound:
        """The same where the smallest network is between what is aimed at and what was asked for."""
        just = self.asked is not None and self.limit < smallest <= self.asked
        return replace(self, limit=smallest) if just else self

    @classmethod
    def of(cls, graph: ChannelGraph, cost: str, value: float, time: LatencyForm | None = None) -> Bound:
        """The bound on a graph.

        Args:
            graph: The channel graph.
            cost: What is bounded.
            value: Of MACs and parameters a share up to 1, or an absolute number above; milliseconds, or a factor.
            time: The time as a function of the widths, for bounds on it.
        """
        if cost in ("latency", "speedup"):
            assert time is not None
            form = time.on(graph)
            whole = form.at({})
            asked = math.floor(value * NANOSECONDS if cost == "latency" else whole / value)
            return cls(cost, form, whole, asked if whole <= asked else math.floor(AIM * asked), asked)
        closed = {"macs": macs_form, "params": params_form}[cost](graph)
        dense = closed.at({})
        return cls(cost, closed, dense, math.floor(value * dense) if value <= 1 else int(value))

    def said(self, value: int) -> str:
        """A cost in words: as a share (or a speed-up), and "(… of …" with an open bracket."""
        if isinstance(self.form, LatencyForm):
            now, dense = value / NANOSECONDS, self.dense / NANOSECONDS
            what = f"{dense / now:.3g} times the speed" if self.cost == "speedup" else f"{now:.4g} ms"
            return f"{what} ({now:.4g} of {dense:.4g} ms"
        return f"{math.ceil(1e4 * value / self.dense) / 1e4:.4f} ({value:,} of {self.dense:,} {self.cost}"

    def obstacle(self, graph: ChannelGraph, widths: Mapping[str, int]) -> str:
        """In words: what costs most at these widths, and why it cannot cost less."""
        if isinstance(self.form, LatencyForm):
            timed = self.form.parts(widths)
            costs = {name: ns for name, (ns, _) in timed.items()}
            products: Mapping[str, list[tuple[Term, ...]]] = {name: [terms] for name, (_, terms) in timed.items()}
        else:
            products = self._products(graph)
            divisor = self.form.divisor
            costs = {name: ClosedForm(graph, terms, divisor).at(widths) for name, terms in products.items()}
        if not costs:
            return "nothing of it can be cut"
        name = max(costs, key=costs.__getitem__)
        held = {axis.name for product in products[name] for term in product for axis in axes_of(term)}
        why = _why(graph, widths, held & graph.axes.keys())
        share = costs[name] / max(self.form.at(widths), 1)
        return f"{share:.0%} of that is {name}" + (f", where {why[0]}" if why else "")

    def _products(self, graph: ChannelGraph) -> Mapping[str, list[tuple[Term, ...]]]:
        """What costs, by the place in the network."""
        parts: dict[str, list[tuple[Term, ...]]] = {}
        if self.cost == "macs":
            for operator in graph.operators:
                if operator.macs:
                    where = operator.layer or operator.path or operator.where
                    parts.setdefault(f"{where} ({operator.name.removeprefix('aten.')})", []).extend(operator.macs)
        else:
            parts = {name: [graph.tensors[name]] for name in graph.parameters}
        return parts


def _why(graph: ChannelGraph, widths: Mapping[str, int], held: set[str]) -> list[str]:
    """Why axes cannot be narrower, the largest first; what the user said before all else."""
    axes = sorted((graph.axes[axis] for axis in held), key=lambda axis: -axis.size)
    fixed = [f"{axis.name} stays whole ({axis.fixed})" for axis in axes if axis.fixed is not None and axis.members]
    limited = [
        f"{axis.name} has {widths[axis.name]} of {axis.size} channels at least"
        + (f" (limits: {graph.limits.said[axis.name]})" if axis.name in graph.limits.said else "")
        for axis in axes
        if axis.name in widths
    ]
    why = [*(words for words in fixed if "limits:" in words), *(w for w in limited if "limits:" in w)]
    return why or fixed or limited
