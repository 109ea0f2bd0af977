"""Evidence, as a metanetwork is told it."""

import copy
from dataclasses import replace

import torch
from torch import Generator

import metaprune as mp
from metaprune.methods.graph_metanetwork import Metanetwork, edit, graph_of
from metaprune.methods.graph_metanetwork.reading.evidence import informed
from metaprune.methods.saliency import gate_gradients, group_norms
from tests.methods import small


def test_what_is_told_by_hand() -> None:
    """That it was asked, sizes relative to all channels and to the axis, the sign, norms; nothing of what is fixed."""
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    said = gate_gradients(model, graph, small.task(), 4)
    norms = group_norms(model, graph)
    evidence = informed(graph_of(model, graph), said, norms).evidence
    read = graph_of(model, graph)
    whole = torch.cat(list(said.values()), 1).square().mean().sqrt()
    for name, nodes in read.free.items():
        size = said[name].square().mean(0).sqrt()
        own = size.square().mean().sqrt()
        expected = [torch.ones_like(size), (size / whole).log10(), (size / own).log10(), said[name].mean(0) / size]
        expected.append(norms[name].log10())
        torch.testing.assert_close(evidence[nodes], torch.stack(expected, 1).float())
    fixed = torch.ones(len(read.axis), dtype=torch.bool)
    for nodes in read.free.values():
        fixed[nodes] = False
    assert not evidence[fixed].any()


def test_renumbered_channels_have_the_same_evidence() -> None:
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    generator = Generator().manual_seed(3)
    orders = {axis: torch.randperm(a.size, generator=generator).tolist() for axis, a in graph.free.items()}
    said = gate_gradients(model, graph, small.task(), 4)
    norms = group_norms(model, graph)
    before = informed(graph_of(model, graph), said, norms)
    moved = {axis: rows[:, orders[axis]] for axis, rows in said.items()}
    after = informed(graph_of(model, graph), moved, {axis: rows[orders[axis]] for axis, rows in norms.items()})
    for name, nodes in before.free.items():
        torch.testing.assert_close(after.evidence[nodes], before.evidence[nodes][orders[name]])


def test_without_data_norms_are_all_that_is_told() -> None:
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    read = graph_of(model, graph)
    nothing = gate_gradients(model, graph, replace(small.task(), train=[]))
    assert not read.evidence.any()
    evidence = informed(read, nothing, group_norms(model, graph)).evidence
    assert not evidence[:, :4].any()
    assert evidence[:, 4].any()


def test_what_says_nothing_is_a_ten_thousandth() -> None:
    """A channel without a gradient or a norm; an axis without any gradient was not asked."""
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    read = graph_of(model, graph)
    said = {name: torch.ones(2, axis.size).double() for name, axis in graph.free.items()}
    norms = {name: torch.ones(axis.size).double() for name, axis in graph.free.items()}
    said["stem"][:, 3] = 0
    said["inner.0"][:] = 0
    norms["stem"][3] = norms["inner.0"][0] = 0
    evidence = informed(read, said, norms).evidence
    assert evidence[read.free["stem"]][3].tolist() == [1, -4, -4, 0, -4]
    assert evidence[read.free["inner.0"]][:2].tolist() == [[0, 0, 0, 0, -4], [0, 0, 0, 0, 0]]


def test_it_asks_and_changes_nothing() -> None:
    model = small.network().train()
    graph = mp.trace(model, small.EXAMPLE)
    state = copy.deepcopy(model.state_dict())
    copied = edit(model, graph, Metanetwork(8, 1), small.task())
    assert model.training
    for tensors in (model.state_dict(), copied.state_dict()):
        assert all(torch.equal(tensor, state[name]) for name, tensor in tensors.items())
