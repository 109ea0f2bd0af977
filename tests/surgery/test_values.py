"""What a cut network computes is compared with what the mask does."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.surgery import slice as slicing
from metaprune.surgery.slice import carve
from metaprune.surgery.values import Judge, _difference


class Net(nn.Module):
    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.noise = noise
        self.first, self.norm, self.second = nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x).relu())
        return self.second(y + self.noise * torch.randn_like(y) if self.noise else y)


X = (torch.randn(2, 5, generator=torch.Generator().manual_seed(0)),)


def test_a_right_cut_is_judged_right() -> None:
    model = Net()
    graph = mp.trace(model, X)
    kept = {"first": (0, 3, 5)}
    cut = carve(model, graph, mp.Plan(kept))
    assert cut.unjudged is None
    assert Judge(model, graph).objection(cut.model, kept) is None


WRONG = {
    "another channel": "its outputs differ from the masked network's",
    "a bias": "its outputs differ from the masked network's",
    "a shape": "an output is torch.Size([2, 4]) instead of torch.Size([2, 3])",
    "not finite": "an output is not finite where the masked network's is",
    "an output more": "it has 2 outputs instead of 1",
    "a failure": "test_values.py:",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_cut_is_judged_wrong(wrong: str) -> None:
    model = Net()
    graph = mp.trace(model, X)
    small: Any = carve(model, graph, mp.Plan({"first": (0, 3, 5)})).model
    with torch.no_grad():
        if wrong == "another channel":
            small.first.weight[1] = model.first.weight[4]
        elif wrong == "a bias":
            small.second.bias += 0.01
        elif wrong == "not finite":
            small.second.bias[0] = torch.inf
        elif wrong == "an output more":
            small.second.register_forward_hook(lambda module, args, output: (output, output))
        else:
            small.second = nn.Linear(*((3, 4) if wrong == "a shape" else (4, 3)))
    assert WRONG[wrong] in str(Judge(model, graph).objection(small, {"first": (0, 3, 5)}))


@pytest.mark.parametrize(
    ("expected", "got", "said"),
    [
        ([1.0, 100.0], [1.09, 100.0], None),  # of the largest entry, the root of 1e-6
        ([1.0, 100.0], [1.11, 100.0], "its outputs differ from the masked network's by 1.1e-03 of the largest"),
        ([1.0, torch.inf], [1.0, torch.inf], None),
        ([torch.nan, torch.inf], [torch.inf, torch.nan], None),  # nothing there is a number
        ([1.0, torch.inf], [2.0, torch.inf], "its outputs differ from the masked network's by 1.0e+00 of the largest"),
        ([1.0, torch.inf], [1.0, 2.0], "an output is not finite where the masked network's is"),
        ([0.0, 0.0], [0.0, 0.0], None),
        ([1, 2], [1, 3], None),  # positions hang on comparisons
        ([1, 2], [1, 2, 3], "an output is torch.Size([3]) instead of torch.Size([2])"),
        ([1.0], None, "an output is NoneType instead of torch.Size([1])"),
    ],
)
def test_what_a_difference_is(expected: list[float], got: list[float] | None, said: str | None) -> None:
    other = None if got is None else torch.tensor(got)
    assert _difference(torch.tensor(expected), other, 1e-6) == said


def test_an_objection_undoes_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that computes something else gets out, whatever the structure says."""
    model = Net()
    graph = mp.trace(model, X)
    index = slicing.cropped

    def careless(model: nn.Module, graph: Any, kept: Any) -> nn.Module:
        small: Any = index(model, graph, kept)
        if kept:
            small.first.weight.data = small.first.weight.data.flip(0)
        return small

    monkeypatch.setattr(slicing, "cropped", careless)
    cut = carve(model, graph, mp.Plan({"first": (0, 3, 5)}))
    assert "differ from the masked network's" in cut.undone["first"]
    torch.testing.assert_close(cut.model(*X), model(*X))


def test_it_says_where_it_does_not_judge() -> None:
    noisy = Net(noise=0.1)
    graph = mp.trace(noisy, X)
    assert "random" in str(carve(noisy, graph, mp.Plan({"first": (0, 3)})).unjudged)
    empty = Net().to("meta")
    graph = mp.trace(empty, (X[0].to("meta"),))
    assert "meta" in str(carve(empty, graph, mp.Plan({"first": (0, 3)})).unjudged)


class SinglePrecision(nn.Module):
    """One step in float32, whatever the rest is in, as norms and gates of large language models are written."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(6, 14), nn.Linear(14, 12), nn.Linear(12, 5)
        self.scale = nn.Parameter(torch.ones(14))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.head(torch.relu(self.mix(self.scale * y.to(x.dtype))))


def test_the_tolerance_is_that_of_the_least_precise_step() -> None:
    """Sums in float32 of fewer terms round otherwise: no reason to undo a cut of a float64 network."""
    torch.manual_seed(0)
    model, x = SinglePrecision().double(), torch.rand(2, 6, dtype=torch.float64)
    graph = mp.trace(model, (x,))
    judge = Judge(model, graph)
    assert judge.precision(judge.seen[0]) == torch.finfo(torch.float32).eps
    plan = {name: tuple(range(1, axis.size, 2)) for name, axis in graph.free.items()}
    small = mp.slice(model, graph, mp.Plan(plan))
    with torch.no_grad():
        small.head.weight.mul_(1 + 1e-6)
    assert judge.objection(small, plan) is None
    with torch.no_grad():
        small.head.weight.mul_(1 + 1e-2)
    assert judge.objection(small, plan) is not None
