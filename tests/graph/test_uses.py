"""Uses: which dimensions of which tensors are read, written, carried or counted, and along which axes nothing is."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import metaprune as mp
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.term import Axis, Concat, Product, leaves


def roles(graph: ChannelGraph) -> dict[str, set[str]]:
    """`tensor:dim` -> the roles of the free axes there, as "axis role"."""
    found: dict[str, set[str]] = {}
    for use in graph.uses:
        if use.axis in graph.free:
            found.setdefault(f"{use.tensor}:{use.dim}", set()).add(f"{use.axis} {use.role}")
    return found


def traced(model: nn.Module, *shape: int) -> ChannelGraph:
    return mp.trace(model.eval(), (torch.randn(*shape),))


def test_layers() -> None:
    """Rows write, columns read, a norm and a depthwise filter carry."""
    layers = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(16, 2)
    found = roles(traced(nn.Sequential(*layers), 2, 3, 4, 4))
    assert found["0.weight:0"] == found["0.bias:0"] == {"0 writes"}
    assert found["1.weight:0"] == found["1.running_var:0"] == {"0 carries"}
    assert found["2.weight:0"] == {"0 carries"}
    assert found["2.bias:0"] == {"0 writes"}
    assert found["4.weight:1"] == {"0 reads"}
    assert "0.weight:1" not in found


def test_groups_of_a_transposed_convolution_read_and_carry_one_dimension() -> None:
    graph = traced(
        nn.Sequential(nn.Conv2d(3, 6, 1), nn.ConvTranspose2d(6, 8, 2, 2, groups=2), nn.Conv2d(8, 2, 1)), 1, 3, 4, 4
    )
    groups, inside = (name for name in graph.free if name.startswith("0["))
    found = roles(graph)
    assert found["1.weight:0"] == {f"{groups} carries", f"{inside} reads"}
    assert found["2.weight:1"] == {f"{groups} reads", "1 reads"}
    assert graph.unabsorbed == {}


class Square(nn.Module):
    """A square weight along a trunk, as it is and transposed: one axis in both of its dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 6)
        self.plain = nn.Parameter(torch.randn(6, 6))
        self.turned = nn.Parameter(torch.randn(6, 6))
        self.both = nn.Parameter(torch.randn(12, 6))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        first, second = self.both.chunk(2)
        x = x + x @ self.plain + x @ self.turned.t() + F.linear(x @ first, second)
        return self.head(x)


def test_a_square_weight_is_read_along_the_dimension_that_is_summed() -> None:
    found = roles(traced(Square(), 4, 3))
    [axis] = {one.partition(" ")[0] for one in found["stem.weight:0"]}
    assert found["plain:0"] == found["turned:1"] == {f"{axis} reads"}
    assert found["plain:1"] == found["turned:0"] == {f"{axis} writes"}


