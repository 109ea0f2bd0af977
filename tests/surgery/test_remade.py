"""Numbers that copies of modules are made of."""

import copy
import pickle

import pytest
import torch

import metaprune as mp
from metaprune.graph.term import Axis
from metaprune.surgery.remade import remade
from tests.laws import oracle
from tests.zoo import ZOO
from tests.zoo.habits import SplitHeads


def test_what_a_copy_is_made_of_is_what_it_becomes() -> None:
    axis, module = Axis("heads", 3), torch.nn.Sequential(SplitHeads(heads=3))
    assert remade(module, {("0", "_lengths.0.1"): axis}) == {("0", "lengths.heads"): axis}
    assert module[0].lengths == {"heads": 3}


def test_a_number_that_becomes_nothing_is_left_alone() -> None:
    module = torch.nn.Sequential(SplitHeads(heads=3))
    module[0].other = 3
    assert set(remade(module, {("0", "_lengths.0.1"): Axis("heads", 3)})) == {("0", "lengths.heads")}
    assert remade(module, {}) == {}


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_of_a_cut_network_compute_what_it_does(again: object) -> None:
    model, args, _ = ZOO["made_anew"].example()
    graph = mp.trace(model, args)
    small = mp.slice(model, graph, oracle.half(graph))
    assert small.split._lengths == (("heads", 2),)
    assert torch.equal(again(small)(*args), small(*args))  # type: ignore[operator]
