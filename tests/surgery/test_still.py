"""Randomness held still: zeros and ones are their mean, the n-th of all other draws is the same each time."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from metaprune.surgery.still import Still, draws, is_stilled

X = torch.rand(4, 6) + 0.5

DROPPING: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: F.dropout(x, 0.5, training=True),
    "of whole channels": lambda x: F.dropout1d(x[None], 0.5, training=True)[0],
    "in place": lambda x: F.dropout(x.clone(), 0.9, training=True, inplace=True),
    "native": lambda x: torch.native_dropout(x, 0.5, True)[0],
    "by hand": lambda x: x * torch.empty(4, 1).bernoulli_(0.8).div_(0.8),
    "of given chances": lambda x: x * torch.empty(4, 1).bernoulli_(torch.full((4, 1), 0.8)).div_(0.8),
    "chances as they are": lambda x: x * torch.bernoulli(torch.full((4, 1), 0.8)) / 0.8,
    "one chance": lambda x: x * torch.bernoulli(torch.empty(4, 1), 0.8) / 0.8,
}


@pytest.mark.parametrize("name", DROPPING)
def test_dropout_lets_everything_pass(name: str) -> None:
    torch.manual_seed(0)
    assert not torch.allclose(DROPPING[name](X), X)
    with Still():
        torch.testing.assert_close(DROPPING[name](X), X)


def test_attention_drops_nothing_wherever_its_chance_stands() -> None:
    q, k, v = (torch.rand(1, 2, 5, 4) for _ in range(3))
    whole = F.scaled_dot_product_attention(q, k, v)
    with Still():
        torch.testing.assert_close(F.scaled_dot_product_attention(q, k, v, dropout_p=0.5), whole)
        torch.testing.assert_close(F.scaled_dot_product_attention(q, k, v, None, 0.5), whole)


def test_draws_are_the_same_each_time_and_differ_among_themselves() -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        with Still():
            found.append([torch.randn(3), torch.rand(3), torch.randn(3)])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(found[0][0], found[0][2])


class Drops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(x, 0.5, training=self.training)
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5 * self.training) + torch.rand_like(x)


@pytest.mark.parametrize("training", [True, False])
def test_which_operators_draw_and_which_of_them_are_stilled(training: bool) -> None:
    program = torch.export.export(Drops().train(training), (torch.rand(1, 2, 5, 4),), strict=False)
    nodes: dict[str, fx.Node] = {
        str(getattr(node.target, "overloadpacket", "")): node
        for node in program.graph.nodes
        if node.op == "call_function"
    }
    assert draws(nodes["aten.rand_like"])
    assert not is_stilled(nodes["aten.rand_like"])
    assert draws(nodes["aten.scaled_dot_product_attention"]) == training
    assert is_stilled(nodes["aten.scaled_dot_product_attention"])
    assert not draws(nodes["aten.add"])
    if training:
        assert draws(nodes["aten.dropout"])
        assert is_stilled(nodes["aten.dropout"])
