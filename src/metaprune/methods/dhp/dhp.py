"""DHP: differentiable meta pruning via hypernetworks.

Source: Li, Gu, Zhang, Van Gool, Timofte, DHP: Differentiable Meta Pruning via HyperNetworks, ECCV 2020,
arXiv 2003.13683. One latent vector per channel axis generates the weights of all layers that hold the axis; l1 and
proximal steps make the latents sparse, for all layers together.

Departures, with reasons:
    The gate form is the default. The paper's hypernetwork is affine in the outer product of two latents, so the gate
    W = v_out v_in^T * A computes the same functions (`hypernet.collapse`) at a tenth of the memory.
    It may start from a trained network, which it reproduces at step 0; the latents start from the channels' saliency.
    Channels are ranked by evidence, (z dL/dz)^2 over their cost, which the gates give at no extra pass; the paper ranks
    by |z|, which in a short search still says more of where z started than of the network.
    All tensors of an axis are gated, norms and biases included: a channel whose latent is zero is silent, and the cut
    changes nothing.
    The search has a stated length. The share of the budget's cost still allowed falls along a ramp; the latents that
    the ranking puts outside it are doomed, and their proximal threshold grows such that they reach zero in time. The
    others only feel the paper's small threshold. (A controller that steers one threshold by the ratio overshoots.)
    One learning-rate schedule spans the search and the fine-tuning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from metaprune.cost.budget import Allocation, Budget
from metaprune.graph.arguments import is_number, is_whole
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.tensors import clone
from metaprune.graph.term import axes_of, size
from metaprune.methods.dhp.hypernet import HyperNetwork
from metaprune.methods.dhp.search import Search
from metaprune.methods.following import searched
from metaprune.methods.gates.generated import Generated, Terms
from metaprune.methods.gates.latents import Latents
from metaprune.methods.gates.running import Running
from metaprune.methods.method import Found, Problem
from metaprune.methods.saliency import group_norms
from metaprune.surgery.anew import begin_anew
from metaprune.surgery.attention import written_out
from metaprune.train import randomness

__all__ = ["DHP", "initial_latents"]

POWER = 0.5
"""Latents start at the channels' relative group norm to this power. Where evidence ranks, any does as well as another
(docs/results.md)."""


@dataclass(frozen=True)
class DHP:
    """Search with latent vectors, then cut where they are zero.

    Attributes:
        search: Share of the recipe's epochs spent searching; the rest is fine-tuning.
        form: "gate", or the paper's "hypernetwork", for weights of two channel axes; those of more have gates.
        embedding: m, the hypernetwork's embedding dimension.
        offsets: Whether the hypernetwork has the paper's biases; the cut then is not exact.
        scratch: Whether hypernetworks, latents and all modules that can be reset start at random, as in the paper.
        sparsity: lambda, the l1 weight of every latent.
        latent_lr: Learning rate of the latents, as a share of the recipe's.
        ranking: "latent" ranks channels by the size of z, "taylor" by a sum of (z dL/dz)^2 per cost^cost_power.
        cost_power: How much the cost of a channel counts against it.
        steering: "ramp", or the paper's "threshold": all latents feel the same l1 weight until those above `threshold`
            fit the budget.
        threshold: tau of the paper's steering.
        latent_decay: Whether weight decay acts on the latents too, as in the paper.
    """

    search: float = 0.4
    form: Literal["gate", "hypernetwork"] = "gate"
    embedding: int = 8
    offsets: bool = False
    scratch: bool = False
    sparsity: float = 2e-4
    latent_lr: float = 0.1
    ranking: Literal["latent", "taylor"] = "taylor"
    cost_power: float = 1.0
    steering: Literal["ramp", "threshold"] = "ramp"
    threshold: float = 5e-3
    latent_decay: bool = False

    name: ClassVar[str] = "DHP"
    reference: ClassVar[str] = "Li et al., DHP: Differentiable Meta Pruning via HyperNetworks, ECCV 2020"

    def __post_init__(self) -> None:
        for name in ("sparsity", "latent_lr", "cost_power", "threshold"):
            if not (is_number(value := getattr(self, name)) and 0 <= value < float("inf")):
                raise MetapruneError(f"DHP: expected {name} from 0, got {getattr(self, name)!r}")
        if not (is_whole(self.embedding) and self.embedding >= 1):
            raise MetapruneError(f"DHP: expected embedding from 1, got {self.embedding!r}")
        if not (is_number(self.search) and 0 < self.search <= 1):
            raise MetapruneError(f"DHP: expected search in (0, 1], got {self.search!r}")
        for name, known in (("ranking", ("latent", "taylor")), ("steering", ("ramp", "threshold"))):
            if getattr(self, name) not in known:
                raise MetapruneError(
                    f"DHP: expected {name} {' or '.join(map(repr, known))}, got {getattr(self, name)!r}"
                )
        if self.form not in ("gate", "hypernetwork"):
            raise MetapruneError(f"DHP: expected form 'gate' or 'hypernetwork', got {self.form!r}")
        if self.form == "gate" and (self.offsets or self.scratch):
            raise MetapruneError("DHP: offsets and scratch belong to form='hypernetwork'; leave them out for the gate")

    @classmethod
    def paper(cls, search: float = 0.4, sparsity: float = 2e-4) -> DHP:
        """The paper's own setting: hypernetworks with offsets, from scratch, one l1 weight for all, a threshold.

        Its schedule is a recipe: `Recipe(S + 300, lr=0.1, nesterov=False, weight_decay=1e-4, schedule="steps",
        milestones=(S + 150, S + 225))` with batches of 64, for a search of S epochs (`search = S / (S + 300)`). What
        differs: the search has a stated length (the authors wait until the budget is met, for up to 100 epochs, and
        take what there is then), so a search that is not there by its end takes the largest latents.

        Args:
            search: Share of the recipe's epochs.
            sparsity: lambda: 2e-4 for ResNet-20, 3e-4 for ResNet-56, 1e-4 for ResNet-110 and -164, 5e-5 for MobileNets.
        """
        return cls(
            search=search,
            form="hypernetwork",
            offsets=True,
            scratch=True,
            sparsity=sparsity,
            latent_lr=1.0,
            latent_decay=True,
            ranking="latent",
            steering="threshold",
        )

    @classmethod
    def generator(cls, search: float = 0.5) -> DHP:
        """For generators that learn against a discriminator, whose losses are noisy and whose optimizer is Adam's.

        The search is longer, so that more losses speak for each channel; and latents have the weights' own rate, since
        the steps of such an optimizer do not grow with the gradient. The gate form stays, for a cut that is exact: with
        the paper's offsets, pictures jump at the cut.

        Args:
            search: Share of the recipe's epochs.
        """
        return cls(search=search, latent_lr=1.0)

    def find(self, problem: Problem) -> Found:
        """Search: train weights and latents together while the budget's ramp dooms latents; fold, and read the plan."""
        epochs = problem.recipe.epochs_of(self.search)
        running, history = searched(self.start, problem, epochs)
        return Found(
            plan=running.plan,
            model=running.model.fold(),
            scores=running.search.ranking,
            epochs=epochs,
            exact=not self.offsets,
            history=tuple(history.rows),
            shares=tuple((progress * epochs, share) for progress, share in running.search.shares),
            before=running.model,
        )

    def start(
        self, model: nn.Module, graph: ChannelGraph, budget: Budget, *, steps: int, seed: int = 0
    ) -> Running[Search]:
        """Begin a search that somebody else trains; see `Running`.

        Args:
            model: The network, on any device; copied.
            graph: From `mp.trace(model, …)`; with `mp.Limits.on`, the search obeys limits.
            budget: What may stay, in MACs or parameters.
            steps: How many steps of the optimizer the search takes: `Running.step` follows each.
            seed: Of fresh weights and hypernetworks, where the method has any.

        Raises:
            MetapruneError: No axis is free, or the budget cannot be met.
        """
        allocation = Allocation(graph, budget)
        network = self.generate(model, graph, seed)
        search = Search(self, network.latents, allocation, network.hide)
        return Running(self.name, network, search, steps, rate=self.latent_lr, decay=self.latent_decay)

    def generate(self, model: nn.Module, graph: ChannelGraph, seed: int = 0) -> Generated:
        """The network as a function of latent vectors; `model` is copied.

        Raises:
            MetapruneError: No axis is free.
        """
        if not graph.free:
            raise MetapruneError("DHP: the graph has no free axis that gates can silence; print the graph to see why")
        network = clone(written_out(model, graph.written_out))
        device = next(network.parameters()).device
        with randomness.isolated():
            torch.manual_seed(seed)
            if self.scratch:
                begin_anew(network)
            start = (
                {name: torch.randn(axis.size) for name, axis in graph.free.items()}
                if self.scratch
                else initial_latents(group_norms(network, graph))
            )
            latents = Latents(start).to(device)

            def hypernetwork(tensor: Tensor, terms: Terms) -> HyperNetwork | None:
                """That of a parameter with two channel dimensions; those with more have gates in either form."""
                further = any(axis.name in graph.free for term in terms[2:] for axis in axes_of(term))
                if self.form == "gate" or tensor.ndim < 2 or further or not all(size(term) > 1 for term in terms[:2]):
                    return None
                hyper = HyperNetwork(tensor.shape, self.embedding, self.offsets)
                hyper.to(tensor.device, torch.promote_types(tensor.dtype, torch.float32))
                if not self.scratch:
                    hyper.reproduce(tensor, latents.of(terms[0]), latents.of(terms[1]))
                return hyper

            return Generated(
                network,
                graph,
                latents,
                who=self.name,
                divide=not self.scratch,
                generator=hypernetwork,
                silencing=not self.offsets,  # as in the paper, where norms and biases speak for dead channels too
            )


def initial_latents(norms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """z_c = (s_c)^POWER with s the relative group norm, kept inside [0.1, 10]: latents differ from the start.

    Where |z| ranks, equal latents would shrink in lockstep and empty a whole axis at once.
    """
    return {name: norm.pow(POWER).clamp(0.1, 10.0) for name, norm in norms.items()}
