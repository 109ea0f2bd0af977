"""Operators one by one: what happens to eight channels, and whether the cut network computes what the mask does."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import metaprune as mp
from tests.laws import oracle

Function = Callable[[Tensor, Tensor], Tensor]


class Two(nn.Module):
    """An operator between two layers of 8 channels and one of 12."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.one, self.two = nn.Linear(6, 8), nn.Linear(6, 8)
        with torch.no_grad():
            width = function(torch.rand(2, 8), torch.rand(2, 8)).shape[-1]
        self.after, self.last = nn.Linear(width, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.after(self.function(self.one(x), self.two(x)))))


FREE: dict[str, Function] = {
    "vstack": lambda x, y: torch.vstack([x, y]),
    "hstack": lambda x, y: torch.hstack([x, y]),
    "column_stack": lambda x, y: torch.column_stack([x, y]),
    "vsplit": lambda x, y: torch.vsplit(x, 2)[0] + y,
    "ravel": lambda x, y: torch.ravel(x.t()).reshape(-1, 2).t() + y,
    "take_along_dim": lambda x, y: torch.take_along_dim(x, torch.tensor([[0], [1]]), 0) + y,
    "linalg_norm": lambda x, y: x / torch.linalg.norm(y, dim=-1, keepdim=True),
    "addbmm": lambda x, y: torch.addbmm(x, x[None], (y.t() @ y)[None]),
    "kron": lambda x, y: torch.kron(x, y[:1]),
    "block_diag": lambda x, y: torch.block_diag(x, y),
    "diag_embed": lambda x, y: torch.diag_embed(x).sum(1) + y,
    "count_nonzero": lambda x, y: x / (1 + torch.count_nonzero(y, dim=1))[:, None],
    "complex": lambda x, y: torch.complex(x, y).conj().imag,
    "fft_of_the_batch": lambda x, y: torch.fft.fft(x, dim=0).real + y,
    "bucketize": lambda x, y: x + torch.bucketize(y, torch.tensor([0.0, 1.0], dtype=y.dtype)),
    "vecdot": lambda x, y: torch.linalg.vecdot(x, y)[:, None] * x,
    "mse_loss": lambda x, y: x * F.mse_loss(x, y),
    "l1_loss": lambda x, y: F.l1_loss(x, y, reduction="none"),
    "pairwise_distance": lambda x, y: F.pairwise_distance(x, y)[:, None] * x,
    "dist": lambda x, y: torch.dist(x, y) * x,
    "max": lambda x, y: x - y.max(1, keepdim=True)[0],
    "min": lambda x, y: x / y.min(),
    "aminmax": lambda x, y: x - y.aminmax(dim=1, keepdim=True)[0],
    "eye": lambda x, y: x @ (torch.eye(x.shape[1], dtype=x.dtype) * 2) + y,
    "unused": lambda x, y: x.reshape(2, y[0].numel()) + (x[:, 0] * 0).shape[0] * y,
}

FIXED: dict[str, tuple[Function, str]] = {
    "fft": (lambda x, y: torch.fft.fft(x).real + y, "a Fourier transform mixes its entries"),
    "argmax": (lambda x, y: x + y + x.argmax(1, keepdim=True), "aten.argmax runs over it"),
    "max_positions": (lambda x, y: x + y + x.max(1, keepdim=True)[1], "aten.max runs over it"),
    "table": (lambda x, y: x * torch.arange(x.shape[1]) + y, "the code makes a table of this size"),
    "quantile": (lambda x, y: x / torch.quantile(x, 0.5, dim=1, keepdim=True) + y, "not understood"),
}


def cut_and_compared(function: Function) -> mp.ChannelGraph:
    torch.manual_seed(0)
    model, x = Two(function).double(), torch.rand(2, 6, dtype=torch.float64)
    graph = mp.trace(model, (x,))
    plan = mp.Plan({name: range(0, axis.size, 2) for name, axis in graph.free.items()})
    small, masked = mp.slice(model, graph, plan), mp.mask(model, graph, plan)
    assert oracle.distance(small(x), masked(x)) < 1e-10
    return graph


@pytest.mark.parametrize("name", FREE)
def test_channels_pass_on(name: str) -> None:
    graph = cut_and_compared(FREE[name])
    held = [axis for axis in graph.axes.values() if any(member.startswith(("one.", "two.")) for member in axis.members)]
    assert all(axis.fixed is None or axis.size == 6 for axis in held), str(graph)


@pytest.mark.parametrize("name", FIXED)
def test_channels_stay_with_the_reason_and_its_line(name: str) -> None:
    function, reason = FIXED[name]
    graph = cut_and_compared(function)
    [axis] = [axis for axis in graph.axes.values() if "one.weight:0" in axis.members]
    assert axis.fixed is not None
    assert reason in axis.fixed
    assert "test_operators.py:" in axis.fixed
