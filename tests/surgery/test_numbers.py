"""Numbers that modules keep about themselves."""

from collections import OrderedDict, defaultdict
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.attributes import held, whole_numbers
from metaprune.graph.term import Axis, Concat, Product, size
from metaprune.surgery.numbers import set_numbers
from tests.laws import oracle
from tests.zoo import ZOO


class Keeper(nn.Module):
    """Knows its sizes under names that no rule knows."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_size, self.epochs, self.one, self.flag = 4, 6, 24, 1, True
        self.parts = [24, 24]
        self._private = 24
        self.project, self.out = nn.Linear(5, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(x).view(len(x), self.heads, self.head_size)
        return self.out((y * y.softmax(1)).flatten(1))


class Ends(nn.Module):
    """Takes what it wants from the end, counted backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 4
        self.project, self.last, self.rest = nn.Linear(5, 10), nn.Linear(4, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(x).relu()
        return self.last(y[:, -self.n :]) + self.rest(y[:, : -self.n])


def test_a_number_that_counts_from_the_end_follows_the_cut() -> None:
    model, args = Ends().double(), (torch.randn(3, 5, dtype=torch.float64),)
    graph = mp.trace(model, args)
    [last] = [name for name, axis in graph.free.items() if axis.size == 4]
    [rest] = [name for name, axis in graph.free.items() if axis.size == 6]
    plan = mp.Plan({last: [0, 2, 3], rest: [1, 5]})
    small = mp.slice(model, graph, plan)
    assert (small.n, small.project.out_features, model.n) == (3, 5, 4)
    torch.testing.assert_close(small(*args), mp.mask(model, graph, plan)(*args), rtol=1e-10, atol=1e-12)


class Narrows(nn.Module):
    """Takes as many of two layers' channels as it knows that the first one has."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 8
        self.one, self.two, self.last = nn.Linear(5, 8), nn.Linear(5, 6), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.one(x), self.two(x)], 1).narrow(1, 0, self.n).relu())


def test_a_length_follows_the_cut() -> None:
    model, args = Narrows().double(), (torch.randn(3, 5, dtype=torch.float64),)
    graph = mp.trace(model, args)
    plan = mp.Plan({"one": [0, 2, 7]})
    small = mp.slice(model, graph, plan)
    assert (small.n, model.n) == (3, 8)
    torch.testing.assert_close(small(*args), mp.mask(model, graph, plan)(*args), rtol=1e-10, atol=1e-12)


class Depthwise(nn.Module):
    """A convolution of its own, given as many groups as the code says."""

    def __init__(self, code: str, per_group: int) -> None:
        super().__init__()
        self.code, self.channels, self.twice, self.four = code, 8, 16, 4
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.weight = nn.Parameter(torch.randn(8, per_group, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(eval(self.code, {"F": F, "torch": torch, "self": self, "w": self.weight, "y": self.stem(x)}))


@pytest.mark.parametrize(
    ("code", "per_group", "free"),
    [
        ("F.conv2d(y, w, groups=self.channels)", 1, [8]),
        ("F.conv2d(y, w, None, 1, 0, 1, self.channels)", 1, [8]),
        ("torch.conv2d(y, w, groups=self.twice // 2)", 1, [8]),
        ("F.conv1d(y.flatten(2), w.flatten(2), groups=self.channels).unsqueeze(3)", 1, [8]),
        ("F.conv3d(y[:, :, None], w[:, :, None], groups=self.channels)[:, :, 0]", 1, [8]),
        ("F.conv_transpose2d(y, w, groups=self.channels)", 1, [8]),
        ("F.conv_transpose1d(y.flatten(2), w.flatten(2), groups=self.channels).unsqueeze(3)", 1, [8]),
        ("torch.convolution(y, w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], self.channels)", 1, [8]),
        ("F.conv2d(y, w, groups=self.four)", 2, [2, 2, 4]),
    ],
)
def test_as_many_groups_as_a_module_says_follow_the_cut(code: str, per_group: int, free: list[int]) -> None:
    model, args = Depthwise(code, per_group).double().eval(), (torch.randn(2, 3, 6, 6, dtype=torch.float64),)
    graph = mp.trace(model, args)
    assert sorted(axis.size for axis in graph.free.values()) == free
    plan = oracle.half(graph)
    small = mp.slice(model, graph, plan)
    assert small.stem.out_channels == (4 if per_group == 1 else 2)
    torch.testing.assert_close(small(*args), mp.mask(model, graph, plan)(*args), rtol=1e-10, atol=1e-12)


class Twofold(nn.Module):
    """Holds one number for two layers' widths: makes a view of the one with it, and compares it with the other."""

    def __init__(self, comparison: str) -> None:
        super().__init__()
        self.comparison, self.width = comparison, 6
        self.one, self.two = nn.Linear(4, 6), nn.Linear(4, 6)
        self.heads = nn.ModuleList(nn.Linear(6, 2) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.one(x).view(-1, self.width), self.two(x)
        if not eval(self.comparison, {"self": self, "two": two}):
            raise ValueError(f"expected {self.width}, got {two.shape[1]}")
        return self.heads[0](one) + self.heads[1](two)


@pytest.mark.parametrize("comparison", ["two.shape[1] == self.width", "not (self.width != two.size(-1))"])
def test_a_number_that_is_used_as_one_size_and_compared_with_another_ties_them(comparison: str) -> None:
    graph = mp.trace(Twofold(comparison).eval(), (torch.randn(3, 4),))
    assert list(graph.free) == ["one"]
    assert graph.tensors["one.weight"][0] == graph.tensors["two.weight"][0] == graph.numbers["", "width"]


@pytest.mark.parametrize("name", ["attention_pool", "attention_pool_held"])
def test_what_a_function_of_pytorchs_computes_and_compares_is_followed(name: str) -> None:
    """Heads and head sizes, which make the width that `F.multi_head_attention_forward` is told and compares."""
    model, args, _ = ZOO[name].example()
    graph = mp.trace(model, args)
    assert sorted(axis.size for axis in graph.free.values()) == [3, 6, 10]
    small = mp.slice(model, graph, oracle.half(graph))
    assert (small.num_heads, small.stem.out_channels) == (2, 6)
    assert small.width == (6 if model.held else 18)
    torch.testing.assert_close(small(*args), mp.mask(model, graph, oracle.half(graph))(*args), rtol=1e-10, atol=1e-12)


class Sizes(NamedTuple):
    heads: int
    width: int


@pytest.mark.parametrize(
    ("sizes", "width"),
    [
        (torch.Size([3, 6]), lambda sizes: sizes[1]),
        (Sizes(3, 6), lambda sizes: sizes.width),
        ({0: 3, 1: 6}, lambda sizes: sizes[1]),
        (OrderedDict(width=6), lambda sizes: sizes["width"]),
    ],
)
def test_a_number_in_a_container_of_any_kind_follows_a_cut(sizes: Any, width: Any) -> None:
    model: Any = Held(sizes, width)
    graph = mp.trace(model, (torch.zeros(2, 4),))
    [axis] = graph.free
    small: Any = mp.slice(model, graph, mp.Plan({axis: [0, 2, 3, 5]}))
    assert (width(small.sizes), width(model.sizes)) == (4, 6)
    assert type(small.sizes) is type(sizes)
    assert small(torch.zeros(2, 4)).shape == (2, 2)


class Held(nn.Module):
    """Finds the width that it lays its channels out by in what it was given."""

    def __init__(self, sizes: Any, width: Any) -> None:
        super().__init__()
        self.sizes, self.width_of = sizes, width
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).view(-1, self.width_of(self.sizes)))


