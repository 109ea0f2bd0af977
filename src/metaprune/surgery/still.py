"""Randomness held still, so that two networks can be compared: dropout lets everything pass, other draws repeat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx
from torch.utils._python_dispatch import TorchDispatchMode

from metaprune.graph.call import named_arguments

__all__ = ["Still", "draws", "is_stilled"]

aten = torch.ops.aten
_DROPPING = {
    *(aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout, aten.native_dropout),
    *(aten.dropout_, aten.feature_dropout_, aten.alpha_dropout_, aten.feature_alpha_dropout_),
    *(aten.bernoulli, aten.bernoulli_, aten.scaled_dot_product_attention),
    *(aten.lstm, aten.gru, aten.rnn_tanh, aten.rnn_relu),
}
"""Operators whose draws `Still` replaces by their mean, so that it does not matter how many there are."""


def draws(node: fx.Node) -> bool:
    """Whether an operator draws random numbers: dropout does not where it is switched off, or drops nothing."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    given = named_arguments(node.target, node.args, node.kwargs)
    idle = any(given.get(name, True) is False for name in ("train", "training")) or given.get("dropout_p", 1.0) == 0.0
    return not idle


def is_stilled(node: fx.Node) -> bool:
    """Whether what an operator draws becomes its mean, entry by entry."""
    return getattr(node.target, "overloadpacket", None) in _DROPPING


class Still(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, draws of zeros and ones are their mean: divided by it, as dropout does, they are ones.

    The n-th of all other draws is the same each time, if its size is. The generators of the process are moved.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drawn = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        given = named_arguments(func, args, kwargs)
        if (mean := _MEANS.get(func)) is not None:
            return mean(given)
        if "dropout_p" in given:
            place = [argument.name for argument in func._schema.arguments].index("dropout_p")
            args = (*args[:place], 0.0, *args[place + 1 :]) if place < len(args) else args
            kwargs = kwargs if place < len(args) else kwargs | {"dropout_p": 0.0}
        self.drawn += 1
        torch.manual_seed(self.drawn)
        return func(*args, **kwargs)


_MEANS: Mapping[Any, Callable[[dict[str, Any]], Any]] = {
    aten.bernoulli_.float: lambda given: given["self"].fill_(given["p"]),
    aten.bernoulli_.Tensor: lambda given: given["self"].copy_(given["p"]),
    aten.bernoulli.default: lambda given: given["self"].clone(),
    aten.bernoulli.p: lambda given: torch.full_like(given["self"], given["p"]),
    aten.native_dropout.default: lambda given: (
        given["input"].clone(),
        torch.ones_like(given["input"], dtype=torch.bool),
    ),
}
