"""Networks of the zoo with their graphs, and a metanetwork whose edits can be seen."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from metaprune.methods.graph_metanetwork import Metanetwork, NetworkGraph, graph_of
from metaprune.surgery.attention import written_out
from tests.laws import case as traced
from tests.zoo import few


@dataclass(frozen=True)
class Case(traced.Case):
    """A network of the zoo with its inputs, its channel graph and what a metanetwork reads."""

    read: NetworkGraph

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """By the names that the graph knows."""
        return dict(written_out(self.model, self.graph.written_out).named_parameters())


@few
def case(name: str) -> Case:
    found = traced.case(name)
    return Case(**vars(found), read=graph_of(found.model, found.graph))


def stirred(hidden: int = 8, layers: int = 3, seed: int = 0, **fields: Any) -> Metanetwork:
    """In float64, with decoders that are not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        metanetwork = Metanetwork(hidden, layers, **fields).double()
        for weight in (metanetwork.write_edges.outer, metanetwork.write_attributes.outer):
            nn.init.normal_(weight)
        nn.init.normal_(metanetwork.write_scores[2].weight)
        if metanetwork.scored != "channels":
            nn.init.normal_(metanetwork.write_axes[2].weight)
        if metanetwork.scored == "widths":
            nn.init.normal_(metanetwork.read_widths.weight)
    return metanetwork


def told(read: NetworkGraph) -> NetworkGraph:
    """The same with some evidence."""
    return replace(read, evidence=torch.randn(read.evidence.shape, generator=Generator().manual_seed(0)))


def gradients(metanetwork: Metanetwork) -> dict[str, Tensor]:
    """Those of its parameters, which are taken away."""
    found = {name: p.grad.clone() for name, p in metanetwork.named_parameters() if p.grad is not None}
    metanetwork.zero_grad()
    return found
