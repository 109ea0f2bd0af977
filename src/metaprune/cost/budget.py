"""The budget: upper bounds on costs, and the plan that keeps the most important channels within them."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from metaprune.cost.bound import Bound
from metaprune.cost.exchange import close
from metaprune.cost.lanes import Lane, lanes
from metaprune.cost.latency_form import LatencyForm
from metaprune.cost.soft import Softness
from metaprune.graph.arguments import is_number
from metaprune.graph.errors import BudgetError, MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.rehearsal import on_the_cpu

__all__ = ["MULTIPLE", "TIMED", "Allocation", "Budget"]

MULTIPLE = 8
"""What widths are multiples of, unless somebody says or a clock knows better."""

TIMED = ("latency", "speedup")
"""Bounds on time."""

_FIRST, _AHEAD = 4, 256
"""So many blocks are tried at once when blocks come back: few after one that fits, then more and more."""

_CLOSE = 0.005
"""A plan closer to its budget than this share of the dense cost is not improved further."""


@dataclass(frozen=True)
class Budget:
    """Upper bounds on costs: every one that is given holds.

    A number up to 1 is the share that **stays** (0.5: half stays); a whole number above 1 is absolute.

    Attributes:
        macs: Multiply-accumulates of one example.
        params: Number of parameters.
        latency: Milliseconds of a batch, on a clock (always absolute).
        multiple_of: Widths are multiples of this, as hardware likes them; 1 leaves them free. By default 8; where time
            is bounded, what the clock likes best.
        speedup: How many times as fast as the dense network, on the same clock.
        form: The time as a function of the widths, where it is known: `on` gives a budget its own.
    """

    macs: float | None = None
    params: float | None = None
    latency: float | None = None
    multiple_of: int | None = None
    speedup: float | None = None
    form: LatencyForm | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.bounds:
            raise BudgetError("budget: expected macs, params, latency or speedup, got none; macs=0.5 keeps half")
        for name, value in self.bounds.items():
            self._check(name, value)
        if self.multiple_of is None and not self.is_timed:
            object.__setattr__(self, "multiple_of", MULTIPLE)
        if self.multiple_of is not None and (type(self.multiple_of) is not int or self.multiple_of < 1):
            raise BudgetError(f"budget: expected multiple_of as a whole number from 1, got {self.multiple_of!r}")

    @staticmethod
    def _check(name: str, value: float) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value <= 0:
            raise BudgetError(f"budget: expected {name} above 0, got {value!r}; 0.5 keeps half of it")
        if name == "speedup" and value < 1:
            raise BudgetError(f"budget: expected speedup from 1, got {value!r}; 2 is twice as fast")
        if name not in TIMED and value > 1 and value != int(value):
            raise BudgetError(f"budget: expected {name} as a share up to 1 or a whole number, got {value!r}")

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that are given, by the cost: "macs", "params", "latency", "speedup"."""
        given = {name: getattr(self, name) for name in ("macs", "params", *TIMED)}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def is_timed(self) -> bool:
        """Whether it bounds time, which is measured before it can be computed."""
        return self.latency is not None or self.speedup is not None

    @property
    def step(self) -> int:
        """What widths are multiples of."""
        return MULTIPLE if self.multiple_of is None else self.multiple_of

    def on(self, form: LatencyForm) -> Budget:
        """The same budget, with the time as a function of the widths."""
        return replace(self, form=form)

    @property
    def cost(self) -> str:
        """Which cost the first bound is on."""
        return next(iter(self.bounds))

    @property
    def value(self) -> float:
        """The first bound as it was given."""
        return float(self.bounds[self.cost])

    def __str__(self) -> str:
        return " and ".join(_said(name, value) for name, value in self.bounds.items())


def _said(name: str, value: float) -> str:
    if name == "speedup":
        return f"{value:g} times the speed"
    if name == "latency":
        return f"{value:g} ms"
    unit = {"macs": "MACs", "params": "parameters"}[name]
    return f"{value:.3g} of the {unit}" if value <= 1 else f"{value:,.0f} {unit}"


