"""Numbers that copies of modules are made of."""

import copy
import pickle
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

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


def test_what_copies_share_is_put_back() -> None:
    """Such as a table that is made once for all layers of one kind."""
    module = torch.nn.Sequential(SplitHeads(heads=3))
    module[0].table = SimpleNamespace(width=3)
    shared, first = module[0].table, module[0].__class__.__setstate__

    def sharing(self: SplitHeads, state: dict[str, Any]) -> None:
        first(self, state)
        self.table = shared

    with patch.object(SplitHeads, "__setstate__", sharing):
        assert set(remade(module, {("0", "_lengths.0.1"): Axis("heads", 3)})) == {("0", "lengths.heads")}
    assert shared.width == 3


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_of_a_cut_network_compute_what_it_does(again: object) -> None:
    model, args, _ = ZOO["made_anew"].example()
    graph = mp.trace(model, args)
    small = mp.slice(model, graph, oracle.half(graph))
    assert small.split._lengths == (("heads", 2),)
    assert torch.equal(again(small)(*args), small(*args))  # type: ignore[operator]
