"""Objects of a network's own classes among its inputs and outputs: read, built again, and not left behind."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import metaprune as mp
from metaprune.graph.objects import open_to_trees


@dataclass
class Answer:
    scores: Tensor
    words: str = "of a dataclass"


class Plain:
    def __init__(self, scores: Tensor) -> None:
        self.scores, self.parts = scores, {"twice": [scores * 2]}


class Slotted:
    __slots__ = ("scores",)

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores


class Listed(list[Tensor]):
    @property
    def scores(self) -> Tensor:
        return self[0]


Named = namedtuple("Named", ["scores", "other"])


class Cache:
    """What a network made and wants back."""

    def __init__(self, keys: Tensor) -> None:
        self.keys, self.steps = keys, 1


class Net(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.a, self.b, self.kind = nn.Linear(4, 8), nn.Linear(8, 3), kind

    def forward(self, x: Any, cache: Cache | None = None) -> Any:
        h = self.a(x.scores if isinstance(x, Plain) else x)
        if cache is not None:
            h = h + cache.keys
        scores = self.b(h.relu())
        return {
            "dataclass": lambda: Answer(scores, "its own"),
            "plain": lambda: Plain(scores),
            "slots": lambda: Slotted(scores),
            "list": lambda: Listed([scores]),
            "named": lambda: Named(scores, None),
            "cache": lambda: {"scores": scores, "cache": Cache(h)},
        }[self.kind]()


KINDS = ("dataclass", "plain", "slots", "list", "named")


def scores(output: Any) -> Tensor:
    return output["scores"] if isinstance(output, dict) else output.scores  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_returns_counts_whatever_its_class(kind: str) -> None:
    model, x = Net(kind).double().eval(), torch.randn(2, 4).double()
    graph = mp.trace(model, (x,))
    assert list(graph.free) == ["a"], "the scores are a user's, and keep their size"
    plan = mp.Plan({"a": [1, 2, 5]})
    small, masked = mp.slice(model, graph, plan)(x), mp.mask(model, graph, plan)(x)
    assert type(masked) is type(small) is type(model(x))
    torch.testing.assert_close(scores(small), scores(masked), rtol=1e-10, atol=1e-10)
    if kind == "dataclass":
        assert masked.words == small.words == "its own"
    if kind == "plain":
        torch.testing.assert_close(masked.parts["twice"][0], 2 * scores(small), rtol=1e-10, atol=1e-10)
    assert not {Answer, Plain, Slotted, Listed} & pytree.SUPPORTED_NODES.keys(), "nothing is left in PyTorch's registry"


def test_a_cache_that_it_takes_back_is_cut_with_it() -> None:
    model, x = Net("cache").double().eval(), torch.randn(2, 4).double()
    made = model(x)["cache"]
    calls = (mp.Call((x,)), mp.Call((x,), {"cache": made}))
    graph = mp.trace(model, (x,), calls=calls)
    assert list(graph.free) == ["a"]
    plan = mp.Plan({"a": [1, 2, 5]})
    small, masked = mp.slice(model, graph, plan), mp.mask(model, graph, plan)
    first = small(x)
    assert first["cache"].keys.shape == (2, 3)
    assert first["cache"].steps == 1
    expected = masked(x, masked(x)["cache"])
    torch.testing.assert_close(scores(small(x, first["cache"])), scores(expected), rtol=1e-10, atol=1e-10)
    assert made.keys.shape == (2, 8)


def test_sizes_inside_an_object_that_is_given_are_those_of_an_input() -> None:
    model, x = Net("plain").double().eval(), Plain(torch.randn(2, 4).double())
    graph = mp.trace(model, (x,))
    assert [axis.size for axis in graph.free.values()] == [8]
    plan = mp.Plan({name: [0, 3] for name in graph.free})
    small = mp.slice(model, graph, plan)
    torch.testing.assert_close(scores(small(x)), scores(mp.mask(model, graph, plan)(x)), rtol=1e-10, atol=1e-10)


def test_trees_close_when_all_that_opened_them_have_ended() -> None:
    before = set(pytree.SUPPORTED_NODES)
    with open_to_trees(Plain(torch.ones(2))):
        with open_to_trees(Slotted(torch.ones(2))):
            assert len(pytree.tree_leaves(Plain(torch.ones(2)))) == 2
        leaves, tree = pytree.tree_flatten(Plain(torch.ones(2)))
        again = pytree.tree_unflatten(leaves, tree)
        assert again.parts["twice"][0].tolist() == [2, 2]
    assert set(pytree.SUPPORTED_NODES) == before


class Counted(Slotted):
    """A slot of its own beside the one it inherits, and what is written to."""

    __slots__ = ("seen", "steps")

    def __init__(self, scores: Tensor, steps: int) -> None:
        super().__init__(scores)
        self.steps, self.seen = steps, [1]


def test_an_object_is_built_again_with_all_it_held_and_shares_nothing_that_is_written_to() -> None:
    given = Counted(torch.ones(2), 7)
    with open_to_trees(given):
        leaves, tree = pytree.tree_flatten(given)
        _, other = pytree.tree_flatten(Counted(torch.ones(2), 8))
        _, same = pytree.tree_flatten(Counted(torch.zeros(3), 7))
        one, two = pytree.tree_unflatten(leaves, tree), pytree.tree_unflatten(leaves, tree)
    assert tree == same
    assert tree != other, "the numbers in it are part of what it is"
    assert (type(one), one.steps, one.seen, len(leaves)) == (Counted, 7, [1], 1)
    one.seen.append(2)
    assert two.seen == given.seen == [1]
