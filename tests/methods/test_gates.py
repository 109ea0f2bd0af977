"""Gates on what reads alone: a channel counts once, and a gate of zero is a cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.graph.tensors import clone
from metaprune.graph.term import axes_of
from metaprune.methods.gates.generated import Generated
from metaprune.methods.gates.latents import Latents
from metaprune.methods.gates.terms import reading_terms
from metaprune.surgery.attention import written_out
from metaprune.surgery.slice import carve
from tests.laws import oracle
from tests.laws.case import case
from tests.methods.rough import is_cut_whole, rough_cut
from tests.methods.small import EXAMPLE, Small
from tests.zoo import networks


def gated(model: nn.Module, graph: mp.ChannelGraph) -> Generated:
    """With gates of 1, on what reads."""
    network = clone(written_out(model, graph.written_out))
    ones = Latents({name: torch.ones(axis.size) for name, axis in graph.free.items()})
    return Generated(network, graph, ones, terms=reading_terms(graph), divide=False)


def gates_of(graph: mp.ChannelGraph) -> dict[str, list[set[str]]]:
    """The axes gated along each dimension of each parameter."""
    return {
        name: [{axis.name for axis in axes_of(term)} & graph.free.keys() for term in terms]
        for name, terms in reading_terms(graph).items()
        if name in graph.parameters
    }


def test_only_what_reads_is_gated() -> None:
    model = Small()
    found = gates_of(mp.trace(model, EXAMPLE))
    gates = {name: dims for name, dims in found.items() if any(dims)}
    none: list[set[str]] = [set(), set()]
    assert gates == {
        "inner.0.weight": [set(), {"stem"}, *none],
        "back.weight": [set(), {"inner.0"}, *none],
        "wide.0.weight": [set(), {"stem"}, *none],
        "head.weight": [set(), {"wide.0"}],
    }


def test_half_a_gate_passes_on_half_a_channel() -> None:
    """Whatever normalises it on the way, and however many layers carry it."""
    torch.manual_seed(0)
    model = Small().eval()
    graph = mp.trace(model, EXAMPLE)
    half = gated(model, graph).eval()
    other = clone(model).eval()
    with torch.no_grad():
        for name, z in half.latents.named().items():
            z[: len(z) // 2] = 0.5
            del name
        other.inner[0].weight[:, :8] *= 0.5
        other.back.weight[:, :6] *= 0.5
        other.wide[0].weight[:, :8] *= 0.5
        other.head.weight[:, :12] *= 0.5
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(half(x), other(x))


@pytest.mark.parametrize("name", networks(families=3))
def test_a_gate_of_zero_is_a_cut(name: str) -> None:
    c = case(name, torch.float64)
    if not c.graph.free:
        return
    network = gated(c.model, c.graph).double()
    assert oracle.distance(c.run(c.model), c.run(network)) < 1e-12
    plan = oracle.ragged(c.graph, seed=2)
    with torch.no_grad():
        for axis, z in network.latents.named().items():
            gone = torch.ones(len(z), dtype=torch.bool)
            gone[list(plan.kept[axis])] = False
            z[gone] = 0
    network.hide(plan)
    expected: Any = c.run(network)
    folded = network.fold()
    small = rough_cut(folded, c.graph, plan) if is_cut_whole(name) else carve(folded, c.graph, plan).model
    assert oracle.distance(expected, c.run(small)) < 1e-10
