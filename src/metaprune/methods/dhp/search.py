"""The search of DHP: what happens to the latent vectors after each optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune.cost.budget import Allocation
from metaprune.graph.plan import Plan
from metaprune.graph.rehearsal import on_the_cpu
from metaprune.methods.gates.latents import Latents, finite

__all__ = ["Search", "Settings", "proximal_step", "share_allowed"]

RAMP = 0.8
"""Share of the search in which the cost allowed falls; `DECAY` later the budget holds."""

DECAY = 0.1
"""Share of the search in which a doomed latent reaches zero."""

MEMORY = 0.99
"""How much of the running sum of evidence a step keeps."""

RANKINGS = 100
"""How often the latents are ranked in a search."""

LEAST = 1e-6
"""A living latent never gets nearer to zero than this: only the budget kills."""


def proximal_step(latent: Tensor, threshold: Tensor | float) -> Tensor:
    """prox of the l1 norm: sign(z) max(|z| - threshold, 0), elementwise (DHP, eq. 10)."""
    return latent.sign() * (latent.abs() - threshold).clamp(min=0)


def share_allowed(progress: float, target: float) -> float:
    """Share of the cost still allowed at `progress` in [0, 1] of the ramp: from 1 to `target`, steadily."""
    return 1 - (1 - target) * min(max(progress, 0.0), 1.0)


@runtime_checkable
class Settings(Protocol):
    """The hyper-parameters of a search; `DHP` has them, and says what they are."""

    @property
    def ranking(self) -> str:
        """By what latents are ranked."""

    @property
    def steering(self) -> str:
        """What leads to the budget."""

    @property
    def cost_power(self) -> float:
        """How much the cost of a channel counts against it."""

    @property
    def sparsity(self) -> float:
        """lambda, the l1 weight of every latent."""

    @property
    def latent_lr(self) -> float:
        """The latents' rate, as a share of the recipe's."""

    @property
    def latent_decay(self) -> bool:
        """Whether weight decay acts on the latents too."""

    @property
    def threshold(self) -> float:
        """tau of the paper's steering."""


