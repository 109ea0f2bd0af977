"""Edit: a copy of a network with the weights that a metanetwork gives it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metaprune.cost.budget import Allocation, Budget
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.rehearsal import on_the_cpu
from metaprune.graph.tensors import named_tensors, with_tensors
from metaprune.methods.graph_metanetwork.criterion import Criterion, ranking
from metaprune.methods.graph_metanetwork.editor.metanetwork import Metanetwork
from metaprune.methods.graph_metanetwork.reading.evidence import informed
from metaprune.methods.graph_metanetwork.reading.network_graph import NetworkGraph, graph_of
from metaprune.methods.graph_metanetwork.reading.survey.left import left
from metaprune.methods.graph_metanetwork.reading.survey.survey import surveyed
from metaprune.methods.saliency import evidence_per_cost, gate_gradients, relative_norms
from metaprune.surgery.attention import written_out
from metaprune.train.task import Task

__all__ = ["Rewritten", "edit", "rewrite"]


class Rewritten(NamedTuple):
    """An edited network.

    Attributes:
        model: The copy with the edited weights.
        read: What the metanetwork read.
        scores: How far it raises each channel in the ranking, see `metanetwork.Edited`.
        tilts: By how much each axis is to be wider than the criterion has it, see there.
        gradients: What the training data said of its channels (`saliency.gate_gradients`); empty without a task.
    """

    model: nn.Module
    read: NetworkGraph
    scores: Float[Tensor, " nodes"]
    tilts: Float[Tensor, " axes"]
    gradients: dict[str, Float[Tensor, " batches size"]]


def rewrite(
    model: nn.Module,
    graph: ChannelGraph,
    metanetwork: Metanetwork,
    task: Task | None = None,
    share: float = 0.5,
    allocation: Allocation | None = None,
    criterion: Criterion = "blend",
) -> Rewritten:
    """A copy of `model` with edited weights, and how far its channels are raised in the ranking; nothing is cut yet.

    Args:
        model: The network; left untouched. Its attention modules are written out where the graph says so.
        graph: From `mp.trace(model, …)`; it is the copy's graph, too.
        metanetwork: What edits it.
        task: Some of its training data are asked about each channel (`saliency.gate_gradients`); without a task
            the metanetwork has nothing but the weights.
        share: Of the cost, that the network will be cut to.
        allocation: The budget it will be cut to, where a metanetwork is told what the criterion leaves; by default that
            share of the MACs.
        criterion: By what channels will be ranked.

    Raises:
        PlanError: The graph is of another network.
        MetapruneError: The network has no finite values, or no parameters that train.
        BudgetError: The share cannot be met, where that has to be known.
    """
    model = written_out(model, graph.written_out)
    read = graph_of(model, graph)
    if not read.learned:
        raise MetapruneError(
            f"edit: expected a {type(model).__name__} with parameters that train, got none; call model.requires_grad_()"
        )
    gradients = gate_gradients(model, graph, task, held=metanetwork.held) if task is not None else {}
    read = informed(read, gradients, relative_norms(named_tensors(model), graph))
    read = surveyed(read, model, graph, task, metanetwork.surveys, gradients)
    told = None
    if "left" in metanetwork.surveys:
        allocation = allocation or Allocation(graph, Budget(macs=share, multiple_of=1))
        evidence = evidence_per_cost(gradients, allocation.prices({}))
        heights = ranking(named_tensors(model), graph, read, criterion, None, evidence)
        told = left(allocation, allocation.plan(heights), read.names)
    with torch.no_grad(), on_the_cpu():
        edited = metanetwork(read.aimed(share, told))
    weights = {name: tensor.contiguous() for name, tensor in edited.weights.items()}
    return Rewritten(with_tensors(model, weights), read, edited.scores, edited.tilts, gradients)


def edit(
    model: nn.Module,
    graph: ChannelGraph,
    metanetwork: Metanetwork,
    task: Task | None = None,
    share: float = 0.5,
) -> nn.Module:
    """A copy of `model` with edited weights, see `rewrite`."""
    return rewrite(model, graph, metanetwork, task, share).model
