"""Fuse the channels that go into those that stay, instead of dropping them.

Source: Theus et al., Towards Meta-Pruning via Optimal Transport, ICLR 2024. Departures: stated in the room's README;
the main one is that by default channels that stay keep their rows, and only the columns that read them take over the
mass. `IntraFusion.published()` is the published form.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metaprune.cost.budget import Allocation
from metaprune.graph.arguments import check_switch, is_whole
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.rehearsal import on_the_cpu
from metaprune.methods.intra_fusion.features import features
from metaprune.methods.intra_fusion.transport import distances, handed_on, nearest, transported
from metaprune.methods.method import Found, OneShot, Problem
from metaprune.methods.saliency import group_norms
from metaprune.surgery.fuse import Fusion, fused

__all__ = ["IntraFusion"]

_CHOICES = {
    "producer": ("select", "mean", "sum"),
    "consumer": (None, "one", "projection"),
    "matching": ("transport", "nearest"),
    "features": ("producers", "both"),
}


@dataclass(frozen=True)
class IntraFusion:
    """Along each axis, the channels that go hand on what they contributed to those that stay and compute alike.

    Attributes:
        ranking: Who decides which channels stay, a method as `mp.Taylor()`; by default group norms, as `mp.Magnitude`.
        producer: What becomes of the rows of a channel that stays: "select" keeps them, "mean" averages them with those
            of the channels that are fused into it, "sum" adds those up (as published: the function changes even where
            channels are copies of one another).
        consumer: How much of a column is handed on: "one", all of it, or "projection", as much of it as there is of the
            channel that stays in the one that goes, ⟨w, w'⟩ / ‖w'‖². None: "projection" where statistics are
            recalibrated, else "one".
        matching: "transport" spreads the channels that go evenly over those that stay, by exact optimal transport
            (needs the package `pot`); "nearest" sends each to the one most like it.
        features: What two channels are compared by: the rows of their "producers", or "both" those and the columns of
            what reads them, as published.
        norm: Distances between normalised features are in this norm, 1 or 2.
        recalibrate: Whether statistics of batch norms are measured anew after the cut; without, no data are asked.
    """

    ranking: OneShot | None = None
    producer: Literal["select", "mean", "sum"] = "select"
    consumer: Literal["one", "projection"] | None = None
    matching: Literal["transport", "nearest"] = "transport"
    features: Literal["producers", "both"] = "producers"
    norm: Literal[1, 2] = 2
    recalibrate: bool = True

    name: ClassVar[str] = "intra_fusion"
    reference: ClassVar[str] = "Theus et al., Towards Meta-Pruning via Optimal Transport, ICLR 2024"
    asks_data: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for field, allowed in _CHOICES.items():
            if (value := getattr(self, field)) not in allowed:
                raise MetapruneError(f"intra-fusion: expected {field} as one of {allowed}, got {value!r}")
        if not is_whole(self.norm) or self.norm not in (1, 2):
            raise MetapruneError(f"intra-fusion: expected norm as 1 or 2, got {self.norm!r}")
        check_switch("intra-fusion", "recalibrate", self.recalibrate)
        if self.ranking is not None and (isinstance(self.ranking, type) or not isinstance(self.ranking, OneShot)):
            raise MetapruneError(
                f"intra-fusion: expected ranking as a method that decides without training, as mp.Taylor(), got "
                f"{self.ranking!r}"
            )
        if self.ranking is not None:
            object.__setattr__(
                self, "asks_data", self.ranking.asks_data
            )  # of this one, which asks what its ranking asks
        if self.matching == "transport" and importlib.util.find_spec("ot") is None:
            raise MetapruneError(
                "intra-fusion: exact optimal transport needs the package pot; pip install 'metaprune[fusion]', or take "
                "matching='nearest'"
            )

    @classmethod
    def published(cls, ranking: OneShot | None = None) -> IntraFusion:
        """As the authors' code: columns of the transport sum to one on both sides, distances in the 1-norm, no data."""
        return cls(ranking, producer="sum", consumer="one", features="both", norm=1, recalibrate=False)

    def scores(self, problem: Problem) -> Mapping[str, Tensor]:
        """Those of the ranking."""
        return group_norms(problem.model, problem.graph) if self.ranking is None else self.ranking.scores(problem)

    def find(self, problem: Problem) -> Found:
        """Let the ranking decide, and write what goes into what stays."""
        if self.ranking is None:
            scores = self.scores(problem)
            found = Found(Allocation(problem.graph, problem.budget).plan(scores), problem.model, scores)
        else:
            found = self.ranking.find(problem)
        if problem.at_once:
            return found
        return replace(
            found,
            model=self.fused(found.model, problem.graph, found.plan),
            before=found.model,
            recalibrate=self.recalibrate,
            notes=(*found.notes, *_dropped(problem.graph, found.plan)),
        )

    @on_the_cpu()
    def fused(self, model: nn.Module, graph: ChannelGraph, plan: Plan) -> nn.Module:
        """A full-width copy of which `plan` cuts the fused network; it is a network only after the cut.

        Args:
            model: The network that `graph` was traced from; left untouched.
            graph: From `mp.trace`.
            plan: The channels that stay.
        """
        plan.check(graph)
        known = features(model, graph, self.features)
        return fused(
            model,
            graph,
            {
                axis: self.fusion(known[axis], kept)
                for axis, kept in plan.kept.items()
                if len(kept) < graph.axes[axis].size and axis not in graph.unabsorbed
            },
        )

    def fusion(self, rows: Float[Tensor, " size features"], kept: tuple[int, ...]) -> Fusion:
        """What becomes of an axis: transport what goes to what stays, and read rows and columns off the plan."""
        stays = torch.tensor(kept)
        goes = torch.tensor(sorted({*range(len(rows))} - {*kept}))
        cost = distances(rows[goes], rows[stays], self.norm)
        moved = transported(cost) if self.matching == "transport" else nearest(cost)
        consumer = self.consumer or ("projection" if self.recalibrate else "one")
        whole = handed_on(moved, goes, stays, torch.ones_like(moved))
        mean = whole / whole.sum(1, keepdim=True)
        return Fusion(
            kept,
            reads=whole if consumer == "one" else handed_on(moved, goes, stays, _share(rows[goes], rows[stays])),
            writes={"select": None, "mean": mean, "sum": whole}[self.producer],
            carries=None if self.producer == "select" else mean,
        )


def _share(
    goes: Float[Tensor, " gone features"], stays: Float[Tensor, " kept features"]
) -> Float[Tensor, " gone kept"]:
    """How much of a channel that stays there is in one that goes: ⟨w, w'⟩ / ‖w'‖²; 1 where the latter is zero."""
    squares = stays.square().sum(1)
    return torch.where(squares > 0, goes @ stays.T / squares.clamp(min=1e-300), 1.0)


def _dropped(graph: ChannelGraph, plan: Plan) -> tuple[str, ...]:
    """The axes along which channels were dropped, in words."""
    cut = [axis for axis, kept in plan.kept.items() if len(kept) < graph.axes[axis].size and axis in graph.unabsorbed]
    return tuple(f"{axis} was cut without fusing: {graph.unabsorbed[axis]}" for axis in cut)
