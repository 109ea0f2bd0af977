"""Calls of a network."""

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import metaprune as mp
from metaprune.graph.calling import _branches, answering, state_leaves


class Cache:
    """Of a class of its own."""

    def __init__(self, *held: Tensor) -> None:
        self.held = list(held)


class Two(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1

    def other(self, x: Tensor) -> Tensor:
        return x + 2


X = torch.zeros(2, 3)


def test_in_words() -> None:
    assert str(mp.Call((X,))) == "forward(2×3)"
    assert str(mp.Call((X,), {"b": X, "a": None}, "other", training=True)) == "other(2×3, b=2×3) in training"
    assert str(mp.Call((X,) * 4)) == "forward(2×3, 2×3, 2×3, 2×3)"
    assert str(mp.Call((X,) * 5)) == str(mp.Call((X,) * 9)) == "forward(2×3, 2×3, 2×3, …)"
    assert str(mp.Call((torch.tensor(2.0), 3))) == "forward(number)"


def test_keyword_inputs_have_one_order() -> None:
    assert list(mp.Call((), {"b": X, "a": X}).kwargs) == ["a", "b"]


def test_what_is_no_call_is_refused() -> None:
    with pytest.raises(mp.MetapruneError, match=r"args as a tuple .* write \(x,\)"):
        mp.Call(X)  # type: ignore[arg-type]
    with pytest.raises(mp.MetapruneError, match="kwargs as a dictionary"):
        mp.Call((), [X])  # type: ignore[arg-type]
    with pytest.raises(mp.MetapruneError, match="no input 'h' that could be a state"):
        mp.Call((X,), {"x": X}, states=("h",))
    for place in (1, -1):
        with pytest.raises(mp.MetapruneError, match=f"no input {place} that could be a state"):
            mp.Call((X,), states=(place,))


def test_states_are_named_or_of_a_class_of_their_own() -> None:
    call = mp.Call((X, (X, X)), {"cache": Cache(X, X), "mask": X, "plain": {"x": [X]}}, states=(1,))
    assert state_leaves(call) == [False, *[True] * 2, *[True] * 2, False, False]  # x, (x, x), cache, mask, plain
    assert state_leaves(call, lambda kind, key: key != "cache") == [False, True, True, *[False] * 4]


def test_a_method_answers_for_the_forward() -> None:
    model = Two()
    assert torch.equal(mp.Call((X,), method="other").of(model), X + 2)
    with answering(model, "other"):
        assert torch.equal(model(X), X + 2)
    assert torch.equal(model(X), X + 1)
    assert "forward" not in vars(model)


def test_a_forward_of_the_objects_own_is_given_back() -> None:
    model = Two()
    own = model.forward = lambda x: x + 3  # type: ignore[method-assign]
    with contextlib.suppress(KeyError), answering(model, "other"):
        assert torch.equal(model(X), X + 2)
        raise KeyError
    assert vars(model)["forward"] is own


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(3, 8)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.a(x) + self.b(y)).relu().sum(1)


def test_inputs_may_lie_in_one_memory() -> None:
    x = torch.randn(2, 6)
    assert "a" in mp.trace(Sum(), (x, x[:, :3])).free


def test_trees_are_read_as_older_pytorch_has_them() -> None:
    """PyTorch 2.8 has an attribute for what lies below a root, where newer ones have a method."""
    older: Any = SimpleNamespace(children_specs=["left", "right"])
    assert _branches(older) == ["left", "right"]
    newer = pytree.tree_structure((1, [2, 3]))
    assert [branch.num_leaves for branch in _branches(newer)] == [1, 2]
