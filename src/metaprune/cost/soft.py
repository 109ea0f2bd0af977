"""Soft widths: for each channel a number between 0 and 1, such that together they cost exactly what a budget allows.

m_c = sigmoid(sharpness (s_c - t)) with one threshold t for all axes: the plan of entropic transport between scores and
a target that is kept or gone, of which a channel's mass is its cost. As the sharpness grows, m becomes a plan's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from metaprune.cost.bound import Bound
from metaprune.cost.lanes import Lane

__all__ = ["Softness"]

_FAR = 40.0
"""sigmoid(40) is 1 in float64."""

_EXACT = 1e-13
"""How near to a target, as a share of it, a root must come."""

Flat = Float[Tensor, " channels"]


class Softness:
    """Masks within bounds, for lanes: channels of all their axes lie one after the other in one vector.

    Args:
        lanes: Free axes that have one width, by the name of the first.
        bounds: What must hold.
    """

    def __init__(self, lanes: Mapping[str, Lane], bounds: Sequence[Bound]) -> None:
        self.lanes = tuple(lanes.values())
        self.bounds = tuple(bounds)
        self.axes = [axis for lane in self.lanes for axis in lane.axes]
        self.sizes = [lane.size for lane in self.lanes for _ in lane.axes]
        counts = torch.tensor([lane.size * len(lane.axes) for lane in self.lanes], dtype=torch.int64, device="cpu")
        self.lane = torch.repeat_interleave(torch.arange(len(self.lanes), device="cpu"), counts)
        self.alike = _column([len(lane.axes) for lane in self.lanes])
        self.least = _column([lane.least for lane in self.lanes])
        self.most = _column([lane.most for lane in self.lanes])
        place = {axis: index for index, lane in enumerate(self.lanes) for axis in lane.axes}
        self.place = torch.tensor([place[name] for name in bounds[0].form.axes], dtype=torch.int64, device="cpu")

    def masks(self, scores: Mapping[str, Tensor], sharpness: float, allowed: Sequence[float]) -> dict[str, Tensor]:
        """For each axis its mask, of its scores' dtype and device; gradients flow to the scores.

        Args:
            scores: For each free axis, one score per channel.
            sharpness: How fast the mask goes from 0 to 1 around the threshold, per unit of score.
            allowed: The most that each bound allows.
        """
        if not self.axes:
            return {}
        flat = torch.cat([scores[axis].cpu().double() for axis in self.axes])
        mask: Tensor = _Soft.apply(flat, self, sharpness, tuple(allowed))  # type: ignore[no-untyped-call]
        parts = torch.split(mask, self.sizes)
        return {
            axis: part.to(scores[axis].device, scores[axis].dtype) for axis, part in zip(self.axes, parts, strict=True)
        }

    def pooled(self, flat: Flat) -> Flat:
        """Scores that leave as widths do: a block of a lane's step has one, and so have channels that stay together."""
        parts = []
        for lane, part in zip(
            self.lanes, torch.split(flat, [lane.size * len(lane.axes) for lane in self.lanes]), strict=True
        ):
            rows = part.reshape(len(lane.axes), lane.size)
            if lane.same:
                rows = rows.mean(0, keepdim=True).expand_as(rows)
            if lane.step > 1 or (len(lane.axes) > 1 and not lane.same):
                order = torch.argsort(rows, dim=1, descending=True, stable=True)
                ranked = rows.gather(1, order).mean(0)
                blocks = torch.cat([block.mean().expand(len(block)) for block in torch.split(ranked, lane.step)])
                rows = torch.empty_like(rows).scatter(1, order, blocks.expand_as(rows))
            parts.append(rows.reshape(-1))
        return torch.cat(parts)

    def fitted(self, flat: Flat, sharpness: float, allowed: Sequence[float]) -> tuple[Flat, Flat, Tensor]:
        """The mask, what channels cost in the bound that is nearest, and which lanes have a threshold of their own."""
        pooled = self.pooled(flat)
        low, high = float(pooled.min()) - _FAR / sharpness, float(pooled.max()) + _FAR / sharpness

        def mask_at(threshold: Tensor) -> Flat:
            return torch.sigmoid(sharpness * (pooled - threshold))

        def widths(mask: Flat) -> Tensor:
            return torch.zeros_like(self.least).index_add(0, self.lane, mask) / self.alike

        def over(threshold: float) -> float:
            held = widths(mask_at(pooled.new_tensor(threshold))).clamp(self.least, self.most)
            return max(self._shares(held, allowed)) - 1

        fits = over(low) <= 0
        mask = torch.ones_like(pooled) if fits else mask_at(pooled.new_tensor(_root(over, low, high)))
        found = widths(mask)
        held = found.clamp(self.least, self.most)
        own = (found - held).abs() > _EXACT * held
        if own.any():
            thresholds = _roots(lambda t: widths(mask_at(t[self.lane])) - held, len(self.lanes), low, high)
            mask = torch.where(own[self.lane], mask_at(thresholds[self.lane]), mask)
        return mask, self._slopes(held, allowed), own

    def _shares(self, widths: Tensor, allowed: Sequence[float]) -> list[float]:
        """What lanes of these widths cost, over what each bound allows."""
        axes = widths[self.place]
        return [float(bound.form(axes)) / max(most, 1e-30) for bound, most in zip(self.bounds, allowed, strict=True)]

    def _slopes(self, widths: Tensor, allowed: Sequence[float]) -> Flat:
        """dF/dn of the channels, for the bound that these widths come nearest to."""
        shares = self._shares(widths, allowed)
        bound = self.bounds[shares.index(max(shares))]
        slopes = bound.form.slopes(widths[self.place])
        known = dict(zip(bound.form.axes, (slopes / bound.dense).tolist(), strict=True))
        each = [
            torch.full((size,), known[axis], dtype=torch.float64)
            for axis, size in zip(self.axes, self.sizes, strict=True)
        ]
        return torch.cat(each)


