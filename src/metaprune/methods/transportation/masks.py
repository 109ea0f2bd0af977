"""The masks: transport between the scores of channels and a target, kept or gone, whose mass is the budget's.

Notation: s, the scores; a, the mass of each channel, its share of the cost; b = (1 - k, k), that of the target; P, the
plan, of shape (channels, 2), with rows that sum to a and columns that sum to b; m = P[:, 1] / a, the mask; C, what it
costs to bring a channel to either side; e, the temperature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metaprune.cost.budget import Allocation
from metaprune.graph.plan import Plan

__all__ = ["Masks", "Sweep", "Threshold", "sinkhorn", "squared_distances"]

Flat = Float[Tensor, " channels"]


def squared_distances(scores: Flat) -> Float[Tensor, "channels 2"]:
    """C_ij = (s_i - t_j)^2 with t = (0, 1): a channel of a high score is brought cheaply to where it is kept."""
    return torch.stack([scores.square(), (scores - 1).square()], 1)


def sinkhorn(
    log_kernel: Float[Tensor, "channels 2"], mass: Flat, kept: float | Tensor, sweeps: int = 1
) -> Float[Tensor, "channels 2"]:
    """log P after some sweeps: rows are scaled to `mass`, then columns to (1 - kept, kept), exactly.

    Args:
        log_kernel: log K, with P = diag(u) K diag(v).
        mass: Of each channel, of sum 1.
        kept: k, the target's mass where channels stay, inside (0, 1).
        sweeps: How often.
    """
    share = torch.as_tensor(kept, dtype=log_kernel.dtype, device=log_kernel.device)
    columns = torch.stack([1 - share, share]).log()
    rows = mass.log()
    plan = log_kernel
    for _ in range(sweeps):
        plan = plan + (rows - plan.logsumexp(1))[:, None]
        plan = plan + (columns - plan.logsumexp(0))
    return plan


class Transport(Protocol):
    """What makes masks of scores, and remembers those of the steps before; a module."""

    def masks(self, scores: Flat, towards: tuple[Plan, float] | None = None) -> dict[str, Tensor]:
        """The mask of each axis, moved by a share to a plan's; gradients flow to the scores."""

    def advance(self, scores: Flat) -> None:
        """A step of the optimizer was taken, and these are the scores now."""

    def ranking(self) -> Flat:
        """The logits of the masks, but for the threshold."""


class Threshold(nn.Module):
    """The plan in closed form: m = sigmoid(A / e - t), with A the sum of the scores of all steps so far.

    Each step's plan is the one nearest to the step's before (in Kullback-Leibler divergence) that costs little: so
    the logits of all steps add up, the temperature that is felt falls as e / step, and t holds the budget
    (`Allocation.soft`).

    Args:
        allocation: The budget.
        start: The scores to start from.
        temperature: e.
    """

    def __init__(self, allocation: Allocation, start: Flat, temperature: float) -> None:
        super().__init__()
        self.allocation = allocation
        self.temperature = temperature
        self.register_buffer("total", start.clone())
        self.total: Tensor

    def masks(self, scores: Flat, towards: tuple[Plan, float] | None = None) -> dict[str, Tensor]:
        """The scores of now are in the sum already: only their gradient is added."""
        logits = self.total + (scores - scores.detach())
        return self.allocation.soft(split(self.allocation, logits), 1 / self.temperature, towards=towards)

    def advance(self, scores: Flat) -> None:
        """Add the scores."""
        self.total += scores

    def ranking(self) -> Flat:
        """A."""
        return self.total


