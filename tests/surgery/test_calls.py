"""One graph from several calls: what a network does in any of them is cut in all of them, or left whole."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import metaprune as mp
from metaprune.surgery.slice import carve

X = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def half(graph: mp.ChannelGraph) -> mp.Plan:
    return mp.Plan({name: range(1, 1 + max(1, axis.size // 2)) for name, axis in graph.free.items() if axis.size > 1})


class TwoTowers(nn.Module):
    """Its methods read what its forward does not; both hold numbers of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.stem, self.head = 4, nn.Linear(6, 24), nn.Linear(24, 3)
        self.project, self.out = nn.Linear(24, 10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).relu())

    def embed(self, x: Tensor) -> Tensor:
        y = self.stem(x).unflatten(-1, (self.heads, -1))
        return self.out(self.project((y * y.softmax(1)).flatten(1)).relu())


def test_another_method_is_a_call() -> None:
    model = TwoTowers().double()
    alone = mp.trace(model, (X,))
    assert {name: alone.axes[name].fixed for name in ("project[0]", "project[1]", "out[0]", "out[1]", "stem")} == {
        **dict.fromkeys(("project[0]", "project[1]", "out[0]", "out[1]"), "no traced call reads it"),
        "stem": None,
    }
    graph = mp.trace(model, (X,), calls=(mp.Call((X,), method="embed"),))
    assert {axis.size for axis in graph.free.values()} >= {4, 6, 10}
    plan = half(graph)
    small, same = mp.slice(model, graph, plan), mp.mask(model, graph, plan)
    assert small.heads == 2
    torch.testing.assert_close(small(X), same(X), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(small.embed(X), same.embed(X), rtol=1e-10, atol=1e-12)
    assert mp.macs(graph) == mp.macs(alone), "costs are those of the first call"


class Divided(nn.Module):
    """Training lays heads out by a number of its own, or by one that stands in the code."""

    def __init__(self, written: bool) -> None:
        super().__init__()
        self.heads, self.train_heads, self.written = 4, 4, written
        self.stem, self.head = nn.Linear(6, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).unflatten(-1, (self.divided(), -1))
        return self.head((y * y.softmax(1)).flatten(1))

    def divided(self) -> int:
        if self.training:
            return 4 if self.written else self.train_heads
        return self.heads


def test_a_number_that_only_training_uses_follows_the_cut() -> None:
    """Both forwards of the whole network run the same operators on the same shapes: only a cut one tells them apart."""
    model = Divided(written=False).double().eval()
    graph = mp.trace(model, (X,))
    assert {axis.size for axis in graph.free.values()} == {4, 3}
    small = mp.slice(model, graph, half(graph))
    assert (small.heads, small.train_heads) == (2, 2)
    small.train()(X).sum().backward()
    assert [one.like for one in graph.passes] == [None, None]


def test_a_number_that_stands_in_the_code_of_training_keeps_its_axis_whole() -> None:
    model = Divided(written=True).double().eval()
    graph = mp.trace(model, (X,))
    assert 4 not in {axis.size for axis in graph.free.values()}
    small = mp.slice(model, graph, half(graph))
    assert small.train()(X).shape == (2, 5)


class Stepping(nn.Module):
    """A recurrent layer of one step, whose state its user hands back."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.head = nn.Linear(6, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 3)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        new = self.inner(x) if state is None else self.inner(x) + self.outer(state)
        return self.head(new.tanh()), new.tanh()


class Learned(Stepping):
    """The first state is a parameter: nothing of the input goes into it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(x, self.first.expand(len(x), -1) if state is None else state)


class Cell(nn.Module):
    """A recurrent cell by hand: two states of one size, of which one is scaled by a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again, self.gate = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(6, 8)
        self.decay, self.leave, self.head = nn.Parameter(torch.rand(8)), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = self.enter(x), self.gate(x).tanh()
        y = self.head(h)
        if state is not None:
            y = y + self.head(self.again(state[0])) + self.leave(self.decay * state[1])
        return y, (h.tanh(), c)


@pytest.mark.parametrize(("kind", "free"), [(Stepping, {"inner"}), (Learned, {"first"}), (Cell, {"enter", "gate"})])
def test_a_state_is_cut_as_what_it_was_made_by(kind: type[nn.Module], free: set[str]) -> None:
    """Though no weight ties the two: handed back, time after time, the cut network's states say what the mask's do."""
    torch.manual_seed(0)
    model = kind().double().eval()
    _, state = model(X)
    calls = (mp.Call((X,), {"state": state}, states=("state",)),)
    graph = mp.trace(model, (X,), calls=calls, outputs=0)
    assert graph.free.keys() == free
    plan = mp.Plan({name: [1, 4, 6] if place % 2 else [0, 2, 3, 7] for place, name in enumerate(graph.free)})
    small, same = mp.slice(model, graph, plan), mp.mask(model, graph, plan)
    (y, ours), (z, theirs) = small(X), same(X)
    for _ in range(3):
        torch.testing.assert_close(y, z, rtol=1e-10, atol=1e-12)
        (y, ours), (z, theirs) = small(X, state=ours), same(X, state=theirs)


def test_a_state_of_which_nobody_knows_what_made_it_stays() -> None:
    """Made by a method that is no call, or one of two that are alike."""

    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.other, self.cross = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 7)
            self.start, self.head = nn.Linear(6, 7), nn.Linear(7, 3)

        def encode(self, x: Tensor) -> Tensor:
            return self.encoder(x)

        def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.encoder(x), self.other(x)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.start(x).relu())

        def decode(self, x: Tensor, memory: Tensor) -> Tensor:
            return self.head((self.start(x) + self.cross(memory)).relu())

    model = Memory().double().eval()
    step = mp.Call((X, model.encode(X).detach()), method="decode", states=(1,))
    for others, words in (
        ((), "no call returns it"),
        ((mp.Call((X,), method="both"),), "which output is handed back there cannot be told"),
        ((mp.Call((X,), method="encode"),), "it is a size of the output"),
    ):
        graph = mp.trace(model, (X,), calls=(step, *others))
        assert graph.free.keys() == {"start"}
        [reason] = {str(axis.fixed) for axis in graph.axes.values() if any("cross.weight:1" in m for m in axis.members)}
        assert words in reason


class Targets(nn.Module):
    """Its training forward takes targets; only then its second head is read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 8), nn.Linear(8, 12), nn.Linear(12, 3)
        self.aux = nn.Linear(8, 3)

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        u = self.first(x).relu()
        y = self.head(self.second(u).relu())
        if not self.training:
            return y
        if targets is None:
            raise ValueError("targets are needed in training")
        return F.cross_entropy(y, targets) + F.cross_entropy(self.aux(u), targets)