def test_set_numbers() -> None:
    a, b = Axis("a", 4), Axis("b", 6)
    model = nn.Sequential(Keeper(), nn.Linear(3, 3))
    numbers = {
        ("0", "heads"): a,
        ("0", "epochs"): Product((a, b)),
        ("0", "parts.1"): Concat((a, b, a)),
        ("1", "in_features"): b,
    }
    set_numbers(model, numbers, {"a": 3})
    assert (model[0].heads, model[0].epochs, model[1].in_features) == (3, 18, 6)
    assert model[0].parts == [24, 12]
    assert (model[0].head_size, model[1].out_features) == (6, 3)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("parts.0", (24, 24)),
        ("parts.1", [24, 24]),
        ("parts.width", {"width": 24}),
        ("parts.inner.width", SimpleNamespace(inner=SimpleNamespace(width=24))),
        ("parts.widths.1", SimpleNamespace(widths=(3, 24))),
        ("parts.0", torch.Size([24, 3])),
        ("parts.1", Sizes(3, 24)),
        ("parts.sizes.1", {"sizes": Sizes(3, 24)}),
        ("parts.7", {7: 24}),
        ("parts.7.0", {7: [24]}),
        ("parts.inner.7", {"inner": {7: 24}}),
        ("parts.width", OrderedDict(width=24)),
        ("parts.width", defaultdict(int, width=24)),
    ],
)
def test_numbers_inside_containers_are_set(attribute: str, value: Any) -> None:
    model = Keeper()
    model.parts = value
    assert held(dict(model.named_modules()), "", attribute) == whole_numbers(model)["", attribute] == 24
    set_numbers(model, {("", attribute): Axis("a", 24)}, {"a": 7})
    assert held(dict(model.named_modules()), "", attribute) == 7
    assert type(model.parts) is type(value)