class Sweep(nn.Module):
    """The paper's plan: one sweep of Sinkhorn's iteration a step, from the plan of the step before as its kernel.

    The mass of a channel is what it costs at the widths of the step before, so a budget is met to first order; and one
    sweep leaves rows unequal, so masks may exceed 1, where they are cut off. Steps and least widths are left to the
    final plan; of several bounds, the first counts until then.

    Args:
        allocation: The budget.
        start: The scores to start from.
        temperature: e.
    """

    def __init__(self, allocation: Allocation, start: Flat, temperature: float) -> None:
        super().__init__()
        self.allocation = allocation
        self.temperature = temperature
        sizes = torch.tensor([float(size) for size in allocation.sizes.values()])
        self.register_buffer("widths", sizes)
        self.widths: Tensor
        mass, _ = self._linearised()
        self.register_buffer("log_kernel", mass.log()[:, None] - squared_distances(start) / temperature)
        self.log_kernel: Tensor

    def masks(self, scores: Flat, towards: tuple[Plan, float] | None = None) -> dict[str, Tensor]:
        """The scores of now are in the kernel already: only their gradient is added."""
        masks = self._swept(scores)[0]
        if towards is None:
            return masks
        plan, share = towards
        return {name: (1 - share) * mask + share * of_plan(plan, name, mask) for name, mask in masks.items()}

    def advance(self, scores: Flat) -> None:
        """The plan becomes the kernel."""
        parts, plan = self._swept(scores)
        self.log_kernel.copy_(plan - squared_distances(scores) / self.temperature)
        self.widths.copy_(torch.stack([part.sum() for part in parts.values()]))

    def ranking(self) -> Flat:
        """log P_i1 - log P_i0."""
        return self.log_kernel[:, 1] - self.log_kernel[:, 0]

    def _swept(self, scores: Flat) -> tuple[dict[str, Tensor], Tensor]:
        """The mask of each axis, and log P, after a sweep from the kernel."""
        mass, kept = self._linearised()
        change = squared_distances(scores) / self.temperature
        kernel = self.log_kernel - (change - change.detach())
        plan = sinkhorn(kernel, mass, kept)
        return split(self.allocation, (plan[:, 1].exp() / mass).clamp(max=1)), plan

    def _linearised(self) -> tuple[Flat, Tensor]:
        """The mass of each channel, and how much of it stays: sum_c F_c m_c = B - F(n) + sum_a F_a n_a."""
        sizes = self.allocation.sizes
        form, point = self.allocation.form, self.widths.detach().cpu().double()
        cost, slopes = form(point), form.slopes(point)
        counts = torch.tensor(list(sizes.values()), dtype=torch.float64)
        whole = (slopes * counts).sum()
        kept = (self.allocation.limit - cost + (slopes * point).sum()) / whole
        each = torch.repeat_interleave(slopes / whole, counts.long()).clamp(min=1e-12)
        return (each / each.sum()).to(self.widths), kept.clamp(1e-4, 1 - 1e-4).to(self.widths)


class Masks(nn.Module):
    """One score per channel, learned, and the masks that transport makes of them: gates for `Generated`.

    Args:
        start: Axis name -> scores, shape (size,).
        transport: What makes masks of scores, all axes in one vector.

    Attributes:
        towards: The plan that the masks are moved to, and how far, once it is decided.
        plan: That plan, once they are its 0 and 1.
    """

    def __init__(self, start: Mapping[str, Tensor], transport: Transport) -> None:
        super().__init__()
        self.names = tuple(start)
        self.scores = nn.ParameterList([nn.Parameter(scores.float().clone()) for scores in start.values()])
        self.transport = transport
        self.towards: tuple[Plan, float] | None = None
        self.plan: Plan | None = None

    def named(self) -> dict[str, Tensor]:
        """Axis name -> mask: 0 and 1 once hardened."""
        if self.plan is None:
            return self.transport.masks(torch.cat(list(self.scores)), self.towards)
        return {name: of_plan(self.plan, name, scores) for name, scores in zip(self.names, self.scores, strict=True)}

    @torch.no_grad()
    def advance(self) -> None:
        """A step of the optimizer was taken."""
        self.transport.advance(torch.cat(list(self.scores)))

    def ranking(self) -> dict[str, Tensor]:
        """For each axis the logits of its mask, but for the threshold, on the CPU."""
        return {
            name: part.detach().cpu().clone()
            for name, part in zip(
                self.names, torch.split(self.transport.ranking(), [len(scores) for scores in self.scores]), strict=True
            )
        }

    @torch.no_grad()
    def hardness(self) -> float:
        """The mean of m (1 - m) over all channels: 0 where the mask is a plan's."""
        mask = torch.cat(list(self.named().values()))
        return float((mask * (1 - mask)).mean())


def of_plan(plan: Plan, axis: str, like: Flat) -> Flat:
    """1 for channels that stay, else 0."""
    mask = torch.zeros(len(like), device="cpu")
    mask[list(plan.kept.get(axis, range(len(like))))] = 1
    return mask.to(like.device, like.dtype)


def split(allocation: Allocation, flat: Flat) -> dict[str, Tensor]:
    """One vector over the channels of all axes, by axis."""
    return dict(zip(allocation.sizes, torch.split(flat, list(allocation.sizes.values())), strict=True))