def test_what_may_feed_what_nobody_read_is_kept_whole() -> None:
    graph = mp.trace(Targets().double(), (X,))
    assert "targets are needed" in str(graph.uncaptured)
    assert "could not be captured" in str(graph)
    assert "'aux.weight'" in str(graph.axes["first"].fixed)
    assert graph.axes["second"].fixed is None


def test_a_training_call_with_its_targets_frees_it() -> None:
    model, targets = Targets().double(), torch.tensor([0, 2])
    call = mp.Call((X,), {"targets": targets}, training=True)
    graph = mp.trace(model, (X,), calls=(call,))
    assert graph.uncaptured is None
    assert not graph.axes["first"].fixed
    small, same = mp.slice(model, graph, half(graph)), mp.mask(model, graph, half(graph))
    torch.testing.assert_close(small.train()(X, targets), same.train()(X, targets), rtol=1e-10, atol=1e-12)


def test_flattened_channels_may_feed_it_too() -> None:
    class Flat(Targets):
        def __init__(self) -> None:
            super().__init__()
            self.aux = nn.Linear(8 * 7, 3)

    graph = mp.trace(Flat().double(), (X,))
    assert "'aux.weight'" in str(graph.axes["first"].fixed)


class Switched(nn.Module):
    """Batch norm whose statistics run over a dimension that may be cut, in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(4, 8), nn.BatchNorm1d(5), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.first(x)).relu())


@pytest.mark.parametrize("kind", ["plain", "across"])
def test_batch_statistics_are_those_of_the_living(kind: str) -> None:
    model: nn.Module = Switched().double() if kind == "across" else nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)
    ).double()  # fmt: skip
    x = torch.randn(*((6, 5, 4) if kind == "across" else (6, 4)), dtype=torch.float64)
    graph = mp.trace(model, (x,))
    assert [one.like for one in graph.passes] == ([None, None] if kind == "across" else [None, 0])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small, same = mp.slice(model, graph, half(graph)), mp.mask(model, graph, half(graph))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    for one in (small, same):
        one.train()
        for module in one.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    torch.testing.assert_close(small(x), same(x), rtol=1e-10, atol=1e-12)


class Ahead(nn.Module):
    """Reads the channels of its trunk by position, in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        return self.head(y) * (y[:, 2:3] if self.training else 1.0)


