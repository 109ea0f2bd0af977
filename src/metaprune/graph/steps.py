"""Widths that operators take: some want sizes that are multiples of a number."""

from __future__ import annotations

import math
from collections.abc import Iterable

from metaprune.graph.graph import ChannelGraph
from metaprune.graph.term import Concat, Product, Term, size

__all__ = ["align", "steps_of_operators"]

_WANTED = {"aten._grouped_mm": 8, "transformers.grouped_mm_fallback": 8}
"""Operator -> what the rows and columns of its matrices are multiples of: 16 bytes, of numbers of two bytes or more."""


def steps_of_operators(graph: ChannelGraph) -> dict[str, int]:
    """For each free axis the step of its width that the operators of the network ask for; 1 where they do not."""
    steps = dict.fromkeys(graph.free, 1)
    for operator in graph.operators:
        for _, *dims in operator.macs if operator.name in _WANTED else ():
            align(steps, dims, _WANTED[operator.name])
    return steps


def align(steps: dict[str, int], dims: Iterable[Term], multiple_of: int) -> None:
    """Widen the steps of axes such that the sizes of some dimensions stay multiples of a number.

    The fastest-running factor of a product is aligned itself; the factors before it then need less.
    """

    def visit(term: Term, after: int) -> None:
        if isinstance(term, Product):
            for factor in reversed(term.factors):
                visit(factor, after)
                after *= size(factor)
        elif isinstance(term, Concat):
            for part in term.parts:
                visit(part, after)
        elif term.name in steps:
            steps[term.name] = math.lcm(steps[term.name], multiple_of // math.gcd(multiple_of, after))

    for dim in dims:
        visit(dim, 1)
