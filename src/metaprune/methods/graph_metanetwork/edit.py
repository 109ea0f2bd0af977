"""Edit: a copy of a network with the weights that a metanetwork gives it."""

from __future__ import annotations

import torch
from torch import nn

from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.tensors import with_tensors
from metaprune.methods.graph_metanetwork.metanetwork import Metanetwork
from metaprune.methods.graph_metanetwork.network_graph import graph_of
from metaprune.surgery.attention import written_out

__all__ = ["edit"]


@torch.no_grad()
def edit(model: nn.Module, graph: ChannelGraph, metanetwork: Metanetwork) -> nn.Module:
    """A copy of `model` with edited weights; nothing is cut yet, and `graph` is the copy's graph, too.

    Args:
        model: The network; left untouched. Its attention modules are written out where the graph says so.
        graph: From `mp.trace(model, …)`.
        metanetwork: What edits it.

    Raises:
        PlanError: The graph is of another network.
        MetapruneError: The network has no finite values, or no parameters that train.
    """
    model = written_out(model, graph.written_out)
    read = graph_of(model, graph)
    if not read.learned:
        raise MetapruneError(
            f"edit: expected a {type(model).__name__} with parameters that train, got none; call model.requires_grad_()"
        )
    edited = metanetwork(read)
    return with_tensors(model, {name: tensor.contiguous() for name, tensor in edited.items()})
