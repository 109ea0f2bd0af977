"""By what the channels of an edited network are ranked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metaprune.cost.budget import Allocation, Budget
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.tensors import clone, named_tensors
from metaprune.methods.graph_metanetwork.reading.network_graph import Block, NetworkGraph, graph_of
from metaprune.methods.saliency import evidence_per_cost, gate_gradients, relative_norms
from metaprune.surgery.attention import written_out
from metaprune.train.task import Task

__all__ = ["CRITERIA", "Criterion", "Weights", "check", "heights", "importance", "ranking", "relative_importance"]

Criterion = Literal["blend", "magnitude", "importance"]

Weights = Mapping[str, Tensor]
"""Weights by name."""

CRITERIA: tuple[Criterion, ...] = ("blend", "magnitude", "importance")


def ranking(
    tensors: Mapping[str, Tensor],
    graph: ChannelGraph,
    read: NetworkGraph,
    criterion: Criterion,
    scores: Float[Tensor, " nodes"] | None,
    evidence: Mapping[str, Float[Tensor, " size"]],
) -> dict[str, Tensor]:
    """For each free axis, what its channels weigh times exp(score), shape (size,), comparable between axes.

    Args:
        tensors: The network's parameters by name, edited.
        graph: Its channel graph.
        read: What the metanetwork read.
        criterion: "magnitude" is the group norm relative to each tensor's (`saliency.group_norms`), "importance" the
            sum of squares that the regulariser weighs, relative to the axis's mean (`relative_importance`),
            and "blend" the group norm times the root of the evidence.
        scores: The metanetwork's; None raises nothing.
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
    scores = torch.zeros(len(read.axis)) if scores is None else scores
    raised = scores.detach().cpu().double().exp()
    return {name: weighed[name] * raised[nodes] for name, nodes in read.free.items()}


def heights(model: nn.Module, graph: ChannelGraph, task: Task, criterion: Criterion) -> dict[str, Tensor]:
    """The ranking of a network as it is, which no metanetwork has edited; `model` is left untouched.

    Args:
        model: The network.
        graph: Its channel graph.
        task: Whose training data give the evidence of a blend.
        criterion: As for `ranking`.
    """
    own = clone(written_out(model, graph.written_out)).eval()
    evidence: dict[str, Tensor] = {}
    if criterion == "blend" and len(task.train):
        prices = Allocation(graph, Budget(macs=1.0, multiple_of=1)).prices({})
        evidence = evidence_per_cost(gate_gradients(own, graph, task), prices)
    return ranking(named_tensors(own), graph, graph_of(own, graph), criterion, None, evidence)


def check(criterion: str, who: str) -> None:
    """Refuse what is no criterion."""
    if criterion not in CRITERIA:
        raise MetapruneError(f"{who}: expected criterion {' or '.join(map(repr, CRITERIA))}, got {criterion!r}")


def importance(graph: NetworkGraph, weights: Weights) -> Float[Tensor, " nodes"]:
    """For each channel the sum of squares of all edited entries that lie on it, biases left out."""
    like = next(iter(weights.values()))
    total = like.new_zeros(len(graph.axis))
    for side, blocks, which in graph.sides():
        along = [_squares(block, weights, 2 if which == "rows" else 1, like) for block in blocks]
        if along:
            total = total + side.total(torch.cat(along)[:, None])[:, 0]
    return total


def relative_importance(graph: NetworkGraph, weights: Weights) -> dict[str, Tensor]:
    """For each axis that may be cut, the channels' importance relative to the axis's mean."""
    found = importance(graph, weights).detach().cpu().double()
    return {name: found[nodes] / found[nodes].mean().clamp(min=1e-30) for name, nodes in graph.free.items()}


def _squares(block: Block, weights: Weights, across: int, like: Tensor) -> Float[Tensor, " positions"]:
    """The sums of squares along one side of a tensor; zeros for what is not edited, and for biases."""
    if block.name not in weights or block.role == "bias":
        return like.new_zeros(block.matrix.shape[3 - across])
    entries = weights[block.name].permute(block.order).reshape(block.matrix.shape)
    return entries.square().sum((0, across)).to(like)
