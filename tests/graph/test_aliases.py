"""Aliases: an operator under its other name is read as the one that rules know."""

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.aliases import _COPIES, _SAME, one_name

X = torch.tensor([[-0.9, 0.5, 0.3], [0.0, -0.2, 0.7], [0.8, -0.6, 0.1]])  # of both signs, and one that is compared
MORE = {
    **dict.fromkeys(("arctan2", "divide", "linalg_matmul", "multiply", "subtract", "true_divide"), (X.t() + 1,)),
    **dict.fromkeys(("greater", "greater_equal", "less", "less_equal", "not_equal"), (0.5,)),
    "clip": (0.2, 0.5),
    "native_channel_shuffle": (3,),
    "special_logsumexp": ([1],),
    "special_softmax": (1,),
    "special_log_softmax": (1,),
}


@pytest.mark.parametrize("name", sorted(_SAME))
def test_both_names_compute_the_same(name: str) -> None:
    one, other = (getattr(torch.ops.aten, operator) for operator in (name, _SAME[name]))
    x = {
        "arccosh": X.abs() + 1.5,
        "fix": 3 * X,
        "matrix_H": torch.complex(X, 2 * X),
        "native_channel_shuffle": X.reshape(1, 9, 1, 1),
    }.get(name, X)
    assert torch.equal(one(x, *MORE.get(name, ())), other(x, *MORE.get(name, ())))
    assert one_name(f"aten.{name}") == f"aten.{_SAME[name]}"


@pytest.mark.parametrize("name", sorted(_COPIES))
def test_a_copy_is_known_as_the_view(name: str) -> None:
    assert one_name(f"aten.{name}") == f"aten.{name.removesuffix('_copy')}"
    assert all(hasattr(torch.ops.aten, operator) for operator in (name, name.removesuffix("_copy")))


def test_other_names_are_left_alone() -> None:
    for name in ("aten.relu", "aten.index_copy", "other.multiply", "other.slice_copy"):
        assert one_name(name) == name


class Other(nn.Module):
    """Operators under their other names, a division that makes up for a head size among them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.multiply(self.a(x), torch.special.expit(self.b(x)))
        return self.c(torch.true_divide(torch.subtract(y, 1.0), 3.0).absolute())


def test_other_names_fix_nothing() -> None:
    graph = mp.trace(Other(), (torch.ones(2, 4),))
    assert list(graph.free) == ["a"]
    assert {operator.name for operator in graph.operators} >= {"aten.mul", "aten.sub", "aten.div", "aten.abs"}