@dataclass
class Search:
    """Ranks the latents, dooms those the budget does not keep, and takes proximal steps; goes into checkpoints.

    Attributes:
        method: The hyper-parameters.
        latents: The latent vectors, changed in place.
        allocation: The budget.
        hide: Told of the plan of the living whenever it may have changed.
        due: For each axis and channel, the step at which its latent is zero; 0 for those that live.
        evidence: For each axis, a running sum of (z dL/dz)^2 per channel, shape (size,).
        ranking: The scores by which the latents were ranked last.
        shares: Pairs of (progress of the search, share of the cost that the living latents leave).
    """

    method: Settings
    latents: Latents
    allocation: Allocation
    hide: Callable[[Plan], None] = lambda plan: None
    due: dict[str, Tensor] = field(default_factory=dict)
    evidence: dict[str, Tensor] = field(default_factory=dict)
    ranking: dict[str, Float[Tensor, " size"]] = field(default_factory=dict)
    shares: list[list[float]] = field(default_factory=list)

    @on_the_cpu()
    def __post_init__(self) -> None:
        latents = self.latents.named()
        self.due = {name: torch.zeros(len(z), dtype=torch.int64) for name, z in latents.items()}
        self.evidence = {name: torch.zeros_like(z.detach()) for name, z in latents.items()}
        self.rank()

    @on_the_cpu()
    @torch.no_grad()
    def after(self, done: int, steps: int, lr: float) -> None:
        """What follows an optimizer step.

        Args:
            done: Steps taken so far.
            steps: Their number in the whole search.
            lr: The learning rate then, which scales the proximal steps.
        """
        every = max(1, steps // RANKINGS)
        self.observe()
        if self.method.steering == "ramp":
            decay = max(1, int(DECAY * steps))
            last = max(1, steps - decay)
            if (done % every == 0 and done < last) or done == last:
                self.doom(done, done + decay if done < last else steps, steps)
        elif not self.landed and (done == steps or (done % every == 0 and self.share(self.above()) <= self.target)):
            self.land(done)
        self.shrink(done, lr)
        if done % every == 0 or done == steps:
            plan = self.plan()
            self.hide(plan)
            self.shares.append([done / steps, self.share(plan)])

    @property
    def landed(self) -> bool:
        """Whether any latent is doomed: with the paper's steering, whether its search is over."""
        return any(due.any() for due in self.due.values())

    @property
    def target(self) -> float:
        """Share of the cost that the budget leaves."""
        return self.allocation.limit / self.allocation.dense

    def share(self, plan: Plan) -> float:
        """Share of the cost that a plan leaves."""
        return self.allocation.form.at(plan.widths) / self.allocation.dense

    def observe(self) -> None:
        """Add what the last batch says: (z dL/dz)^2, the squared change of the loss if the channel went."""
        if self.method.ranking == "latent":
            return
        for name, z in self.latents.named().items():
            if z.grad is not None:
                known = self.evidence[name].to(z.device)  # which may have moved since the search began
                self.evidence[name] = known.mul_(MEMORY).add_((z * z.grad).square())

    def rank(self) -> dict[str, Tensor]:
        """One score per channel, comparable between axes: the latent's magnitude, or evidence per unit of cost."""
        latents = self.latents.named()
        if self.method.ranking == "latent" or not all(evidence.any() for evidence in self.evidence.values()):
            self.ranking = {name: z.detach().abs().cpu().clone() for name, z in latents.items()}
        else:
            price = self.allocation.prices(self.plan().widths)
            self.ranking = {
                name: (evidence.cpu().double() / price[name] ** self.method.cost_power).sqrt()
                for name, evidence in self.evidence.items()
            }
        return self.ranking

    def doom(self, done: int, due: int, steps: int) -> None:
        """Rank the latents: those that neither the final budget nor the cost allowed at `due` keeps shall be zero then.

        What the final budget would keep by today's ranking never dies on the way, so that the search can land on it.
        """
        allowed = share_allowed(due / ((RAMP + DECAY) * steps), self.target)
        living = {
            name: torch.where((self.due[name] > 0) & (self.due[name] <= done), -torch.inf, score)
            for name, score in self.rank().items()
        }
        final = self.allocation.plan(living)
        soon = final if due == steps else self.allocation.plan(living, limit=allowed * self.allocation.dense)
        for name, before in self.due.items():
            doomed = torch.ones(len(before), dtype=torch.bool)
            for plan in (final, soon):
                doomed[list(plan.kept.get(name, range(len(before))))] = False
            dead = (before > 0) & (before <= done)
            self.due[name] = torch.where(doomed | dead, torch.where(before > 0, before, due), 0)

    def above(self) -> Plan:
        """The channels whose latents are not below the paper's threshold, or as many of the largest as must stay."""
        alive = {}
        for name, z in self.latents.named().items():
            size = z.detach().abs().cpu()
            bound = min(
                self.method.threshold, float(size.sort(descending=True).values[self.allocation.least[name] - 1])
            )
            alive[name] = size >= bound
        return _plan(alive)

    def land(self, done: int) -> None:
        """The paper's end of a search: what the budget does not keep of today's ranking is dead at once."""
        kept = self.allocation.plan(self.rank()).kept
        for name, due in self.due.items():
            if name in kept:
                due.fill_(done)
                due[list(kept[name])] = 0

    def shrink(self, done: int, lr: float) -> None:
        """Proximal steps: the doomed reach zero when they are due, the others feel the paper's small threshold."""
        threshold = lr * self.method.latent_lr * self.method.sparsity
        landed = self.method.steering == "threshold" and self.landed
        for name, z in self.latents.named().items():
            due = self.due[name].to(z.device)
            left = (due - done).clamp(min=0) + 1
            living = proximal_step(z, 0.0 if landed else threshold)
            living = torch.where(living.abs() < LEAST, z.sign() * z.abs().clamp(max=LEAST), living)
            z.copy_(torch.where(due > 0, proximal_step(z, z.abs() / left), living))

    def plan(self) -> Plan:
        """The channels whose latents are not zero.

        Raises:
            MetapruneError: A latent is no number any more.
        """
        return _plan({name: z != 0 for name, z in finite("DHP", self.latents.named()).items()})

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {
            "due": dict(self.due),
            "evidence": dict(self.evidence),
            "ranking": dict(self.ranking),
            "shares": self.shares,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self.due = {name: due.clone() for name, due in state["due"].items()}
        self.evidence = {name: value.to(self.evidence[name]) for name, value in state["evidence"].items()}
        self.ranking = {name: ranks.clone() for name, ranks in state["ranking"].items()}
        self.shares = [list(pair) for pair in state["shares"]]
        self.hide(self.plan())


def _plan(alive: Mapping[str, Tensor]) -> Plan:
    """The plan that keeps what is true in masks over the channels of axes; axes without a loss stay whole."""
    return Plan({name: torch.nonzero(mask)[:, 0].tolist() for name, mask in alive.items() if not mask.all()})