class Allocation:
    """Plans for one graph within one budget and the graph's limits.

    Attributes:
        graph: The channel graph.
        budget: What was asked for.
        bounds: Every bound that must hold.
        form: The cost of the first bound.
        dense: The whole network's, of that cost.
        limit: The largest allowed of it, absolute.
        lanes: Free axes of which the same share stays, by the name of the first: one axis each, but for limits.
        sizes: For each free axis, its channels.
        steps: For each free axis, the step in which its width may change.
        least: For each free axis, its smallest width.
    """

    @on_the_cpu()
    def __init__(self, graph: ChannelGraph, budget: Budget) -> None:
        """Check that the budget can be met.

        Raises:
            BudgetError: It cannot; the error names the smallest that can, and what is in the way. Or it bounds
                latency, which must be translated first.
        """
        if budget.is_timed and budget.form is None:
            raise BudgetError(
                "allocation: a latency is measured, not computed; give macs or params, or a clock to whoever plans"
            )
        self.graph = graph
        self.budget = budget
        self.bounds = tuple(Bound.of(graph, cost, value, budget.form) for cost, value in budget.bounds.items())
        self.lanes = lanes(graph, budget.step)
        self.sizes = {name: axis.size for name, axis in graph.free.items()}
        self.steps = self._axes({name: lane.step for name, lane in self.lanes.items()})
        self.least = self._axes({name: lane.least for name, lane in self.lanes.items()})
        self.bounds = tuple(bound.within(bound.form.at(self.least)) for bound in self.bounds)
        self.form, self.dense, self.limit = self.bounds[0].form, self.bounds[0].dense, self.bounds[0].limit
        for bound in self.bounds:
            smallest = bound.form.at(self.least)
            if bound.limit < smallest:
                finer = "" if budget.step == 1 else ", or allow finer widths with a smaller multiple_of"
                raise BudgetError(
                    f"budget: {budget} cannot be met; the smallest possible is {bound.said(smallest)}, "
                    f"widths in multiples of {budget.step}; "
                    f"{bound.obstacle(graph, self.least)}); ask for at least that{finer}"
                )

    @on_the_cpu()
    def plan(self, scores: Mapping[str, Tensor], limit: float | None = None) -> Plan:
        """Keep the channels with the highest scores, over all axes together, within the budget.

        Channels leave in blocks of their lane's step, the block with the smallest mean score first, until the budget is
        met; then blocks that still fit come back, the best first, and exchanges close what is left of the gap.

        Args:
            scores: For each free axis, one score per channel, comparable between axes: shape (size,). A channel of
                score -inf never stays.
            limit: Another limit on the first bound's cost, absolute, not below the smallest possible; for steps on the
                way to the budget, which need not use it up. Other bounds then are as far from their ends.

        Returns:
            A plan that costs at most the bounds, and as little less as the steps of the widths allow.
        """
        allowed = self._allowed(limit)
        order, ascending = self._ranked(scores)
        blocks = sorted(
            (block for name, lane in self.lanes.items() for block in _blocks(name, lane, ascending)),
            key=lambda block: block.score,
        )
        widest = {name: lane.most for name, lane in self.lanes.items()}
        widest |= {block.lane: block.width for block in blocks if block.score == -math.inf}
        blocks = [block for block in blocks if block.score > -math.inf]

        def without(count: int) -> dict[str, int]:
            return widest | {block.lane: block.width for block in blocks[:count]}

        gone = bisect.bisect_left(range(len(blocks)), True, key=lambda count: self._fits(without(count), allowed))
        ladders = {name: [width] for name, width in widest.items()}
        for block in blocks:
            ladders[block.lane].append(block.width)
        widths = without(gone)
        widths = self._back(widths, [block.lane for block in reversed(blocks[:gone])], ladders, allowed)
        if limit is None and gone:
            widths = close(
                widths,
                ladders,
                {name: _spread(lane, ascending, blocks[gone - 1].score) for name, lane in self.lanes.items()},
                self._left,
                _CLOSE * self.dense,
                self.dense,
            )
        return self._kept(order, widths)

    @on_the_cpu()
    def soft(
        self,
        scores: Mapping[str, Tensor],
        sharpness: float,
        limit: float | None = None,
        towards: tuple[Plan, float] | None = None,
    ) -> dict[str, Tensor]:
        """Masks between 0 and 1 whose widths, their sums, cost what the budget allows, to rounding.

        A mask is sigmoid(sharpness (score - t)), with one threshold t over all axes together. Widths are no smaller and
        no larger than lanes allow; channels of a block of a lane's step, the best first, share a mask. Gradients
        are those of the implicit function (`cost/soft.py`); where all of the network fits, masks are 1.

        Args:
            scores: For each free axis, one score per channel, comparable between axes: shape (size,), finite.
            sharpness: How fast a mask goes from 0 to 1 around the threshold, per unit of score; above 0.
            limit: As for `plan`.
            towards: A plan within the budget, and how far the masks are moved to its 0 and 1, from 0 to 1. What they
                cost moves as far, from what the budget allows to what the plan costs.

        Returns:
            For each free axis a tensor of shape (size,), of its scores' dtype and device.
        """
        allowed = self._allowed(limit)
        if towards is not None:
            plan, share = towards
            widths = self.sizes | plan.widths
            costs = [bound.form.at(widths) for bound in self.bounds]
            allowed = tuple((1 - share) * most + share * cost for most, cost in zip(allowed, costs, strict=True))
        return self._softness.masks(scores, sharpness, allowed, towards)

    @cached_property
    def _softness(self) -> Softness:
        return Softness(self.lanes, self.bounds)

    @on_the_cpu()
    def proportional(
        self, scores: Mapping[str, Tensor], ratios: Mapping[str, float] | None = None, *, spend: bool = False
    ) -> Plan:
        """The same share of every axis, or shares in proportion to given ones, as large as the budget allows.

        Args:
            scores: For each free axis, which of its channels stay: those with the highest; shape (size,).
            ratios: For each free axis, its share relative to the others', from 0: then it gets its smallest width. By
                default all are equal; axes of one width have the mean of theirs.
            spend: Whether axes may be a step wider than their share, those first whose share is nearest to it, to use
                up what the steps of the widths leave of the budget.

        Raises:
            BudgetError: An axis has no ratio, or one that is no number from 0.

        Returns:
            A plan within the bounds. Nothing is exchanged to use up the rest.
        """
        weight = {name: 1.0 if ratios is None else self._ratio(ratios, lane) for name, lane in self.lanes.items()}
        shares = sorted(
            {
                (wide + narrow) / (2 * lane.size * weight[name])
                for name, lane in self.lanes.items()
                if weight[name] > 0
                for wide, narrow in itertools.pairwise([*lane.widths, 0])
            }
        )

        def widths(place: int) -> dict[str, int]:
            """Between two places where a width changes."""
            share = (shares[place - 1] + shares[place]) / 2 if 0 < place < len(shares) else [0.0, math.inf][place > 0]
            return {
                name: lane.nearest(min(1.0, share * weight[name]) if weight[name] > 0 else 0.0)
                for name, lane in self.lanes.items()
            }

        allowed = self._allowed(None)
        too_many = bisect.bisect_left(
            range(len(shares) + 1), True, key=lambda place: not self._fits(widths(place), allowed)
        )
        found = widths(max(too_many - 1, 0))
        if spend:
            wider = {name: _wider(lane.widths, found[name]) for name, lane in self.lanes.items() if weight[name] > 0}
            for name in sorted(wider, key=lambda n: (found[n] + wider[n]) / (self.lanes[n].size * weight[n])):
                if self._fits(more := {**found, name: wider[name]}, allowed):
                    found = more
        return self._kept(self._ranked(scores)[0], found)

    @on_the_cpu()
    def nearest(
        self, ratios: Mapping[str, float], scores: Mapping[str, Tensor] | None = None, *, spend: bool = True
    ) -> Plan:
        """The plan within the budget that is nearest to given ratios: a projection, which leaves what it gave alone.

        Ratios that the budget does not allow shrink together, and so do those that leave much of it grow, until it is
        used up to the steps of the widths; then exchanges close what is left of the gap, as in `plan`.

        Args:
            ratios: For each free axis the share of its channels that should stay.
            scores: For each free axis, which of its channels stay: those with the highest; shape (size,). By default
                the first ones, so that narrower widths lie inside wider ones.
            spend: Whether ratios may grow; else what is within the budget stays as it is.

        Raises:
            BudgetError: An axis has no ratio, or one that is no number from 0.
        """
        shares = {name: max(self._ratio(ratios, lane), 1e-6) for name, lane in self.lanes.items()}
        widths = {name: lane.nearest(shares[name]) for name, lane in self.lanes.items()}
        if not self._fits(widths, self._allowed(None)) or (spend and not self._used_up(widths)):
            falling = {
                axis: shares[name] * self.sizes[axis] / torch.arange(1, self.sizes[axis] + 1, dtype=torch.float64)
                for name, lane in self.lanes.items()
                for axis in lane.axes
            }  # 1 at the width that the ratio asks for
            widths = self.units(self.plan(falling).widths)
        return self._kept(
            {name: torch.arange(size).flip(0) for name, size in self.sizes.items()}
            if scores is None
            else self._ranked(scores)[0],
            widths,
        )

    def units(self, widths: Mapping[str, int]) -> dict[str, int]:
        """The widths of lanes from those of axes; an axis that is not named is whole."""
        return {
            name: widths.get(name, self.sizes[name]) // lane.each[lane.axes.index(name)]
            for name, lane in self.lanes.items()
        }

    def _ratio(self, ratios: Mapping[str, float], lane: Lane) -> float:
        """The mean ratio of the axes of a lane.

        Raises:
            BudgetError: One has none, or one that is no number from 0.
        """
        for name in lane.axes:
            ratio = ratios.get(name, -1)
            if not (is_number(ratio) and 0 <= ratio < math.inf):
                got = repr(ratio) if name in ratios else "none"
                raise BudgetError(f"allocation: expected a ratio from 0 for each free axis, got {got} for {name!r}")
        return sum(float(ratios[name]) for name in lane.axes) / len(lane.axes)

    @on_the_cpu()
    def left_unspent(self, plan: Plan) -> float:
        """How much of the budget a plan leaves, as a share of the dense cost, of the bound that is nearest."""
        return min((bound.limit - bound.form.at(plan.widths)) / bound.dense for bound in self.bounds)

    def check(self, plan: Plan, who: str) -> None:
        """Check that a plan fits the graph, keeps every bound and obeys the limits.

        Raises:
            PlanError: It does not fit the graph.
            BudgetError: It costs more than a bound, or breaks a limit.
        """
        plan.check(self.graph)
        widths = plan.widths
        for bound in self.bounds:
            if (cost := bound.form.at(widths)) > bound.limit:
                raise BudgetError(
                    f"budget: expected a plan of {who} within {self.budget}, got "
                    f"{bound.said(cost)}); this is a fault of the method"
                )
        limits = self.graph.limits
        for name, size in self.sizes.items():
            width = widths.get(name, size)
            if not limits.least.get(name, 0) <= width <= limits.most.get(name, size):
                raise BudgetError(
                    f"limits: expected a plan of {who} that obeys {limits.said[name]}, got {width} of {size} channels "
                    f"of {name}; this is a fault of the method"
                )
        for group in (*limits.alike, *limits.alike_channels):
            free = [name for name in group if name in self.sizes]
            kept = {plan.kept.get(name, tuple(range(self.sizes[name]))) for name in free}
            if len({len(stays) for stays in kept}) > 1 or (group in limits.alike_channels and len(kept) > 1):
                raise BudgetError(
                    f"limits: expected a plan of {who} that makes {', '.join(free)} alike, got widths "
                    f"{[widths.get(name, self.sizes[name]) for name in free]}; this is a fault of the method"
                )
        for group in limits.together:
            free = [name for name in group if name in self.sizes]
            if len({Fraction(widths.get(name, self.sizes[name]), self.sizes[name]) for name in free}) > 1:
                raise BudgetError(
                    f"limits: expected a plan of {who} that leaves the same share of {', '.join(free)}, got widths "
                    f"{[widths.get(name, self.sizes[name]) for name in free]}; this is a fault of the method"
                )

    @on_the_cpu()
    def prices(self, widths: Mapping[str, int]) -> dict[str, float]:
        """What one channel of each free axis costs at the given widths: dF/dn, as a share of the dense cost F.

        Of several bounds, the mean.
        """
        point = torch.tensor([float(widths.get(axis, self.sizes[axis])) for axis in self.form.axes])
        slopes = torch.zeros(len(point), dtype=torch.float64)
        for bound in self.bounds:
            slopes = slopes + bound.form.slopes(point) / bound.dense
        return dict(zip(self.form.axes, (slopes / len(self.bounds)).tolist(), strict=True))

    def elasticities(self, widths: Mapping[str, int]) -> dict[str, float]:
        """By how much the cost F grows where a free axis is widened at the given widths: d log F / d log n.

        Of several bounds, the mean; 0 where an axis costs nothing, or less the wider it is.
        """
        whole = {axis: widths.get(axis, self.sizes[axis]) for axis in self.form.axes}
        point = torch.tensor(list(whole.values()), dtype=torch.float64)
        grows = torch.zeros(len(point), dtype=torch.float64)
        for bound in self.bounds:
            grows = grows + bound.form.slopes(point) * point / bound.form.at(whole)
        return dict(zip(self.form.axes, (grows / len(self.bounds)).clamp(min=0).tolist(), strict=True))

    def _allowed(self, limit: float | None) -> tuple[float, ...]:
        """What each bound allows where the first allows `limit`."""
        if limit is None:
            return tuple(bound.limit for bound in self.bounds)
        done = (self.dense - limit) / max(self.dense - self.limit, 1)
        others = (bound.dense - done * (bound.dense - bound.limit) for bound in self.bounds[1:])
        return (limit, *others)

    def _fits(self, widths: Mapping[str, int], allowed: Sequence[float]) -> bool:
        """Whether lanes of these widths are within every bound."""
        axes = self._axes(widths)
        return all(bound.form.at(axes) <= most for bound, most in zip(self.bounds, allowed, strict=True))

    def _used_up(self, widths: Mapping[str, int]) -> bool:
        """Whether lanes of these widths, which fit, are near to the budget, or none of them may take a step more."""
        allowed = self._allowed(None)
        return float(self._left(torch.tensor([list(widths.values())]))) <= _CLOSE * self.dense or not any(
            self._fits({**widths, name: _wider(lane.widths, widths[name])}, allowed)
            for name, lane in self.lanes.items()
            if widths[name] < lane.most
        )

    def _back(
        self,
        widths: Mapping[str, int],
        order: Sequence[str],
        ladders: Mapping[str, list[int]],
        allowed: Sequence[float],
    ) -> dict[str, int]:
        """Widths with a step more for each lane of an order, one after the other, where it then still fits."""
        widths, names, done, count = dict(widths), list(self.lanes), 0, _FIRST
        place = {name: column for column, name in enumerate(names)}
        while done < len(order):
            ahead = order[done : done + count]
            rows = torch.tensor([[widths[name] for name in names]]).repeat(len(ahead), 1)
            steps = torch.tensor([_wider(ladders[name], widths[name]) for name in ahead])
            rows[torch.arange(len(ahead)), torch.tensor([place[name] for name in ahead])] = steps
            axes = self._columns(rows)
            fits = torch.ones(len(ahead), dtype=torch.bool)
            for bound, most in zip(self.bounds, allowed, strict=True):
                fits &= bound.form.many(axes) <= most
            first = int(fits.int().argmax()) if fits.any() else len(ahead)
            if first < len(ahead):
                widths[ahead[first]] = int(steps[first])
            done += first + 1 if first < len(ahead) else first
            count = _FIRST if first < len(ahead) else min(4 * count, _AHEAD)
        return widths

    def _columns(self, widths: Tensor) -> Tensor:
        """Widths of axes, in the order of the form, from those of lanes: both of shape (candidates, …)."""
        place = {name: column for column, lane in enumerate(self.lanes.values()) for name in lane.axes}
        each = {axis: unit for lane in self.lanes.values() for axis, unit in lane.channels(1).items()}
        found = widths[:, [place[name] for name in self.form.axes]]
        return found * torch.tensor([each[name] for name in self.form.axes], dtype=widths.dtype)

    def _left(self, widths: Tensor) -> Tensor:
        """How far below the nearest bound lanes of these widths are, in units of the first bound's cost."""
        axes = self._columns(widths)
        left = self.limit - self.form.many(axes)
        for bound in self.bounds[1:]:
            left = torch.minimum(left.double(), (bound.limit - bound.form.many(axes)) * (self.dense / bound.dense))
        return left

    def _axes(self, widths: Mapping[str, int]) -> dict[str, int]:
        """The widths of axes from those of lanes."""
        return {axis: width for name, lane in self.lanes.items() for axis, width in lane.channels(widths[name]).items()}

    def _ranked(self, scores: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """For each free axis the order of its channels, the least important first, and their scores in that order."""
        plain = {name: scores[name].cpu().double() for name in self.sizes}
        for name, score in plain.items():
            if score.isnan().any():
                raise MetapruneError(
                    f"budget: expected numbers as the scores of {name}, got NaN: a weight, a loss or a gradient was "
                    "not finite; check the network's weights and data, or lower the learning rate"
                )
        for lane in self.lanes.values():
            for unit in set(lane.each) if lane.same else ():
                axes = [axis for axis, its in zip(lane.axes, lane.each, strict=True) if its == unit]
                plain |= dict.fromkeys(axes, torch.stack([plain[axis] for axis in axes]).mean(0))
        order = {name: torch.argsort(score, stable=True) for name, score in plain.items()}
        return order, {name: score[order[name]] for name, score in plain.items()}

    def _kept(self, order: Mapping[str, Tensor], widths: Mapping[str, int]) -> Plan:
        """The plan that keeps the last of each order."""
        axes = self._axes(widths)
        kept = {name: sorted(order[name][-axes[name] :].tolist()) for name in self.sizes}
        return Plan({name: stays for name, stays in kept.items() if len(stays) < self.sizes[name]})


@dataclass(frozen=True)
class _Block:
    """Channels that leave together, and the width that is left."""

    score: float
    lane: str
    width: int


def _blocks(name: str, lane: Lane, ascending: Mapping[str, Tensor]) -> list[_Block]:
    """The blocks in which the channels of a lane may leave, the least important first."""

    def score(wide: int, narrow: int) -> float:
        means = [
            float(ascending[axis][(lane.size - wide) * unit : (lane.size - narrow) * unit].mean())
            for axis, unit in zip(lane.axes, lane.each, strict=True)
        ]
        return sum(means) / len(means)

    return [_Block(score(wide, narrow), name, narrow) for wide, narrow in itertools.pairwise(lane.widths)]


def _spread(lane: Lane, ascending: Mapping[str, Tensor], threshold: float) -> list[float]:
    """For each number of units, the summed distance of the scores of the best of their channels from the threshold."""
    distances = sum((ascending[axis].flip(0) - threshold).abs().reshape(lane.size, -1).sum(1) for axis in lane.axes)
    assert isinstance(distances, Tensor)
    return [0.0, *distances.cumsum(0).tolist()]


def _wider(ladder: list[int], width: int) -> int:
    """The next wider width of a lane, or the same where there is none."""
    return ladder[max(ladder.index(width) - 1, 0)]