def test_objects_under_whole_number_keys_are_nobodys_sizes() -> None:
    """Tables that a library makes once for all of its layers, as einops does, are not this network's to write to."""
    model = Keeper()
    model.parts = {3: SimpleNamespace(width=24)}  # type: ignore[assignment]
    assert not [name for _, name in whole_numbers(model) if name.startswith("parts")]


def test_numbers_follow_a_cut() -> None:
    """Heads and their sizes are brought into line, and what only looks like a size is left as it is."""
    model = Keeper()
    graph = mp.trace(model, (torch.zeros(2, 5),))
    heads, inner = (next(n for n, axis in graph.free.items() if axis.size == s) for s in (4, 6))
    small: Any = mp.slice(model, graph, mp.Plan({heads: [0, 2], inner: [0, 1, 5]}))
    assert (small.heads, small.head_size) == (2, 3)
    assert (model.heads, model.head_size) == (4, 6)
    assert (small.one, small.flag, small._private) == (1, True, 24)
    assert small(torch.zeros(3, 5)).shape == (3, 5)


class Reader(nn.Module):
    """Reads its sizes from where `read` says, in `forward`."""

    HEADS = 4

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.inner, self.sizes = 6, {"heads": 4}
        self.config = SimpleNamespace(shape=(4, 6), heads=4)
        self.project, self.out = nn.Linear(5, 24), nn.Linear(24, 3)

    def heads(self, y: Tensor) -> int:
        return {
            "class": lambda: self.HEADS,
            "dictionary": lambda: self.sizes["heads"],
            "config": lambda: self.config.heads,
            "tuple": lambda: self.config.shape[0],
            "quotient": lambda: y.shape[-1] // self.inner,
            "product": lambda: self.config.heads * self.inner // self.inner,
            "difference": lambda: y.size(-1) - self.config.heads * (self.inner - 1),
        }[self.kind]()

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(x)
        y = y.view(-1, self.heads(y), self.inner)
        return self.out((y * y.softmax(1)).flatten(1))


@pytest.mark.parametrize("kind", ["class", "dictionary", "config", "tuple", "quotient", "product", "difference"])
def test_sizes_are_followed_to_where_they_are_held(kind: str) -> None:
    model, x = Reader(kind).double(), torch.randn(2, 5, dtype=torch.float64)
    before = dict(vars(model)), dict(model.sizes), model.config.shape, dict(vars(model.config))
    graph = mp.trace(model, (x,))
    assert (dict(vars(model)), dict(model.sizes), model.config.shape, dict(vars(model.config))) == before
    assert all(type(value) is int for value in whole_numbers(model).values()), "a tag was left behind"
    assert sorted(axis.size for axis in graph.free.values()) == [4, 6]
    heads, inner = (next(n for n, axis in graph.free.items() if axis.size == s) for s in (4, 6))
    plan = mp.Plan({heads: [0, 1, 3], inner: [1, 2]})
    small = mp.slice(model, graph, plan)
    torch.testing.assert_close(small(x), mp.mask(model, graph, plan)(x), rtol=1e-12, atol=1e-12)
    assert Reader.HEADS == 4


class Fewer(Reader):
    """A number of its class in the place of the one it inherits."""

    HEADS = 2
    __firstlineno__ = 12  # Python's own note, from 3.13 on

    def __init__(self) -> None:
        super().__init__("class")
        self.inner = 12


