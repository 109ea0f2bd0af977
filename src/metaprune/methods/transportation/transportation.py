"""Differentiable transportation pruning: scores are learned with the weights, through a mask that costs the budget.

Source: Li, van Gemert, Hoefler, Moons, Eleftheriou, Verhoef, Differentiable Transportation Pruning, ICCV 2023,
arXiv 2307.08483. A channel's mask is the plan of entropic transport between scores and a target, kept or gone, with
exactly the budget's mass; each step's plan is the next one's kernel, so the mask anneals from soft to hard by itself.
The authors published no code; the equations are written out in `masks.py`.

Departures, with reasons:
    The plan is solved in closed form: one threshold for all channels, with the gradient of the implicit function. One
    sweep of Sinkhorn's iteration a step, the paper's, leaves masks above 1 and the cost off the budget; it is
    `solver="sinkhorn"`.
    The mass of a channel is what it costs, over all axes together, and soft widths cost what the closed form says: the
    budget holds at every step, not only to first order.
    The temperature is in proportion to the number of steps: a search of 200 steps ends as hard as one of 200,000.
    A channel is gated once, in what reads it, since that is what a cut removes; axes that attention or recurrent layers
    sum over are gated everywhere.
    Scores start at the channels' relative group norms, in units of their standard deviation.
    Where widths go in steps, three quarters into the search the plan is decided on them, and masks are moved to it in a
    straight line; the cost then moves from the budget to that of the plan, which steps keep below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from metaprune.cost.budget import Allocation, Budget
from metaprune.graph.arguments import is_number
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.tensors import clone
from metaprune.methods.following import searched
from metaprune.methods.gates.generated import Generated
from metaprune.methods.gates.running import Running
from metaprune.methods.gates.terms import reading_terms
from metaprune.methods.method import Found, Problem
from metaprune.methods.saliency import group_norms
from metaprune.methods.transportation.annealing import Annealing
from metaprune.methods.transportation.masks import Masks, Sweep, Threshold
from metaprune.surgery.attention import written_out

__all__ = ["Transportation", "standardised"]


@dataclass(frozen=True)
class Transportation:
    """Learn which channels stay through a soft mask that costs the budget at every step and hardens by itself.

    Attributes:
        search: Share of the recipe's epochs in which mask and weights are learned; the rest is fine-tuning.
        sharpness: How hard the mask is at the end: steps over temperature, which is the last logit of a channel whose
            score lay one standard deviation above the threshold throughout.
        score_lr: Learning rate of the scores, as a share of the recipe's.
        solver: "threshold", the closed form, or the paper's one sweep a step, "sinkhorn".
    """

    search: float = 0.4
    sharpness: float = 1000.0
    score_lr: float = 10.0
    solver: Literal["threshold", "sinkhorn"] = "threshold"

    name: ClassVar[str] = "transportation"
    reference: ClassVar[str] = "Li et al., Differentiable Transportation Pruning, ICCV 2023"

    def __post_init__(self) -> None:
        if not (is_number(self.search) and 0 < self.search <= 1):
            raise MetapruneError(f"transportation: expected search in (0, 1], got {self.search!r}")
        if not (is_number(self.sharpness) and 0 < self.sharpness < float("inf")):
            raise MetapruneError(f"transportation: expected sharpness above 0, got {self.sharpness!r}")
        if not (is_number(self.score_lr) and 0 <= self.score_lr < float("inf")):
            raise MetapruneError(f"transportation: expected score_lr from 0, got {self.score_lr!r}")
        if self.solver not in ("threshold", "sinkhorn"):
            raise MetapruneError(
                f"transportation: expected solver 'threshold' or 'sinkhorn', got {self.solver!r}; the first is exact"
            )

    def find(self, problem: Problem) -> Found:
        """Train weights and scores together through the mask; harden and fold it, and read the plan."""
        epochs = problem.recipe.epochs_of(self.search)
        running, history = searched(self.start, problem, epochs)
        hardness = running.search.hardness
        return Found(
            plan=running.plan,
            model=running.model.fold(),
            scores=running.search.masks.ranking(),
            epochs=epochs,
            exact=True,
            history=tuple(history.rows),
            notes=(f"before it was moved to its plan, the mask's mean m (1 - m) was {hardness:.2g}",),
            before=running.model,
        )

    def start(
        self, model: nn.Module, graph: ChannelGraph, budget: Budget, *, steps: int, seed: int = 0
    ) -> Running[Annealing]:
        """Begin a search that somebody else trains; see `Running`.

        Args:
            model: The network, on any device; copied.
            graph: From `mp.trace(model, …)`; with `mp.Limits.on`, the search obeys limits.
            budget: What may stay, in MACs or parameters.
            steps: How many steps of the optimizer the search takes: `Running.step` follows each.
            seed: Taken for the sake of what takes any method's `start`; nothing is drawn.

        Raises:
            MetapruneError: No axis is free, or the budget cannot be met.
        """
        if not graph.free:
            raise MetapruneError(
                "transportation: the graph has no free axis that a mask can silence; print the graph to see why"
            )
        allocation = Allocation(graph, budget)
        network = clone(written_out(model, graph.written_out))
        device = next(network.parameters()).device
        start = standardised(group_norms(network, graph))
        flat = torch.cat([start[name] for name in allocation.sizes]).float()
        temperature = max(steps, 1) / self.sharpness
        exact = self.solver == "threshold"
        transport = Threshold(allocation, flat, temperature) if exact else Sweep(allocation, flat, temperature)
        masks = Masks(start, transport).to(device)
        gated = Generated(network, graph, masks, who=self.name, terms=reading_terms(graph), divide=False)
        search = Annealing(masks, allocation, gated.hide)
        return Running(self.name, gated, search, steps, rate=self.score_lr)


def standardised(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scores in units of their standard deviation over the channels of all axes, around their mean."""
    flat = torch.cat(list(scores.values()))
    spread = max(float(flat.std(correction=0)), 1e-12)
    return {name: (score - flat.mean()) / spread for name, score in scores.items()}
