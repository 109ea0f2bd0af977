"""Soft widths: for each channel a number between 0 and 1, such that together they cost exactly what a budget allows.

m_c = sigmoid(sharpness (s_c - t)) with one threshold t for all axes: the plan of entropic transport between scores and
a target that is kept or gone, of which a channel's mass is its cost. As the sharpness grows, m becomes a plan's.

Where widths go in steps, whole blocks of channels have one score, their mean, and so compete; what a block is given is
then shared out among its channels in the same way, by a threshold of the block's own. So the cost stays what it was,
and a sharp mask is 0 or 1 but for one channel, which pays the budget's last digit. A plan has whole blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from metaprune.cost.bound import Bound
from metaprune.cost.lanes import Lane
from metaprune.graph.plan import Plan

__all__ = ["Softness"]

_FAR = 40.0
"""sigmoid(40) is 1 in float64."""

_EXACT = 1e-13
"""How near to a target, as a share of it, a root must come."""

_SHUT = 1e-9
"""A mask so near to 0 or 1 is not shared out."""

Flat = Float[Tensor, " channels"]


class Softness:
    """Masks within bounds, for lanes: channels of all their axes lie one after the other in one vector.

    Args:
        lanes: Free axes of which the same share stays, by the name of the first.
        bounds: What must hold.
    """

    def __init__(self, lanes: Mapping[str, Lane], bounds: Sequence[Bound]) -> None:
        self.lanes = tuple(lanes.values())
        self.bounds = tuple(bounds)
        self.axes = [axis for lane in self.lanes for axis in lane.axes]
        self.sizes = [lane.size * unit for lane in self.lanes for unit in lane.each]
        self.counts = [lane.size * sum(lane.each) for lane in self.lanes]
        counts = torch.tensor(self.counts, dtype=torch.int64, device="cpu")
        self.lane = torch.repeat_interleave(torch.arange(len(self.lanes), device="cpu"), counts)
        self.alike = _column([sum(lane.each) for lane in self.lanes])  # channels of a unit
        self.least = _column([lane.least for lane in self.lanes])
        self.most = _column([lane.most for lane in self.lanes])
        place = {axis: index for index, lane in enumerate(self.lanes) for axis in lane.axes}
        self.place = torch.tensor([place[name] for name in bounds[0].form.axes], dtype=torch.int64, device="cpu")
        each = {axis: unit for lane in self.lanes for axis, unit in lane.channels(1).items()}
        self.each = _column([each[name] for name in bounds[0].form.axes])

    def masks(
        self,
        scores: Mapping[str, Tensor],
        sharpness: float,
        allowed: Sequence[float],
        towards: tuple[Plan, float] | None = None,
    ) -> dict[str, Tensor]:
        """For each axis its mask, of its scores' dtype and device; gradients flow to the scores.

        Args:
            scores: For each free axis, one score per channel.
            sharpness: How fast the mask goes from 0 to 1 around the threshold, per unit of score.
            allowed: The most that each bound allows.
            towards: A plan, and how far masks are moved to its 0 and 1, from 0 to 1.
        """
        if not self.axes:
            return {}
        flat = torch.cat([scores[axis].cpu().double() for axis in self.axes])
        goal, share = (torch.zeros_like(flat), 0.0) if towards is None else (self._of_plan(towards[0]), towards[1])
        mask: Tensor = _Soft.apply(flat, self, sharpness, tuple(allowed), goal, share)  # type: ignore[no-untyped-call]
        if share:
            mask = (1 - share) * mask + share * goal
        parts = torch.split(mask, self.sizes)
        return {
            axis: part.to(scores[axis].device, scores[axis].dtype) for axis, part in zip(self.axes, parts, strict=True)
        }

    def ranked(self, flat: Flat) -> _Blocks:
        """Scores that leave as widths do: a block of a lane's step has one, and so have channels that stay together."""
        blocks, inside, pooled, known = [], [], [], 0
        for lane, part in zip(self.lanes, torch.split(flat, self.counts), strict=True):
            rows = list(torch.split(part, [lane.size * unit for unit in lane.each]))
            for unit in set(lane.each) if lane.same else ():
                places = [place for place, its in enumerate(lane.each) if its == unit]
                mean = torch.stack([rows[place] for place in places]).mean(0)
                rows = [mean if place in places else row for place, row in enumerate(rows)]
            count = -(-lane.size // lane.step)
            sums = flat.new_zeros(2, count)
            own = []
            for row, unit in zip(rows, lane.each, strict=True):
                ranks = torch.argsort(torch.argsort(row, descending=True, stable=True))
                own.append(ranks // (lane.step * unit))
                sums[0].index_add_(0, own[-1], row / unit)  # each axis counts alike
                sums[1].index_add_(0, own[-1], torch.full_like(row, 1 / unit))
            pooled += [(sums[0] / sums[1])[block] for block in own]
            inside += rows
            blocks += [block + known + count * place for place, block in enumerate(own)]
            known += count * len(lane.axes)
        return _Blocks(torch.cat(blocks), known, torch.cat(inside), torch.cat(pooled))

    def _of_plan(self, plan: Plan) -> Flat:
        """1 for channels that stay, else 0."""
        parts = []
        for axis, size in zip(self.axes, self.sizes, strict=True):
            part = torch.zeros(size, dtype=torch.float64, device="cpu")
            part[list(plan.kept.get(axis, range(size)))] = 1
            parts.append(part)
        return torch.cat(parts)

    def fitted(self, flat: Flat, sharpness: float, allowed: Sequence[float], goal: Flat, share: float) -> _Fitted:
        """The mask, and what its gradient is made of; moved by `share` to the goal, it costs what is allowed."""
        blocks = self.ranked(flat)
        pooled = blocks.pooled
        low, high = float(pooled.min()) - _FAR / sharpness, float(pooled.max()) + _FAR / sharpness

        def mask_at(threshold: Tensor) -> Flat:
            return torch.sigmoid(sharpness * (pooled - threshold))

        def widths(mask: Flat) -> Tensor:
            return torch.zeros_like(self.least).index_add(0, self.lane, mask) / self.alike

        moved = share * widths(goal)

        def over(threshold: float) -> float:
            held = widths(mask_at(pooled.new_tensor(threshold))).clamp(self.least, self.most)
            return max(self._shares((1 - share) * held + moved, allowed)) - 1

        fits = over(low) <= 0
        mask = torch.ones_like(pooled) if fits else mask_at(pooled.new_tensor(_root(over, low, high)))
        found = widths(mask)
        held = found.clamp(self.least, self.most)
        own = (found - held).abs() > _EXACT * held
        if own.any():
            thresholds = _roots(lambda t: widths(mask_at(t[self.lane])) - held, len(self.lanes), low, high)
            mask = torch.where(own[self.lane], mask_at(thresholds[self.lane]), mask)
        slopes = self._slopes((1 - share) * held + moved, allowed)
        return _Fitted(blocks.shared_out(mask, sharpness), mask, blocks, slopes, own)

    def _shares(self, widths: Tensor, allowed: Sequence[float]) -> list[float]:
        """What lanes of these widths cost, over what each bound allows."""
        axes = widths[self.place] * self.each
        return [float(bound.form(axes)) / max(most, 1e-30) for bound, most in zip(self.bounds, allowed, strict=True)]

    def _slopes(self, widths: Tensor, allowed: Sequence[float]) -> Flat:
        """dF/dn of the channels, for the bound that these widths come nearest to."""
        shares = self._shares(widths, allowed)
        bound = self.bounds[shares.index(max(shares))]
        slopes = bound.form.slopes(widths[self.place] * self.each)
        known = dict(zip(bound.form.axes, (slopes / bound.dense).tolist(), strict=True))
        each = [
            torch.full((size,), known[axis], dtype=torch.float64)
            for axis, size in zip(self.axes, self.sizes, strict=True)
        ]
        return torch.cat(each)


@dataclass(frozen=True)
class _Blocks:
    """Which channels leave together.

    Attributes:
        of: For each channel, the number of its block.
        count: How many blocks there are.
        inside: Scores by which the channels of a block are told apart.
        pooled: Scores by which blocks are, for each of their channels.
    """

    of: Tensor
    count: int
    inside: Flat
    pooled: Flat

    def sums(self, flat: Flat) -> Flat:
        """Of each block."""
        return torch.zeros(self.count, dtype=flat.dtype, device=flat.device).index_add(0, self.of, flat)

    def shared_out(self, mask: Flat, sharpness: float) -> Flat:
        """A mask that is equal in each block, given to the block's channels by their own scores; sums stay."""
        open_ = (mask > _SHUT) & (mask < 1 - _SHUT) & (self.sums(torch.ones_like(mask))[self.of] > 1)
        if not open_.any():
            return mask
        numbers, place = torch.unique(self.of[open_], return_inverse=True)
        inside, held = self.inside[open_], self.sums(mask)[numbers]

        def mask_at(thresholds: Tensor) -> Flat:
            return torch.sigmoid(sharpness * (inside - thresholds[place]))

        def over(thresholds: Tensor) -> Tensor:
            return torch.zeros_like(held).index_add(0, place, mask_at(thresholds)) - held

        far = _FAR / sharpness
        thresholds = _roots(over, len(numbers), float(inside.min()) - far, float(inside.max()) + far)
        return mask.clone().masked_scatter(open_, mask_at(thresholds))


@dataclass(frozen=True)
class _Fitted:
    """A mask, and what its gradient is made of.

    Attributes:
        mask: Of each channel.
        even: The same where each block's channels are given equal parts.
        blocks: Which channels leave together.
        slopes: What channels cost in the bound that is nearest.
        own: Which lanes have a threshold of their own.
    """

    mask: Flat
    even: Flat
    blocks: _Blocks
    slopes: Flat
    own: Tensor


class _Soft(Function):
    """The mask as a function of scores, with the gradient of the implicit functions that the thresholds are."""

    @staticmethod
    def forward(
        ctx: Any,
        flat: Flat,
        softness: Softness,
        sharpness: float,
        allowed: tuple[float, ...],
        goal: Flat,
        share: float,
    ) -> Flat:
        """Solve for the thresholds."""
        fitted = softness.fitted(flat, sharpness, allowed, goal, share)
        ctx.save_for_backward(fitted.mask)
        ctx.fitted, ctx.lane, ctx.sharpness = fitted, softness.lane, sharpness
        return fitted.mask

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Flat) -> tuple[Flat | None, ...]:
        """With d = sharpness m (1 - m) of channels, e the same of the even mask, and p, a block's mean score:

        sum_c F_c e_c (dp - dt) = 0 holds the cost, where F_c is what a channel costs (lanes at their least or most hold
        their width instead); and dm_c = d_c (ds_c - du) with one u for each block, such that its sum is that of
        e_c (dp - dt). With G, a block's mean of the gradient weighted by d, and R = sum e G / sum e F, that gives
        d_c (g_c - G) + e_c (G - F_c R). Axes that are alike are treated as if each had its scores alone.
        """
        fitted = ctx.fitted
        blocks, lane, own = fitted.blocks, ctx.lane, fitted.own
        alone = own[lane]
        slopes = torch.where(alone, 1.0, fitted.slopes)
        change, even = (ctx.sharpness * mask * (1 - mask) for mask in (fitted.mask, fitted.even))
        mean = _over(blocks.sums(gradient * change), blocks.sums(change))[blocks.of]
        group = torch.where(alone, lane, len(own))
        sums = torch.zeros(2, len(own) + 1, dtype=even.dtype, device=even.device)
        sums[0].index_add_(0, group, mean * even)
        sums[1].index_add_(0, group, slopes * even)
        shared = _over(sums[0], sums[1])[group]
        return change * (gradient - mean) + even * (mean - slopes * shared), None, None, None, None, None


def _over(parts: Tensor, whole: Tensor) -> Tensor:
    """The quotient, and 0 where there is nothing to divide by."""
    return torch.where(whole > 0, parts / whole.clamp(min=1e-300), 0.0)


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that falls from above 0 at `low` crosses 0: false position, halving where that is slow."""
    above, below = function(low), function(high)
    if below >= 0:
        return high
    for turn in range(200):
        middle = (low * below - high * above) / (below - above) if turn % 3 < 2 else (low + high) / 2
        if not low < middle < high:
            middle = (low + high) / 2
        value = function(middle)
        if abs(value) < _EXACT or not low < middle < high:
            return middle
        if value > 0:
            low, above = middle, value
        else:
            high, below = middle, value
    return (low + high) / 2


def _roots(function: Callable[[Tensor], Tensor], count: int, low: float, high: float) -> Tensor:
    """The same for several functions at once."""
    lows, highs = (torch.full((count,), end, dtype=torch.float64, device="cpu") for end in (low, high))
    above, below = function(lows), function(highs)
    for turn in range(200):
        middle = (lows + highs) / 2
        if turn % 3 < 2:
            straight = (lows * below - highs * above) / (below - above)
            middle = torch.where((lows < straight) & (straight < highs), straight, middle)
        value = function(middle)
        if bool(((value.abs() < _EXACT) | (middle <= lows) | (middle >= highs)).all()):
            return middle
        up = value > 0
        lows, above = torch.where(up, middle, lows), torch.where(up, value, above)
        highs, below = torch.where(up, highs, middle), torch.where(up, below, value)
    return (lows + highs) / 2
