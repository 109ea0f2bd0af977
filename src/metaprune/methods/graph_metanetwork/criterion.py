"""By what the channels of an edited network are ranked."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.tensors import named_tensors
from metaprune.methods.graph_metanetwork.network_graph import graph_of
from metaprune.methods.graph_metanetwork.objective import scores
from metaprune.methods.saliency import group_norms
from metaprune.surgery.attention import written_out

__all__ = ["CRITERIA", "Criterion", "check", "ranking"]

Criterion = Literal["magnitude", "importance"]

CRITERIA: tuple[Criterion, ...] = ("magnitude", "importance")


def ranking(model: nn.Module, graph: ChannelGraph, criterion: Criterion) -> dict[str, Tensor]:
    """One score per channel of each free axis, shape (size,), comparable between axes.

    Args:
        model: The network.
        graph: Its graph.
        criterion: "magnitude" is the group norm relative to each tensor's (`saliency.group_norms`), "importance" the
            sum of squares that the regulariser weighs, relative to the axis's mean (`objective.scores`).
    """
    if criterion == "magnitude":
        return group_norms(model, graph)
    read = graph_of(model, graph)
    tensors = named_tensors(written_out(model, graph.written_out))
    return scores(read, {block.name: tensors[block.name].detach() for block in read.learned})


def check(criterion: str, who: str) -> None:
    """Refuse what is no criterion."""
    if criterion not in CRITERIA:
        raise MetapruneError(f"{who}: expected criterion {' or '.join(map(repr, CRITERIA))}, got {criterion!r}")
