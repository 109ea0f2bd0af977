"""A bound on one cost of a graph, and what stands in its way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from metaprune.cost.closed_form import ClosedForm, macs_form, params_form
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.term import Term, axes_of

__all__ = ["Bound"]


@dataclass(frozen=True)
class Bound:
    """An upper bound on MACs or parameters.

    Attributes:
        cost: "macs" or "params".
        form: The cost as a function of the widths.
        dense: Of the whole network.
        limit: The largest that is allowed, absolute.
    """

    cost: str
    form: ClosedForm
    dense: int
    limit: int

    @classmethod
    def of(cls, graph: ChannelGraph, cost: str, value: float) -> Bound:
        """The bound on a graph: a share up to 1, or an absolute number above."""
        form = {"macs": macs_form, "params": params_form}[cost](graph)
        dense = form.at({})
        return cls(cost, form, dense, math.floor(value * dense) if value <= 1 else int(value))

    def obstacle(self, graph: ChannelGraph, widths: Mapping[str, int]) -> str:
        """In words: what costs most at these widths, and why it cannot cost less."""
        parts: dict[str, list[tuple[Term, ...]]] = {}
        if self.cost == "macs":
            for operator in graph.operators:
                if operator.macs:
                    where = operator.layer or operator.path or operator.where
                    parts.setdefault(f"{where} ({operator.name.removeprefix('aten.')})", []).extend(operator.macs)
        else:
            parts = {name: [graph.tensors[name]] for name in graph.parameters}
        divisor = self.form.divisor
        costs = {name: ClosedForm(graph, products, divisor).at(widths) for name, products in parts.items()}
        name = max(costs, key=costs.__getitem__)
        held = {axis.name for product in parts[name] for term in product for axis in axes_of(term)} & graph.axes.keys()
        axes = sorted((graph.axes[axis] for axis in held), key=lambda axis: -axis.size)
        fixed = [f"{axis.name} stays whole ({axis.fixed})" for axis in axes if axis.fixed is not None and axis.members]
        limited = [
            f"{axis.name} has {widths[axis.name]} of {axis.size} channels at least"
            + (f" (limits: {graph.limits.said[axis.name]})" if axis.name in graph.limits.said else "")
            for axis in axes
            if axis.name in widths
        ]
        why = [*(words for words in fixed if "limits:" in words), *(w for w in limited if "limits:" in w)]
        why = why or fixed or limited
        share = costs[name] / max(self.form.at(widths), 1)
        return f"{share:.0%} of that is {name}" + (f", where {why[0]}" if why else "")