class Recomputed(nn.Module):
    """A body that is run again for gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(lambda x: self.last(F.relu(self.first(x))), x, use_reentrant=False)


def test_bodies_that_are_run_in_another_mode() -> None:
    graph = traced(Recomputed(), 4, 3)
    assert roles(graph)["last.weight:1"] == {"first reads"}
    assert graph.unabsorbed == {}


class Products(nn.Module):
    """Ways in which channels are mixed without a weight that could make up for one of them."""

    def __init__(self, mixing: str) -> None:
        super().__init__()
        self.mixing = mixing
        self.first, self.second, self.last = nn.Linear(3, 6), nn.Linear(3, 6), nn.Linear(6, 2)
        self.norm = nn.LayerNorm(6)
        self.tied = nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.mixing == "product":
            return (y @ self.second(x).mT).sum(-1, keepdim=True) * self.last.bias
        if self.mixing == "computed":
            return F.linear(y, self.last.weight.tanh())
        if self.mixing == "sum":
            return self.last(y) * y.sum(-1, keepdim=True)
        if self.mixing == "softmax":
            return self.last(y.softmax(-1))
        if self.mixing == "spread":
            return self.last(y / y.std(-1, keepdim=True))
        if self.mixing == "plain spread":
            return self.last(y / y.var(-1, keepdim=True, correction=0))
        if self.mixing == "scaled":
            return F.linear(y, -2 * self.last.weight)
        if self.mixing == "by itself":
            return F.linear(y, self.last.weight * self.last.weight)
        if self.mixing == "attention":
            return F.scaled_dot_product_attention(y[None], self.second(x)[None], x[None])
        if self.mixing == "tied":
            return F.linear(F.linear(y, self.first.weight.t()), self.tied.weight.t()) @ self.tied.weight.t()
        if self.mixing == "norm":
            return self.last(self.norm(y) * y.mean(-1, keepdim=True))
        raise ValueError(self.mixing)


@pytest.mark.parametrize(
    ("mixing", "why"),
    [
        ("product", "multiplies two activations"),
        ("computed", "the weight that reads it is computed"),
        ("sum", "aten.sum runs over it"),
        ("softmax", "aten.softmax runs over it"),
        ("spread", "aten.std runs over it"),
        ("tied", "first.weight is read and written along it"),
        ("norm", None),
        ("plain spread", None),
        ("scaled", None),
        ("by itself", "the weight that reads it is computed"),
        ("attention", "aten.scaled_dot_product_attention makes a scale of its size"),
    ],
)
def test_unabsorbed(mixing: str, why: str | None) -> None:
    """The reason, with the line; norms and means are the same of each channel twice."""
    graph = traced(Products(mixing), 5, 3)
    axis = next(name for name in graph.free if "first" in name)
    if why is None:
        assert axis not in graph.unabsorbed
    else:
        assert why in graph.unabsorbed[axis]
        assert "test_uses.py:" in graph.unabsorbed[axis] or mixing == "tied"


def test_statistics_of_a_weight_count_its_columns() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            weight = self.last.weight
            return F.linear(self.first(x), weight - weight.mean(1, keepdim=True))

    graph = traced(Centred(), 5, 3)
    assert "first counts" in roles(graph)["last.weight:1"]
    assert "the weight that reads it is computed" in graph.unabsorbed["first"]


def test_weights_in_one_memory_hand_nothing_on() -> None:
    layers = [nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)]
    layers[2].weight = nn.Parameter(layers[1].weight.data)
    graph = traced(nn.Sequential(*layers), 5, 3)
    assert graph.unabsorbed.keys() == graph.free.keys()
    assert all("shares its memory with another tensor" in why for why in graph.unabsorbed.values())


def test_leaves() -> None:
    """Every place of an axis along a dimension, through products and concatenations, also more than once."""
    a, b = Axis("a", 2), Axis("b", 3)
    assert [one.tolist() for one in leaves(a, "a")] == [[[0], [1]]]
    assert [one.tolist() for one in leaves(Product((b, a)), "a")] == [[[0, 2, 4], [1, 3, 5]]]
    assert [one.tolist() for one in leaves(Concat((a, b, Product((a, b)))), "a")] == [
        [[0], [1]],
        [[5, 6, 7], [8, 9, 10]],
    ]
    assert [one.tolist() for one in leaves(Product((a, a)), "a")] == [[[0, 1], [2, 3]], [[0, 2], [1, 3]]]
    assert leaves(b, "a") == []


class Picked(nn.Module):
    """Each example goes through the matrix that it chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bank = nn.Linear(3, 6), nn.Parameter(torch.randn(4, 6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x)[:, None] @ self.bank[(x[:, 0] > 0).long()]


def test_weights_that_are_picked_by_position_are_read() -> None:
    graph = traced(Picked(), 5, 3)
    assert roles(graph)["bank:1"] == {"first reads"}
    assert graph.unabsorbed == {}


class Laid(nn.Module):
    """A square weight whose transpose is written to memory: nothing tells which of its dimensions is which."""

    def __init__(self, back: bool) -> None:
        super().__init__()
        self.stem, self.square, self.head = nn.Linear(3, 6), nn.Parameter(torch.randn(6, 6)), nn.Linear(6, 2)
        self.back = back

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        laid = self.square.t().contiguous()
        return self.head(x + x @ (laid.t() if self.back else laid))


@pytest.mark.parametrize("back", [False, True])
def test_a_square_weight_of_which_it_is_unclear_leaves_its_axis_unabsorbed(back: bool) -> None:
    graph = traced(Laid(back), 4, 3)
    [(axis, why)] = graph.unabsorbed.items()
    assert "computed" in why or "any of two dimensions of square" in why
    assert axis in graph.free


class Chain(nn.Module):
    """A product of three matrices, the first and the last of which are weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 6), nn.Linear(3, 4)
        self.left, self.right = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        middle = (self.first(x)[:, :, None] * self.second(x)[:, None]).sum(0)
        return torch.linalg.multi_dot([self.left, middle, self.right])


def test_both_ends_of_a_chain_read() -> None:
    graph = traced(Chain(), 5, 3)
    found = roles(graph)
    assert found["left:1"] == {"first reads"}
    assert found["right:0"] == {"second reads"}
    assert graph.unabsorbed == {}


def test_every_weight_of_a_recurrent_layer_has_a_product_of_its_own() -> None:
    """Units are summed by the weights of their own layer, both ways, and of the next."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(3, 4, 2, bidirectional=True, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    graph = traced(Recurrent(), 2, 5, 3)
    reading = {use.tensor for use in graph.uses if use.role == "reads" and use.axis in graph.free}
    assert reading == {
        "head.weight",
        *(f"rnn.weight_hh_l{layer}" for layer in ("0", "0_reverse", "1", "1_reverse")),
        *(f"rnn.weight_ih_l{layer}" for layer in ("1", "1_reverse")),
    }
