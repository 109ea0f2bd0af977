"""Numbers that equal a size and were not followed to it: left as they are, and said."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp


class Block(nn.Module):
    """Holds numbers that equal sizes: one is a size that only other code reads, the rest are none."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.width, self.layer_idx, self.heads = 24, place, 4
        self.sizes, self.config = [24, 5], SimpleNamespace(token=24)
        self.project, self.out = nn.Linear(5, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(x).view(len(x), self.heads, -1)
        return x + self.out((y * y.softmax(1)).flatten(1))


class Named(nn.Module):
    """Not PyTorch's layer, though its attributes are called alike."""

    def __init__(self) -> None:
        super().__init__()
        self.in_features, self.out_features, self.weight = 5, 8, nn.Parameter(torch.ones(8, 5))
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(nn.functional.linear(x, self.weight))


@pytest.fixture
def model() -> nn.Sequential:
    return nn.Sequential(*(Block(place) for place in range(8)))


X = (torch.zeros(2, 5),)


def halved(graph: mp.ChannelGraph) -> mp.Plan:
    return mp.Plan({name: range(axis.size // 2) for name, axis in graph.free.items()})


def test_a_number_that_was_not_followed_is_left_alone(model: nn.Sequential) -> None:
    graph = mp.trace(model, X)
    small = mp.slice(model, graph, halved(graph))
    for place, block in enumerate(small):
        assert (block.heads, block.project.out_features) == (2, 6), "what was followed, or is PyTorch's own, moves"
        assert (block.width, block.layer_idx, block.sizes, block.config.token) == (24, place, [24, 5], 24)


def test_it_is_said(model: nn.Sequential) -> None:
    graph = mp.trace(model, X)
    assert {attribute for _, attribute in graph.unfollowed} == {"width", "layer_idx", "sizes.0", "config.token"}
    said = graph.left_alone()
    assert "0.width = 24, as large as 0.project[0] × 0.project[1] (and 7 more like it)" in said
    assert any("layer_idx = 4" in line for line in said), "4 is the number of heads"
    assert "stay as they are" in str(graph)
    assert all(line in str(graph) for line in said)


def test_only_what_a_plan_changes_is_said_of_it(model: nn.Sequential) -> None:
    graph = mp.trace(model, X)
    heads = next(name for name, axis in graph.free.items() if axis.size == 4 and name.startswith("2."))
    said = graph.left_alone({heads: 2})
    assert len(said) == 3
    assert all(line.startswith("2.") for line in said)
    assert graph.left_alone({}) == []


def test_a_network_without_such_numbers_says_nothing() -> None:
    graph = mp.trace(nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 3)), X)
    assert graph.left_alone() == []
    assert "stay as they are" not in str(graph)


def test_only_pytorchs_own_attributes_are_known_by_name() -> None:
    model = Named()
    graph = mp.trace(model, X)
    small = mp.slice(model, graph, halved(graph))
    assert tuple(small.weight.shape) == (4, 5)
    assert small.out_features == 8
    assert {attribute for _, attribute in graph.unfollowed} == {"out_features"}
