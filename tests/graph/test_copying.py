"""A copy of a network is apart from it: functions that speak of the network speak of the copy, others are shared."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from metaprune.graph.copying import clone


def test_functions_that_enclose_what_the_network_holds_are_copied_and_others_are_not() -> None:
    class Holding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            factor = 3.0

            def plain(x: Tensor) -> Tensor:
                return x * factor

            def own(x: Tensor) -> Tensor:
                return torch.Tensor(self.linear(x))

            def through(x: Tensor) -> Tensor:
                return own(x) + 1

            self.plain: Callable[[Tensor], Tensor] = plain
            self.own: Callable[[Tensor], Tensor] = own
            self.through: Callable[[Tensor], Tensor] = through

    model, x = Holding(), torch.rand(1, 2)
    copied = clone(model)
    assert copied.plain is model.plain
    assert copied.own is not model.own
    assert copied.through is not model.through
    with torch.no_grad():
        copied.linear.weight.zero_()
        copied.linear.bias.zero_()
    assert copied.own(x).abs().sum() == 0
    assert torch.equal(copied.through(x), torch.ones(1, 2))
    assert model.own(x).abs().sum() > 0


class Holds(nn.Module):
    """Whatever it is given."""

    def __init__(self, **held: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        vars(self).update(held)

    def width(self) -> int:
        return self.layer.out_features


def speaking(model: nn.Module) -> Callable[..., Any]:
    """With all that a function can have."""

    def function(x: int, y: int = 2, *, z: int = 3) -> tuple[nn.Module, int]:
        return model, x + y + z

    function.said, function.__qualname__ = ["mine"], "Another.name"  # type: ignore[attr-defined]
    return function


def test_a_function_that_speaks_of_the_network_is_copied_whole() -> None:
    model = Holds()
    function = model.function = speaking(model)  # type: ignore[assignment]
    copied: Any = clone(model)
    assert copied.function is not function
    assert copied.function(1) == (copied, 6)
    assert copied.function(1, z=10) == (copied, 13)
    assert copied.function.said == ["mine"]
    assert (copied.function.__name__, copied.function.__qualname__) == (function.__name__, function.__qualname__)
    assert copied.function.__module__ == __name__
    assert function(1) == (model, 6), "the one given still speaks of the network given"


def test_so_is_one_that_encloses_a_method() -> None:
    model = Holds()
    method = model.width
    model.asks = lambda: (method.__self__, method())  # type: ignore[assignment]
    copied: Any = clone(model)
    copied.layer.out_features = 7
    assert copied.asks() == (copied, 7)
    assert model.asks() == (model, 2)  # type: ignore[operator]


def test_what_cannot_be_copied_is_shared() -> None:
    number, lock = [1], threading.Lock()
    copied: Any = clone(Holds(lock=lock, lists=[number]))
    assert copied.lock is lock
    assert copied.lists == [[1]]
    assert copied.lists[0] is not number


def test_computed_tensors_are_copied_as_they_are() -> None:
    weight = torch.ones(2, requires_grad=True)
    with torch.inference_mode():
        made = nn.Parameter(torch.full((2,), 3.0), requires_grad=False)
    model = Holds(computed=2 * weight)
    model.register_parameter("made", made)
    copied: Any = clone(model)
    assert (copied.computed.tolist(), copied.computed.requires_grad) == ([2, 2], False)
    assert (copied.made.tolist(), copied.made.requires_grad, copied.made.is_inference()) == ([3, 3], False, False)
    assert type(copied.made) is nn.Parameter
    copied.computed.zero_()
    copied.made.zero_()
    assert (model.computed.tolist(), made.tolist()) == ([2, 2], [3, 3])  # type: ignore[union-attr]


def test_what_is_told_takes_its_place() -> None:
    model = Holds()
    other = nn.Parameter(torch.zeros(2, 3))
    copied: Any = clone(model, {id(model.layer.weight): other})
    assert copied.layer.weight is other
    assert copied.layer.bias is not model.layer.bias
    assert torch.equal(copied.layer.bias, model.layer.bias)


class Table(nn.Module):
    """Pieces of one memory, of which one is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        flat = torch.arange(6.0)
        self.head, self.tail = nn.Parameter(flat[:4].view(2, 2), requires_grad=False), flat[3:]

    def both(self) -> tuple[Tensor, Tensor]:
        return self.head, self.tail


def test_tensors_in_one_memory_lie_in_one_of_their_own() -> None:
    model = Table()
    copied: Any = clone(model)
    assert all(map(torch.equal, copied.both(), model.both()))
    copied.head[1, 1] = 9.0
    assert (copied.tail.tolist(), model.tail.tolist()) == ([9, 4, 5], [3, 4, 5])
    assert type(copied.head) is nn.Parameter
    assert not copied.head.requires_grad


def test_what_is_empty_is_a_copys_own_and_shared_where_it_was() -> None:
    """Also where two modules hold the same; what has a class of its own is copied as that says."""

    class Own(dict[str, int]):
        def __deepcopy__(self, memo: dict[int, Any]) -> Own:
            return self

    both: list[int] = []
    model = nn.Sequential(Holds(found=both, names=set(), own=Own()), Holds(found=both, names=set(), own=Own()))
    copied: Any = clone(model)
    copied[0].found.append(1)
    copied[0].names.add("a")
    copied[0].register_forward_hook(lambda *_: None)
    assert copied[1].found == [1]
    assert not copied[1].names
    assert not both
    assert not any(one.names for one in model)
    assert not model[0]._forward_hooks
    assert not copied[1]._forward_hooks
    assert all(type(one._forward_hooks) is type(nn.Module()._forward_hooks) for one in copied)
    assert [one.own is other.own for one, other in zip(copied, model, strict=True)] == [True, True]