def test_a_reason_of_training_holds_in_evaluation() -> None:
    graph = mp.trace(Ahead().double(), (X,))
    assert "first" not in graph.axes, "the trunk is no longer one axis: some of its channels have a place of their own"
    assert "holds a size" in str(graph.axes["first[0]"].fixed)
    cut = carve(Ahead().double(), graph, half(graph))
    assert not cut.undone


def test_a_call_that_cannot_be_captured_is_an_error() -> None:
    with pytest.raises(mp.MetapruneError, match=r"Targets itself fails .*test_calls.py:\d+") as caught:
        mp.trace(Targets().double(), (X,), calls=(mp.Call((X,), training=True),))
    assert "targets are needed in training" in str(caught.value)


class Positions(nn.Module):
    """Relative positions: how finely a table is divided hangs on the length of the input."""

    def __init__(self, channels: int = 16, most: int = 12) -> None:
        super().__init__()
        self.a, self.p, self.o = (
            nn.Linear(3, channels),
            nn.Linear(channels, channels, bias=False),
            nn.Linear(channels, 2),
        )
        self.register_buffer("table", torch.randn(1, 2 * most - 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        n, mid = x.shape[1], self.table.shape[1] // 2
        return self.o(self.a(x) + self.p(self.table[:, mid - n + 1 : mid + n]).mean(1, keepdim=True))


def test_the_mask_is_right_at_another_length() -> None:
    model = Positions().double()
    graph = mp.trace(model, (torch.randn(2, 5, 3, dtype=torch.float64),))
    plan = half(graph)
    small, same = mp.slice(model, graph, plan), mp.mask(model, graph, plan)
    for length in (5, 7, 12):
        x = torch.randn(3, length, 3, dtype=torch.float64)
        torch.testing.assert_close(small(x), same(x), rtol=1e-10, atol=1e-12)


class ByLength(nn.Module):
    """Reads its trunk as it is where the input is long."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        y = self.first(x)
        return self.head(y) if x.shape[1] < 6 else y


def test_the_mask_refuses_where_the_plan_cannot_hold() -> None:
    model = ByLength().double()
    graph = mp.trace(model, (torch.randn(2, 5, 3, dtype=torch.float64),))
    same = mp.mask(model, graph, half(graph))
    with pytest.raises(mp.MetapruneError, match=r"mask: the plan cuts 'first', .* calls="):
        same(torch.randn(2, 7, 3, dtype=torch.float64))


class Averaged(nn.Module):
    """A codebook that training moves by hand, through `.data`, as vector quantisers do."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.hidden, self.decode = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 6)
        self.book = nn.Embedding(5, 8)
        self.book.weight.requires_grad = False
        self.register_buffer("mean", self.book.weight.data.clone())

    def forward(self, x: Tensor) -> Tensor:
        h = self.encode(x)
        codes = torch.cdist(h, self.book.weight).argmin(-1)
        if self.training:
            with torch.no_grad():
                self.mean.data.mul_(0.9).add_(0.1 * h.mean(0))
                self.book.weight.data.copy_(self.mean / self.mean.norm())
        return self.decode(self.hidden(h + (self.book(codes) - h).detach()).relu())


def test_what_only_an_uncaptured_training_forward_keeps_still_fits() -> None:
    """Its means have the codes' size, which stays; all else is cut, and the cut network trains."""
    model = Averaged().eval()
    graph = mp.trace(model, (torch.randn(4, 6),))
    assert graph.uncaptured is not None
    assert graph.free.keys() == {"hidden"}
    assert any("may meet 'mean'" in (axis.fixed or "") for axis in graph.axes.values())
    small = mp.slice(model, graph, mp.Plan({"hidden": range(4)}))
    assert small.train()(torch.randn(4, 6)).shape == (4, 6)
