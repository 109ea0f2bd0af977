"""What data say of a network's channels, as the metanetwork is told it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune.graph.rehearsal import on_the_cpu
from metaprune.methods.graph_metanetwork.reading.features import EVIDENCE_FEATURES
from metaprune.methods.graph_metanetwork.reading.network_graph import NetworkGraph

__all__ = ["informed"]

LEAST = 1e-4
"""What says less than this share of the others says nothing."""


@on_the_cpu()
def informed(
    graph: NetworkGraph,
    gradients: Mapping[str, Float[Tensor, " batches size"]],
    norms: Mapping[str, Float[Tensor, " size"]],
) -> NetworkGraph:
    """The graph, told what the gates on channels say, and what one-shot criteria would go by.

    Of each channel: that it was asked; the root mean square of its gate's gradient over batches, as a decimal logarithm
    relative to all channels that may be cut, and relative to those of its axis; the mean over the root mean square,
    whose sign tells whether the loss would rise without it; and its group norm, as a logarithm, too.

    Args:
        graph: Of the network, from `graph_of`.
        gradients: From `saliency.gate_gradients`.
        norms: From `saliency.relative_norms`.
    """
    evidence = torch.zeros(len(graph.axis), EVIDENCE_FEATURES)
    squares = {name: said.square().mean(0) for name, said in gradients.items() if len(said)}
    whole = torch.cat(list(squares.values())).mean() if squares else torch.zeros(())
    for name, nodes in graph.free.items():
        evidence[nodes, 4] = norms[name].clamp(min=LEAST).log10().float()
        if name in squares and (mean := squares[name].mean()) > 0:
            here = squares[name]
            sizes = [(here / scale).clamp(min=LEAST**2).log10() / 2 for scale in (whole, mean)]
            sign = gradients[name].mean(0) / here.sqrt().clamp(min=1e-30)
            evidence[nodes, :4] = torch.stack([torch.ones_like(here), *sizes, sign], 1).float()
    return replace(graph, evidence=evidence.to(graph.axis.device))