def test_a_class_counts_with_its_own_numbers() -> None:
    model, x = Fewer().double(), torch.randn(2, 5, dtype=torch.float64)
    before, expected = dict(vars(model)), model(x)
    graph = mp.trace(model, (x,))
    assert dict(vars(model)) == before
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
    assert {(name, value) for (_, name), value in whole_numbers(model).items() if name.isupper() or "_" in name} == {
        ("HEADS", 2),
        ("in_features", 5),
        ("in_features", 24),
        ("out_features", 24),
        ("out_features", 3),
    }
    assert sorted(axis.size for axis in graph.free.values()) == [2, 12]
    inner = next(name for name, axis in graph.free.items() if axis.size == 12)
    assert mp.slice(model, graph, mp.Plan({inner: range(5)})).inner == 5


class Shared(nn.Module):
    """One number for two axes: neither can be cut without the other."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 6
        self.first, self.second = nn.Linear(5, 12), nn.Linear(5, 18)
        self.out = nn.Linear(30, 3)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.first(x).view(-1, 2, self.size), self.second(x).view(-1, 3, self.size)
        return self.out(torch.cat([one.softmax(1).flatten(1), other.softmax(1).flatten(1)], 1))


def test_one_number_for_two_axes_ties_them() -> None:
    model = Shared().double()
    x = torch.randn(2, 5, dtype=torch.float64)
    graph = mp.trace(model, (x,))
    [tied] = [name for name, axis in graph.free.items() if axis.size == 6]
    assert {"first.weight:0", "second.weight:0"} <= set(graph.axes[tied].members)
    assert [[(size(tie.one), size(tie.other)) for tie in stage] for stage in graph.ties] == [[(6, 6)]]
    plan = mp.Plan({tied: [0, 5]})
    small: Any = mp.slice(model, graph, plan)
    assert small.size == 2
    torch.testing.assert_close(small(x), mp.mask(model, graph, plan)(x), rtol=1e-12, atol=1e-12)


class Literal(nn.Module):
    """Its code holds the size of an axis."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(5, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(x).view(-1, 4, 6)
        return self.out(F.relu(y).flatten(1))


def test_a_literal_is_fixed_with_its_place_in_the_code() -> None:
    graph = mp.trace(Literal(), (torch.zeros(2, 5),))
    reasons = [axis.fixed for axis in graph.axes.values() if axis.name.startswith("project")]
    assert reasons
    assert all(reason is None or "test_numbers.py:" in reason for reason in reasons)
    assert any(reasons)


class Particular(nn.Module):
    """Wants whole numbers to be just that."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.project, self.out = nn.Linear(5, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        if type(self.heads) is not int:
            raise TypeError("heads must be an int")
        y = self.project(x).view(len(x), self.heads, -1)
        return self.out((y * y.softmax(1)).flatten(1))


def test_code_that_does_not_bear_tags_is_traced_without_them() -> None:
    model, x = Particular().double(), torch.randn(2, 5, dtype=torch.float64)
    graph = mp.trace(model, (x,))
    assert "test_numbers.py:" in str(graph.axes["project[0]"].fixed), "no number is changed that was not followed"
    plan = mp.Plan({"project[1]": [0, 2, 5]})
    torch.testing.assert_close(mp.slice(model, graph, plan)(x), mp.mask(model, graph, plan)(x), rtol=1e-12, atol=1e-12)


class Sure(nn.Module):
    """Checks a width that it keeps, and passes by a layer where nothing is to be done."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.other = 8, 8
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        assert y.shape[-1] == self.channels
        return self.c(self.b(y).relu())


def test_a_number_that_code_finds_to_be_a_size_is_that_size() -> None:
    model = Sure().eval()
    graph = mp.trace(model, (torch.ones(2, 4),))
    assert set(graph.free) == {"a", "b"}
    small = mp.slice(model, graph, mp.Plan({"a": [1, 5], "b": [0, 1, 2]}))
    assert (small.channels, small.other) == (2, 8)


def test_an_end_that_is_the_whole_size_is_followed() -> None:
    """PyTorch would take a larger one for it; but the number says how wide the network is, and others may read it."""

    class Rest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.end = 8
            self.a, self.b = nn.Linear(5, 8), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)[:, 2 : self.end])

    model = Rest()
    graph = mp.trace(model, (torch.zeros(2, 5),))
    [rest] = [name for name, axis in graph.free.items() if axis.size == 6]
    small: Any = mp.slice(model, graph, mp.Plan({rest: [0, 1, 5]}))
    assert (small.end, small.a.out_features, model.end) == (5, 5, 8)
