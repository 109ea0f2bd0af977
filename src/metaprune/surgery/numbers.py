"""The numbers that modules keep about themselves: `num_heads`, `head_dim`, `split_sizes`, `hidden_size` …

While a network is traced, every number that reaches an operator as a size is followed back to the attributes and tensor
sizes that it was computed from. Each such use is an equation: the expression must have the value of the dimension, at
all widths. `solve` finds for each attribute the dimension that satisfies them all.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from metaprune.graph.attributes import whole_numbers, write_numbers
from metaprune.graph.graph import ChannelGraph, Tie
from metaprune.graph.provenance import Attribute, Extent, Number, evaluate, leaves
from metaprune.graph.term import Axis, Concat, Term, axes_of, inside, size, width
from metaprune.surgery.inverse import WRITTEN, Known, made_of, wanted
from metaprune.surgery.remade import remade

__all__ = ["Solution", "set_numbers", "solve"]

Numbers = dict[tuple[str, str], Term]
Reading = Term | None

_POINTS = 4  # random widths that an equation must hold at
_MOST_STEPS = 20_000
_MOST_DEEP = 3  # expressions that are read one through the other


def set_numbers(model: nn.Module, numbers: Mapping[tuple[str, str], Term], widths: Mapping[str, int]) -> None:
    """Bring the attributes of `model` into line with the new widths, in place."""
    write_numbers(model, {key: width(term, widths) for key, term in numbers.items()})


@dataclass(frozen=True)
class Equation:
    """The code at `where` gave `number` to an operator as the size of `term`; `layout` is that of its results."""

    term: Term
    number: Number
    where: str
    layout: tuple[Term, ...] = field(default=(), compare=False)

    def attributes(self) -> Iterator[Attribute]:
        """The attributes that the number was computed from."""
        return (leaf for leaf in leaves(self.number) if isinstance(leaf, Attribute))

    def holds(self, reading: Mapping[Attribute, Reading], values: Mapping[Attribute, int], points: Points) -> bool:
        """Whether it is true at all points, with each attribute as the size of what it was read as."""
        return all(self._value(reading, values, point) == width(self.term, point) for point in points)

    def _value(
        self, reading: Mapping[Attribute, Reading], values: Mapping[Attribute, int], point: Mapping[str, int]
    ) -> int | None:
        def leaf(number: Attribute | Extent) -> int:
            if isinstance(number, Extent):
                return number.size if number.term is None else width(number.term, point)
            term = reading[number]
            return values[number] if term is None else width(term, point)

        try:
            return evaluate(self.number, leaf)
        except ZeroDivisionError:
            return None

    def known(self, reading: Mapping[Attribute, Reading], values: Mapping[Attribute, int]) -> Known:
        """What the leaves of the number are the sizes of; an attribute read as no dimension is its value."""

        def leaf(number: Attribute | Extent) -> Term | None:
            if isinstance(number, Extent):
                return Axis("", number.size, WRITTEN) if number.term is None else number.term
            return reading[number] or made_of(values[number], leaf)

        return leaf

    def wanted(
        self, reading: Mapping[Attribute, Reading], values: Mapping[Attribute, int]
    ) -> Iterator[tuple[Attribute | Extent, Term]]:
        """What leaves of the number would have to be the sizes of for it to be true."""
        return wanted(self.number, self.term, self.known(reading, values), self.layout)

    def terms(self, reading: Mapping[Attribute, Reading]) -> list[Term]:
        """Everything whose size takes part in it."""
        known = (leaf.term if isinstance(leaf, Extent) else reading.get(leaf) for leaf in leaves(self.number))
        return [self.term, *(term for term in known if term is not None)]


Points = Sequence[Mapping[str, int]]


@dataclass
class Solution:
    """What the attributes of a network hold.

    Attributes:
        numbers: (module, attribute) -> the dimension whose size it is.
        ties: Pairs of terms that one number in the code holds, so that neither can be cut without the other.
        fixed: Axis -> why a number in the code keeps it from being cut.
        followed: The attributes that a size was computed from, whatever they hold.
    """

    numbers: Numbers = field(default_factory=dict)
    ties: list[Tie] = field(default_factory=list)
    fixed: dict[str, str] = field(default_factory=dict)
    followed: set[tuple[str, str]] = field(default_factory=set)


def solve(model: nn.Module, graph: ChannelGraph) -> Solution:
    """Find what each attribute holds that the code computed a size from."""
    generator = random.Random(0)
    points = [{name: generator.randint(2, 97) for name in graph.free} for _ in range(_POINTS)]
    values = {Attribute(*key): value for key, value in whole_numbers(model).items()}
    equations = list(
        dict.fromkeys(
            Equation(given.term, given.number, operator.where, tuple(itertools.chain(*operator.outputs)))
            for operator in graph.every_operator
            for given in operator.sizes
            if given.number is not None and not isinstance(given.number, int)
        )
    )
    solution = Solution()
    pieces: list[Tie] = []
    for group in _components(equations):
        attributes = list(dict.fromkeys(a for equation in group for a in equation.attributes()))
        candidates = _candidates({attribute: values[attribute] for attribute in attributes}, group, graph)
        reading, unsolved = _search(group, candidates, values, points)
        solution.numbers |= {(a.path, a.name): term for a, term in reading.items() if term is not None}
        solution.followed |= {(a.path, a.name) for a in attributes}
        for equation in unsolved:
            solution.ties += _ties(equation, reading, values, graph)
            pieces += _same_pieces(equation, reading, graph)
            for axis in (axis for term in equation.terms(reading) for axis in axes_of(term)):
                solution.fixed.setdefault(axis.name, f"{equation.where} holds a size that would not follow a cut")
    compared = _compared(values, graph)
    for key, terms in compared.items():
        first, *others = terms
        if not (others or key in solution.followed or key in graph.numbers) and _is_free(first, graph):
            solution.numbers[key] = first
    solution.numbers |= remade(model, solution.numbers)
    solution.followed |= solution.numbers.keys()
    solution.ties += _both(compared, {**graph.numbers, **solution.numbers}, graph)
    solution.ties = solution.ties or pieces  # what is simple may explain the rest
    solution.fixed = {name: reason for name, reason in solution.fixed.items() if name in graph.free}
    return solution


def _compared(values: Mapping[Attribute, int], graph: ChannelGraph) -> dict[tuple[str, str], dict[Term, str]]:
    """Attributes that the code finds to be a size (`assert x.shape[1] == self.channels`), with where it does."""
    found: dict[tuple[str, str], dict[Term, str]] = {}
    for branch in dict.fromkeys(branch for one in graph.passes if one.like is None for branch in one.branches):
        for extent, held in ((branch.left, branch.right), (branch.right, branch.left)):
            if (
                branch.sign in {"==", "!="}
                and isinstance(extent, Extent)
                and isinstance(held, Attribute)
                and extent.term is not None
                and values.get(held) == extent.size
            ):
                found.setdefault((held.path, held.name), {}).setdefault(extent.term, branch.where)
    return found


def _both(
    compared: Mapping[tuple[str, str], Mapping[Term, str]], numbers: Mapping[tuple[str, str], Term], graph: ChannelGraph
) -> list[Tie]:
    """What an attribute is the size of, with what else the code finds it to be the size of."""
    return [
        Tie(numbers[key], term, where)
        for key, terms in compared.items()
        if key in numbers
        for term, where in terms.items()
        if term != numbers[key] and size(term) == size(numbers[key])
        if _is_free(term, graph) or _is_free(numbers[key], graph)
    ]


def _is_free(term: Term, graph: ChannelGraph) -> bool:
    """Whether a part of it can be cut."""
    return any(map(graph.is_free, axes_of(term)))


def _components(equations: Sequence[Equation]) -> list[list[Equation]]:
    """Equations that share attributes, together."""
    group_of: dict[Attribute, list[Equation]] = {}
    groups: dict[int, list[Equation]] = {}
    for equation in equations:
        merged = [equation]
        for attribute in equation.attributes():
            other = group_of.get(attribute)
            if other is not None and groups.pop(id(other), None) is not None:
                merged = [*other, *merged]
        groups[id(merged)] = merged
        group_of |= {attribute: merged for member in merged for attribute in member.attributes()}
    return list(groups.values())


def _candidates(
    values: Mapping[Attribute, int], group: Sequence[Equation], graph: ChannelGraph
) -> dict[Attribute, list[Reading]]:
    """What each attribute may hold, the likeliest first.

    That is what rules know, what its bare uses say, what an expression wants it to be, parts of all that, or nothing.
    """
    found: dict[Attribute, dict[Term, None]] = {attribute: {} for attribute in values}

    def add(attribute: Attribute, term: Term) -> None:
        if size(term) == values[attribute] and any(graph.is_free(axis) for axis in axes_of(term)):
            found[attribute].setdefault(term)

    for attribute in values:
        if (known := graph.numbers.get((attribute.path, attribute.name))) is not None:
            add(attribute, known)
    for equation in group:
        if isinstance(equation.number, Attribute):
            add(equation.number, equation.term)
    for _ in range(_MOST_DEEP):
        first = {attribute: next(iter(terms), None) for attribute, terms in found.items()}
        for equation in group:
            for leaf, term in equation.wanted(first, values):
                if isinstance(leaf, Attribute):
                    add(leaf, term)
    for equation in group:
        terms = (inner for term in equation.terms({}) for inner in inside(term))
        for inner in (inner for inner in terms if any(map(graph.is_free, axes_of(inner)))):
            for attribute in equation.attributes():
                add(attribute, inner)
    return {attribute: [*terms, None] for attribute, terms in found.items()}


def _search(
    group: Sequence[Equation],
    candidates: Mapping[Attribute, Sequence[Reading]],
    values: Mapping[Attribute, int],
    points: Points,
) -> tuple[dict[Attribute, Reading], list[Equation]]:
    """The reading under which all equations hold, or else the one under which most do, and those that do not."""
    order = sorted(candidates, key=lambda attribute: len(candidates[attribute]))
    place = {attribute: index for index, attribute in enumerate(order)}
    ready: list[list[Equation]] = [[] for _ in range(len(order) + 1)]
    for equation in group:
        ready[max((place[attribute] + 1 for attribute in equation.attributes()), default=0)].append(equation)
    best: tuple[dict[Attribute, Reading], list[Equation]] = {}, list(group)
    steps = itertools.count()

    def descend(depth: int, reading: dict[Attribute, Reading], failed: list[Equation]) -> None:
        nonlocal best
        failed = failed + [e for e in ready[depth] if not e.holds(reading, values, points)]
        if len(failed) >= len(best[1]) and best[0].keys() == candidates.keys():
            return
        if depth == len(order):
            best = dict(reading), failed
            return
        for term in candidates[order[depth]]:
            if next(steps) > _MOST_STEPS:
                return
            descend(depth + 1, reading | {order[depth]: term}, failed)
            if best[0] and not best[1]:
                return

    descend(0, {}, [])
    return best


def _ties(
    equation: Equation, reading: Mapping[Attribute, Reading], values: Mapping[Attribute, int], graph: ChannelGraph
) -> list[Tie]:
    """Pairs of terms that an equation which does not hold wants to be equal."""
    known = equation.known(reading, values)
    if (term := made_of(equation.number, known)) is not None:
        return _named([(equation.term, term)], equation, graph)
    return _named([(known(leaf), term) for leaf, term in equation.wanted(reading, values)], equation, graph)


def _same_pieces(equation: Equation, reading: Mapping[Attribute, Reading], graph: ChannelGraph) -> list[Tie]:
    """Pairs of pieces of a concatenation that an equation measures by one number, as in `w[i * n : (i + 1) * n]`."""
    pieces = equation.term.parts if isinstance(equation.term, Concat) else ()
    known = [term for attribute in equation.attributes() if (term := reading[attribute]) is not None]
    return _named([(piece, term) for term in known for piece in pieces if piece != term], equation, graph)


def _named(pairs: Iterable[tuple[Reading, Reading]], equation: Equation, graph: ChannelGraph) -> list[Tie]:
    """Those of the pairs that can be tied: of one size, and not both of plain numbers."""
    return [
        Tie(one, other, equation.where)
        for one, other in pairs
        if one is not None
        and other is not None
        and size(one) == size(other)
        and any(axis.name in graph.axes for term in (one, other) for axis in axes_of(term))
    ]
