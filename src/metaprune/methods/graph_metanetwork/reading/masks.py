"""Channels left out by zeros in the weights that lie on them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune.graph.plan import Plan
from metaprune.graph.rehearsal import on_the_cpu
from metaprune.methods.graph_metanetwork.reading.network_graph import NetworkGraph

__all__ = ["living", "masked"]


@on_the_cpu()
def living(graph: NetworkGraph, plan: Plan) -> Float[Tensor, " nodes"]:
    """One for each channel that a plan keeps, zero for the others."""
    found = torch.ones(len(graph.axis))
    free = graph.free
    for name, kept in plan.kept.items():
        nodes = free[name]
        alive = torch.zeros(nodes.stop - nodes.start)
        alive[list(kept)] = 1
        found[nodes] = alive
    return found.to(graph.axis.device)


def masked(graph: NetworkGraph, weights: Mapping[str, Tensor], alive: Float[Tensor, " nodes"]) -> dict[str, Tensor]:
    """Edited weights with zeros wherever they lie on a channel that is not alive.

    Where no statistic runs over channels this is what a cut computes; see `mp.mask` for the function of any cut.
    """
    found = dict(weights)
    for side, blocks, which in graph.sides():
        stays = side.product(alive)
        for block in blocks:
            if block.name in found:
                here = stays[slice(*getattr(block, which))].to(found[block.name])
                here = here[None, :, None] if which == "rows" else here[None, None]
                found[block.name] = found[block.name] * block.tensor(here.expand(block.matrix.shape))
    return found
