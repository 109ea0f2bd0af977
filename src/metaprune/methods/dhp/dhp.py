"""DHP: differentiable meta pruning via hypernetworks.

Source: Li, Gu, Zhang, Van Gool, Timofte, DHP: Differentiable Meta Pruning via HyperNetworks, ECCV 2020,
arXiv 2003.13683. One latent vector per channel axis generates the weights of all layers that hold the axis; l1 and
proximal steps make the latents sparse, for all layers together.

Departures, with reasons:
    The gate form is the default. The paper's hypernetwork is affine in the outer product of two latents, so the gate
    W = v_out v_in^T * A computes the same functions (`hypernet.collapse`) at a tenth of the memory.
    It may start from a trained network, which it reproduces at step 0; the latents start from the channels' saliency.
    All tensors of an axis are gated, norms and biases included: a channel whose latent is zero is silent, and the cut
    changes nothing.
    The search has a stated length. The share of the budget's cost still allowed falls along a ramp; the latents that
    the ranking puts outside it are doomed, and their proximal threshold grows such that they reach zero in time. The
    others only feel the paper's small threshold. (A controller that steers one threshold by the ratio overshoots.)
    One learning-rate schedule spans the search and the fine-tuning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import clone
from metaprune.graph.term import axes_of
from metaprune.methods.dhp.hypernet import Generated, Latents
from metaprune.methods.method import Found, Problem
from metaprune.methods.saliency import group_norms
from metaprune.surgery.attention import written_out
from metaprune.train.engine import Recipe, fit

__all__ = ["DHP", "Search", "initial_latents", "loud_axes", "proximal_step", "share_allowed"]

RANKINGS = 100
"""How often the latents are ranked in a search."""

LEAST = 1e-6
"""A living latent never gets nearer to zero than this: only the budget kills."""


@dataclass(frozen=True)
class DHP:
    """Search with latent vectors, then cut where they are zero.

    Attributes:
        search: Share of the recipe's epochs spent searching; the rest is fine-tuning.
        form: "gate", or the paper's "hypernetwork".
        embedding: m, the hypernetwork's embedding dimension.
        offsets: Whether the hypernetwork has the paper's biases; the cut then is not exact.
        scratch: Whether the hypernetwork and the latents start at random, as in the paper.
        sparsity: lambda, the l1 weight of every latent.
        power: Latents start at the channels' relative group norm to this power.
        latent_lr: Learning rate of the latents, as a share of the recipe's.
        ramp: Share of the search in which the cost allowed falls; `decay` later the budget holds.
        decay: Share of the search in which a doomed latent reaches zero.
    """

    search: float = 0.4
    form: Literal["gate", "hypernetwork"] = "gate"
    embedding: int = 8
    offsets: bool = False
    scratch: bool = False
    sparsity: float = 2e-4
    power: float = 0.5
    latent_lr: float = 0.1
    ramp: float = 0.8
    decay: float = 0.1

    name: ClassVar[str] = "DHP"
    reference: ClassVar[str] = "Li et al., DHP: Differentiable Meta Pruning via HyperNetworks, ECCV 2020"

    def __post_init__(self) -> None:
        for name in ("sparsity", "power", "latent_lr"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise MetapruneError(f"DHP: expected {name} from 0, got {getattr(self, name)!r}")
        if self.embedding < 1:
            raise MetapruneError(f"DHP: expected embedding from 1, got {self.embedding!r}")
        for name in ("search", "ramp", "decay"):
            if not 0 < getattr(self, name) <= 1:
                raise MetapruneError(f"DHP: expected {name} in (0, 1], got {getattr(self, name)!r}")
        if self.ramp + self.decay > 1:
            raise MetapruneError(f"DHP: expected ramp + decay up to 1, got {self.ramp} + {self.decay}")
        if self.form not in ("gate", "hypernetwork"):
            raise MetapruneError(f"DHP: expected form 'gate' or 'hypernetwork', got {self.form!r}")
        if self.form == "gate" and (self.offsets or self.scratch):
            raise MetapruneError("DHP: offsets and scratch belong to form='hypernetwork'; leave them out for the gate")

    def find(self, problem: Problem) -> Found:
        """Search: train weights and latents together while the budget's ramp dooms latents; fold, and read the plan."""
        whole = loud_axes(problem.graph)
        graph = problem.graph.fixing(whole)
        allocation = Allocation(graph, problem.budget)
        generated = self.generate(problem.model, graph, problem.recipe.seed)
        epochs = min(max(1, round(self.search * problem.recipe.epochs)), problem.recipe.epochs)
        search = Search(self, generated.latents, allocation, problem.recipe, epochs)
        history = fit(
            generated,
            problem.task,
            problem.recipe,
            stop=epochs,
            name="search",
            after_step=search,
            state=search,
            parameters=self.groups(generated, problem.recipe),
            checkpoint=problem.checkpoint,
            progress=problem.progress,
        )
        return Found(
            plan=search.plan(),
            model=generated.fold(),
            scores=search.ranking,
            epochs=epochs,
            exact=not self.offsets,
            history=tuple(history.rows),
            shares=tuple((progress * epochs, share) for progress, share in search.shares),
            whole=whole,
        )

    def generate(self, model: nn.Module, graph: ChannelGraph, seed: int = 0) -> Generated:
        """The network as a function of latent vectors; `model` is copied.

        Raises:
            MetapruneError: No axis is free.
        """
        if not graph.free:
            raise MetapruneError("DHP: the graph has no free axis that gates can silence; print the graph to see why")
        network = clone(written_out(model, graph.written_out))
        device = next(network.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            start = (
                {name: torch.randn(axis.size) for name, axis in graph.free.items()}
                if self.scratch
                else initial_latents(group_norms(network, graph), self.power)
            )
            return Generated(
                network,
                graph,
                Latents(start).to(device),
                embedding=self.embedding if self.form == "hypernetwork" else None,
                offsets=self.offsets,
                scratch=self.scratch,
            )

    def groups(self, generated: Generated, recipe: Recipe) -> list[dict[str, Any]]:
        """Optimizer groups: weights with decay; norms and biases without; latents with a rate of their own."""
        latents = list(generated.latents.parameters())
        known = set(latents)
        rest = [parameter for parameter in generated.parameters() if parameter not in known]
        return [
            {"params": [parameter for parameter in rest if parameter.ndim >= 2]},
            {"params": [parameter for parameter in rest if parameter.ndim < 2], "weight_decay": 0.0},
            {"params": latents, "lr": recipe.lr * self.latent_lr, "weight_decay": 0.0},
        ]


def loud_axes(graph: ChannelGraph) -> dict[str, str]:
    """Axes on which zero is not silence: an operator averages or normalises over them, so the dead would be counted."""
    return {
        axis.name: f"{operator.name} at {operator.where} runs over it, which gates cannot hide"
        for operator in graph.operators
        for term in operator.statistics
        for axis in axes_of(term)
        if graph.is_free(axis)
    }


def initial_latents(norms: Mapping[str, Tensor], power: float) -> dict[str, Tensor]:
    """z_c = (s_c)^power with s the relative group norm, kept inside [0.1, 10]: latents differ from the start.

    Equal latents would shrink in lockstep and empty a whole axis at once.
    """
    return {name: norm.pow(power).clamp(0.1, 10.0) for name, norm in norms.items()}


def proximal_step(latent: Tensor, threshold: Tensor | float) -> Tensor:
    """prox of the l1 norm: sign(z) max(|z| - threshold, 0), elementwise (DHP, eq. 10)."""
    return latent.sign() * (latent.abs() - threshold).clamp(min=0)


def share_allowed(progress: float, target: float) -> float:
    """Share of the cost still allowed at `progress` in [0, 1] of the ramp: from 1 to `target`, steadily."""
    return 1 - (1 - target) * min(max(progress, 0.0), 1.0)


@dataclass
class Search:
    """What happens after each optimizer step of the search; its state goes into checkpoints.

    Attributes:
        method: The hyper-parameters.
        latents: The latent vectors, changed in place.
        allocation: The budget.
        recipe: Its schedule scales the proximal steps.
        epochs: Length of the search.
        due: For each axis and channel, the step at which its latent is zero; 0 for those that live.
        ranking: The magnitudes of the latents when they were ranked last.
        shares: Pairs of (progress of the search, share of the cost that the living latents leave).
    """

    method: DHP
    latents: Latents
    allocation: Allocation
    recipe: Recipe
    epochs: int
    due: dict[str, Tensor] = field(default_factory=dict)
    ranking: dict[str, Tensor] = field(default_factory=dict)
    shares: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.due = {name: torch.zeros(len(z), dtype=torch.int64) for name, z in self.latents.named().items()}
        self.rank()

    @torch.no_grad()
    def __call__(self, step: int, steps: int) -> None:
        """Doom what the ramp no longer allows, and take the proximal step.

        Args:
            step: The optimizer step just taken, from 0.
            steps: Their number in the whole search.
        """
        done = step + 1
        every, decay = max(1, steps // RANKINGS), max(1, int(self.method.decay * steps))
        last = max(1, steps - decay)
        if (done % every == 0 and done < last) or done == last:
            self.doom(done, done + decay if done < last else steps, steps)
        threshold = self.recipe.lr_at(self.epochs * done / steps) * self.method.latent_lr * self.method.sparsity
        for name, z in self.latents.named().items():
            due = self.due[name].to(z.device)
            left = (due - done).clamp(min=0) + 1
            living = proximal_step(z, threshold)
            living = torch.where(living.abs() < LEAST, z.sign() * z.abs().clamp(max=LEAST), living)
            z.copy_(torch.where(due > 0, proximal_step(z, z.abs() / left), living))
        if done % every == 0 or done == steps:
            self.shares.append([done / steps, self.allocation.form.at(self.plan().widths) / self.allocation.dense])

    def rank(self) -> dict[str, Tensor]:
        """The magnitudes of the latents, comparable between axes."""
        self.ranking = {name: z.detach().abs().cpu().clone() for name, z in self.latents.named().items()}
        return self.ranking

    def doom(self, done: int, due: int, steps: int) -> None:
        """Rank the latents: those that neither the final budget nor the cost allowed at `due` keeps shall be zero then.

        What the final budget would keep by today's ranking never dies on the way, so that the search can land on it.
        """
        target = self.allocation.limit / self.allocation.dense
        allowed = share_allowed(due / ((self.method.ramp + self.method.decay) * steps), target)
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

    def plan(self) -> Plan:
        """The channels whose latents are not zero."""
        kept = {name: torch.nonzero(z.detach().cpu())[:, 0].tolist() for name, z in self.latents.named().items()}
        return Plan({name: stays for name, stays in kept.items() if len(stays) < self.allocation.sizes[name]})

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"due": dict(self.due), "ranking": dict(self.ranking), "shares": self.shares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self.due = {name: due.clone() for name, due in state["due"].items()}
        self.ranking = {name: ranks.clone() for name, ranks in state["ranking"].items()}
        self.shares = [list(pair) for pair in state["shares"]]
