"""A copy of a network speaks of itself; what speaks of nothing of the network's is not copied."""

from collections.abc import Callable

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
