"""Training forwards whose code draws numbers to decide what it runs: read, cut, and left uncompared; never refused."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.calling import Call
from metaprune.graph.capture import capture
from metaprune.graph.chance import with_its_chance
from metaprune.surgery.slice import carve

X = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(0))


class Body(nn.Module):
    """A trunk, blocks, and what training does to them by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 12), nn.Linear(12, 3)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 12)) for _ in range(2))
        self.mask = nn.Parameter(torch.zeros(12))

    def augmented(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.training:
            x = self.augmented(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class Spans(Body):
    """Places written over, drawn by NumPy's global numbers, as masked speech models do."""

    def augmented(self, x: Tensor) -> Tensor:
        mask = torch.from_numpy(np.random.uniform(size=x.shape[:2]) < 0.3)
        x = x.clone()
        x[mask] = self.mask
        return x


class Unseeded(Body):
    """The same from a generator that is new each time."""

    def augmented(self, x: Tensor) -> Tensor:
        mask = torch.tensor(np.random.default_rng().uniform(size=x.shape[:2]) < 0.3)
        return torch.where(mask[..., None], self.mask, x)


class Scaled(Body):
    """A number of Python's enters the computation."""

    def augmented(self, x: Tensor) -> Tensor:
        return x * random.uniform(0.8, 1.2) + self.mask


class Dropped(Body):
    """Blocks are left out by Python's, NumPy's or PyTorch's numbers, of which an export draws none for the dropout."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def skips(self) -> bool:
        if self.kind == "python":
            return random.random() < 0.5
        if self.kind == "numpy":
            return bool(np.random.rand() < 0.5)
        return bool(torch.rand([]) < 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.dropout(self.stem(x) + self.mask, 0.1, self.training)
        for block in self.blocks:
            if not (self.training and self.skips()):
                x = x + block(x)
        return self.head(x)


class Branching(Body):
    """One of two branches; evaluation, and the first draw, take the first."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 12))

    def augmented(self, x: Tensor) -> Tensor:
        return self.other(x) if random.random() < 0.5 else x + 0.0 * self.mask


class Rolled(Body):
    """Moved by a number of steps that is drawn."""

    def augmented(self, x: Tensor) -> Tensor:
        return torch.roll(x, random.randrange(1, 7), 1) + self.mask


MODELS = {
    "spans": Spans,
    "unseeded": Unseeded,
    "scaled": Scaled,
    "python": lambda: Dropped("python"),
    "numpy": lambda: Dropped("numpy"),
    "torch": lambda: Dropped("torch"),
    "branch": Branching,
    "rolled": Rolled,
}


QUICK = ("spans", "torch", "branch")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def test_what_hangs_on_chance_is_cut_and_trains(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    x = X.double()
    graph = mp.trace(model, (x,))
    assert {axis.size for axis in graph.free.values()} >= {12, 8}, "trunk and hidden units"
    assert graph.uncaptured is None
    assert any(one.seed is not None for one in graph.passes)
    assert "hangs on random numbers" in str(graph)
    cut = carve(model, graph, mp.Plan({n: range(1, 1 + axis.size // 2) for n, axis in graph.free.items()}))
    assert not cut.undone
    assert "random numbers" in str(cut.unjudged)
    torch.testing.assert_close(cut.model(x), mp.mask(model, graph, cut.plan)(x), rtol=1e-10, atol=1e-12)
    small, masked = copy.deepcopy(cut.model).train(), mp.mask(model, graph, cut.plan).train()
    for seed in range(6):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        small(x).square().mean().backward()
        assert masked(x).isfinite().all(), "it repeats one way"
    assert all(p.grad is not None and p.grad.isfinite().all() for p in small.parameters())


def test_what_another_draw_reads_is_cut_along() -> None:
    graph = mp.trace(Branching(), (X,))
    assert 5 in {axis.size for axis in graph.free.values()}, "the hidden units of the branch that the first draw misses"


class Noisy(Body):
    """Draws that no decision hangs on: noise by PyTorch's operators, a number of Python's that nobody uses."""

    def augmented(self, x: Tensor) -> Tensor:
        random.random()
        return x + torch.randn(x.shape[:2])[..., None].to(x.dtype) * self.mask


def test_noise_is_an_operator_like_others() -> None:
    model = Noisy().double()
    graph = mp.trace(model, (X.double(),))
    assert [one.seed for one in graph.passes] == [None, None]
    assert with_its_chance(model, capture(model, Call((X.double(),), training=True))).seed is None


def test_the_random_numbers_of_the_process_go_on_as_they_were() -> None:
    model = Spans()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    mp.trace(model, (X,))
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


class Wrong(Body):
    """One way of several holds a width that does not follow a cut."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(7, 1))

    def augmented(self, x: Tensor) -> Tensor:
        return x.reshape(2, 7, 12) + self.mask + self.shift if random.random() < 0.5 else x


def test_a_cut_network_must_run_each_way() -> None:
    graph = mp.trace(Wrong().double(), (X.double(),))
    assert 12 not in {axis.size for axis in graph.free.values()}
    assert "test_chance.py" in " ".join(str(axis.fixed) for axis in graph.axes.values() if axis.size == 12)