class _Soft(Function):
    """The mask as a function of scores, with the gradient of the implicit function that the threshold is."""

    @staticmethod
    def forward(ctx: Any, flat: Flat, softness: Softness, sharpness: float, allowed: tuple[float, ...]) -> Flat:
        """Solve for the threshold."""
        mask, slopes, own = softness.fitted(flat, sharpness, allowed)
        ctx.save_for_backward(mask, slopes, own)
        ctx.softness, ctx.sharpness = softness, sharpness
        return mask

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Flat) -> tuple[Flat, None, None, None]:
        """dm = d (ds - dt) with d = sharpness m (1 - m), where dt holds the cost: sum_c F_c d_c (ds_c - dt) = 0.

        F_c is what a channel costs. Lanes at their least or most hold their width instead. A channel that shares a
        block's score is treated as if it had the score alone: so channels of one block can change their order.
        """
        mask, slopes, own = ctx.saved_tensors
        lane = ctx.softness.lane
        alone = own[lane]
        slopes = torch.where(alone, 1.0, slopes)
        change = ctx.sharpness * mask * (1 - mask)
        group = torch.where(alone, lane, len(own))
        sums = torch.zeros(2, len(own) + 1, dtype=mask.dtype, device=mask.device)
        sums[0].index_add_(0, group, gradient * change)
        sums[1].index_add_(0, group, slopes * change)
        ratio = torch.where(sums[1] > 0, sums[0] / sums[1].clamp(min=1e-300), 0.0)
        return change * (gradient - slopes * ratio[group]), None, None, None


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
    """The same for several functions at once, by halving: one threshold each."""
    lows, highs = (torch.full((count,), end, dtype=torch.float64, device="cpu") for end in (low, high))
    for _ in range(100):
        middle = (lows + highs) / 2
        above = function(middle) > 0
        lows, highs = torch.where(above, middle, lows), torch.where(above, highs, middle)
    return (lows + highs) / 2
