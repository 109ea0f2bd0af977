"""The budget: an upper bound on a cost, and the plan that keeps the most important channels within it."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metaprune.cost.closed_form import ClosedForm, macs_form, params_form
from metaprune.graph.errors import BudgetError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.term import Concat, Product, Term, size

__all__ = ["Allocation", "Budget"]

FLOOR = 0.1
"""No axis is cut below this share of its channels."""

_CLOSE = 0.005
"""A plan closer to its budget than this share of the dense cost is not improved further."""

_FEW = 200_000
"""Up to so many combinations of widths, all are tried."""

_FEW_AXES = 24
"""With more axes than this, widths are changed in pairs only."""

_DRAWS = 1000
"""So many changes of all widths at once are drawn where changes of a few come no nearer."""


@dataclass(frozen=True)
class Budget:
    """An upper bound on one cost.

    A number up to 1 is the share that **stays** (0.5: half stays); a whole number above 1 is absolute.

    Attributes:
        macs: Multiply-accumulates of one example.
        params: Number of parameters.
        latency: Milliseconds, measured on the device and batch the network is pruned for (always absolute).
        multiple_of: Widths are multiples of this, as hardware likes them; 1 leaves them free.
    """

    macs: float | None = None
    params: float | None = None
    latency: float | None = None
    multiple_of: int = 8

    def __post_init__(self) -> None:
        given = {name: value for name in ("macs", "params", "latency") if (value := getattr(self, name)) is not None}
        if len(given) != 1:
            raise BudgetError(f"budget: expected exactly one of macs, params, latency, got {list(given) or 'none'}")
        [(name, value)] = given.items()
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value <= 0:
            raise BudgetError(f"budget: expected {name} above 0, got {value!r}; 0.5 keeps half of it")
        if name != "latency" and value > 1 and value != int(value):
            raise BudgetError(f"budget: expected {name} as a share up to 1 or a whole number, got {value!r}")
        if type(self.multiple_of) is not int or self.multiple_of < 1:
            raise BudgetError(f"budget: expected multiple_of as a whole number from 1, got {self.multiple_of!r}")

    @property
    def cost(self) -> str:
        """Which cost is bounded: "macs", "params" or "latency"."""
        return next(name for name in ("macs", "params", "latency") if getattr(self, name) is not None)

    @property
    def value(self) -> float:
        """The bound as it was given."""
        return float(getattr(self, self.cost))

    def __str__(self) -> str:
        unit = {"macs": "MACs", "params": "parameters", "latency": "ms"}[self.cost]
        if self.cost == "latency":
            return f"{self.value:g} ms"
        return f"{self.value:.3g} of the {unit}" if self.value <= 1 else f"{self.value:,.0f} {unit}"


class Allocation:
    """Plans for one graph within one budget.

    Attributes:
        graph: The channel graph.
        limit: The largest cost allowed, absolute.
        sizes: For each free axis, its channels.
        steps: For each free axis, the step in which its width may change.
        least: For each free axis, its smallest width.
    """

    def __init__(self, graph: ChannelGraph, budget: Budget) -> None:
        """Check that the budget can be met.

        Raises:
            BudgetError: It cannot; the error names the smallest that can. Or it bounds latency, which must be
                translated first.
        """
        if budget.cost == "latency":
            raise BudgetError("allocation: a latency is measured, not computed; give macs or params")
        self.graph = graph
        self.budget = budget
        self.form: ClosedForm = {"macs": macs_form, "params": params_form}[budget.cost](graph)
        self.dense = self.form.at({})
        self.limit = math.floor(budget.value * self.dense) if budget.value <= 1 else int(budget.value)
        self.sizes = {name: axis.size for name, axis in graph.free.items()}
        self.steps = alignment(graph, budget.multiple_of)
        self.least = {
            name: min(axis.size, _up(max(1, math.ceil(FLOOR * axis.size)), self.steps[name]))
            for name, axis in graph.free.items()
        }
        smallest = self.form.at(self.least)
        if self.limit < smallest:
            finer = "" if budget.multiple_of == 1 else ", or allow finer widths with a smaller multiple_of"
            share = math.ceil(1e4 * smallest / self.dense) / 1e4
            raise BudgetError(
                f"budget: {budget} cannot be met; the smallest possible is {share:.4f} "
                f"({smallest:,} of {self.dense:,} {budget.cost}, widths in multiples of {budget.multiple_of}); "
                f"ask for at least that{finer}"
            )

    def plan(self, scores: Mapping[str, Tensor], limit: float | None = None) -> Plan:
        """Keep the channels with the highest scores, over all axes together, within the budget.

        Channels leave in blocks of their axis's step, the block with the smallest mean score first, until the budget is
        met; then blocks that still fit come back, the best first, and exchanges close what is left of the gap.

        Args:
            scores: For each free axis, one score per channel, comparable between axes: shape (size,). A channel of
                score -inf never stays.
            limit: Another bound on the cost, absolute, not below the smallest possible; for steps on the way to the
                budget, which need not use it up.

        Returns:
            A plan that costs at most the bound, and as little less as the steps of the widths allow.
        """
        bound = self.limit if limit is None else limit
        order = {name: torch.argsort(scores[name].double().cpu(), stable=True) for name in self.sizes}
        blocks = [block for name in order for block in self._blocks(name, scores[name].double().cpu()[order[name]])]
        blocks.sort(key=lambda block: block.score)
        widest = self.sizes | {block.axis: block.width for block in blocks if block.score == -math.inf}
        blocks = [block for block in blocks if block.score > -math.inf]

        def without(count: int) -> dict[str, int]:
            return widest | {block.axis: block.width for block in blocks[:count]}

        gone = bisect.bisect_left(range(len(blocks)), -bound, key=lambda count: -self.form.at(without(count)))
        ladders = {name: [width] for name, width in widest.items()}
        for block in blocks:
            ladders[block.axis].append(block.width)
        widths = without(gone)
        for block in reversed(blocks[:gone]):
            wider = widths | {block.axis: _wider(ladders[block.axis], widths[block.axis])}
            widths = wider if self.form.at(wider) <= bound else widths
        if limit is None and gone:
            threshold = blocks[gone - 1].score
            spread = {name: (scores[name].double().cpu()[order[name]].flip(0) - threshold).abs() for name in order}
            widths = self._close(widths, ladders, {n: [0.0, *s.cumsum(0).tolist()] for n, s in spread.items()})
        kept = {name: sorted(order[name][-width:].tolist()) for name, width in widths.items()}
        return Plan({name: stays for name, stays in kept.items() if len(stays) < self.sizes[name]})

    def prices(self, widths: Mapping[str, int]) -> dict[str, float]:
        """What one channel of each free axis costs at the given widths: dF/dn, as a share of the dense cost F."""
        point = torch.tensor([float(widths.get(axis, self.sizes[axis])) for axis in self.form.axes], requires_grad=True)
        with torch.enable_grad():
            slopes = torch.autograd.grad(self.form(point), point)[0] / self.dense
        return dict(zip(self.form.axes, slopes.tolist(), strict=True))

    def _blocks(self, name: str, ascending: Tensor) -> list[_Block]:
        """The blocks in which the channels of an axis may leave, the least important first."""
        size, step, least = self.sizes[name], self.steps[name], self.least[name]
        widths = sorted({*range(least, size, step), size}, reverse=True)
        scores = [float(ascending[size - wide : size - narrow].mean()) for wide, narrow in itertools.pairwise(widths)]
        return [_Block(score, name, narrow) for score, narrow in zip(scores, widths[1:], strict=True)]

    def _close(
        self, widths: dict[str, int], ladders: dict[str, list[int]], spread: Mapping[str, list[float]]
    ) -> dict[str, int]:
        """Bring the cost near to the limit, leaving the ranking as little as possible.

        What it costs to leave the ranking: the scores of the channels that change sides, as distances from the
        threshold. All combinations of widths are tried where they are few. Else changes of up to three axes by a step,
        again and again; where those come no nearer (a head, or a trunk beside slim layers, may cost more than three
        other steps make up for), changes of all axes by up to two steps are drawn, the same each time, and one axis
        after the other goes as far as the limit then allows.

        Args:
            widths: What the ranking gave.
            ladders: For each axis, its possible widths, the widest first.
            spread: For each axis and number of channels, the summed distance of their scores from the threshold.
        """
        names = list(self.form.axes)
        start = torch.tensor([ladders[name].index(widths[name]) for name in names])
        longest = max(len(ladders[name]) for name in names)
        table = torch.tensor([ladders[name] + ladders[name][-1:] * (longest - len(ladders[name])) for name in names])
        price = torch.tensor(
            [[abs(spread[n][int(w)] - spread[n][widths[n]]) for w in row] for n, row in zip(names, table, strict=True)]
        )
        rungs = torch.tensor([len(ladders[name]) for name in names])
        axes = torch.arange(len(names))
        near = _CLOSE * self.dense

        def gaps(places: Tensor) -> Tensor:
            return self.limit - self.form.many(table[axes, places])

        def combinations(start: Tensor) -> Tensor:
            return torch.cartesian_prod(*(torch.arange(int(count)) for count in rungs)).reshape(-1, len(start))

        def moves(start: Tensor) -> Tensor:
            places = start + _moves(len(start))
            return places[((places >= 0) & (places < rungs)).all(1)]

        def draws(start: Tensor) -> Tensor:
            steps = torch.randint(-2, 3, (_DRAWS, len(start)), generator=torch.Generator().manual_seed(0))
            places = (start + steps).clamp(min=0).minimum(rungs - 1)
            return torch.cat([_widest(places, axis, int(rungs[axis]) - 1, gaps) for axis in range(len(start))])

        few = math.prod(rungs.tolist()) <= _FEW
        untried = [combinations] if few else [moves, draws]
        closest = gaps(start[None])[0]
        while untried:
            places = untried.pop(0)(start)
            left = gaps(places)
            inside = (left >= 0) & (left <= near)
            if inside.any():
                start = places[inside][price[axes, places[inside]].sum(1).argmin()]
                break
            left = torch.where(left >= 0, left, self.dense)
            if left.min() < closest:
                start, closest = places[left.argmin()], left.min()
                untried = [] if few else [moves, draws]
        return dict(zip(names, table[axes, start].tolist(), strict=True))


def _widest(places: Tensor, axis: int, last: int, gaps: Callable[[Tensor], Tensor]) -> Tensor:
    """The places with one axis as wide as the limit then allows, or at its narrowest where nothing fits.

    Args:
        places: Steps down from the widest, shape (candidates, axes).
        axis: Which axis may go anywhere.
        last: Its narrowest place.
        gaps: Of places, how far below the limit they are: shape (candidates,).
    """
    places = places.clone()
    low, high = torch.zeros(len(places), dtype=torch.int64), torch.full((len(places),), last)
    while (low < high).any():
        places[:, axis] = (low + high) // 2
        fits = gaps(places) >= 0
        low = torch.where(fits, low, (places[:, axis] + 1).minimum(high))
        high = torch.where(fits, places[:, axis], high)
    places[:, axis] = low
    return places


def _moves(axes: int) -> Tensor:
    """Changes of no, one, two or (where axes are few) three axes by a step up or down: shape (moves, axes)."""
    single = torch.cat([torch.eye(axes, dtype=torch.int64), -torch.eye(axes, dtype=torch.int64)])
    moves = torch.cat([torch.zeros(1, axes, dtype=torch.int64), single])
    for _ in range(2 if axes <= _FEW_AXES else 1):
        moves = (moves[:, None] + single).reshape(-1, axes)
        moves = moves[(moves.abs() <= 1).all(1)].unique(dim=0)  # type: ignore[no-untyped-call]
    return moves


@dataclass(frozen=True)
class _Block:
    """Channels that leave together, and the width that is left."""

    score: float
    axis: str
    width: int


def _wider(ladder: list[int], width: int) -> int:
    """The next wider width of an axis, or the same where there is none."""
    return ladder[max(ladder.index(width) - 1, 0)]


def alignment(graph: ChannelGraph, multiple_of: int) -> dict[str, int]:
    """For each free axis, the step of its width such that every tensor dimension stays a multiple of `multiple_of`.

    The fastest-running factor of a product is aligned itself; the factors before it then need less.
    """
    steps = dict.fromkeys(graph.free, 1)

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

    for dims in graph.tensors.values():
        for dim in dims:
            visit(dim, 1)
    return steps


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
