"""By what the channels of an edited network are ranked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.methods.graph_metanetwork.network_graph import NetworkGraph
from metaprune.methods.graph_metanetwork.objective import relative_importance
from metaprune.methods.saliency import relative_norms

__all__ = ["CRITERIA", "Criterion", "check", "ranking"]

Criterion = Literal["blend", "magnitude", "importance"]

CRITERIA: tuple[Criterion, ...] = ("blend", "magnitude", "importance")


def ranking(
    tensors: Mapping[str, Tensor],
    graph: ChannelGraph,
    read: NetworkGraph,
    criterion: Criterion,
    scores: Float[Tensor, " nodes"],
    evidence: Mapping[str, Float[Tensor, " size"]],
) -> dict[str, Tensor]:
    """For each free axis, what its channels weigh times exp(score), shape (size,), comparable between axes.

    Args:
        tensors: The network's parameters by name, edited.
        graph: Its channel graph.
        read: What the metanetwork read.
        criterion: "magnitude" is the group norm relative to each tensor's (`saliency.group_norms`), "importance" the
            sum of squares that the regulariser weighs, relative to the axis's mean (`objective.relative_importance`),
            and "blend" the group norm times the root of the evidence.
        scores: The metanetwork's.
        evidence: From `saliency.evidence_per_cost`, of the network as it was; where there is none, a blend is the
            group norm.
    """
    if criterion == "importance":
        weighed = relative_importance(read, {block.name: tensors[block.name].detach() for block in read.learned})
    else:
        weighed = relative_norms(tensors, graph)
    if criterion == "blend":
        weighed = {
            name: norms * evidence[name].sqrt() if name in evidence else norms for name, norms in weighed.items()
        }
    raised = scores.detach().double().cpu().exp()
    return {name: weighed[name] * raised[nodes] for name, nodes in read.free.items()}


def check(criterion: str, who: str) -> None:
    """Refuse what is no criterion."""
    if criterion not in CRITERIA:
        raise MetapruneError(f"{who}: expected criterion {' or '.join(map(repr, CRITERIA))}, got {criterion!r}")
