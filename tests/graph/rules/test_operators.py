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


def _matrices(x: Tensor) -> Tensor:
    """A matrix of two rows and columns, invertible, for each row."""
    return x.mean(1)[:, None, None] + torch.tensor([[2.0, 0.3], [0.1, 3.0]], dtype=x.dtype)


FREE: dict[str, Function] = {
    "vstack": lambda x, y: torch.vstack([x, y]),
    "hstack": lambda x, y: torch.hstack([x, y]),
    "column_stack": lambda x, y: torch.column_stack([x, y]),
    "vstack_of_vectors": lambda x, y: torch.vstack([x.mean(0), y.sum(0)]),
    "hstack_of_vectors": lambda x, y: torch.hstack([x.mean(0), y.sum(0)])[None].expand(2, -1),
    "column_stack_of_vectors": lambda x, y: torch.column_stack([x.mean(0), y.sum(0)]).t(),
    "column_stack_of_more": lambda x, y: torch.column_stack([x[:, None], y[:, None]]).prod(1),
    "dstack": lambda x, y: torch.dstack([x, y])[0].t(),
    "dstack_of_vectors": lambda x, y: torch.dstack([x.mean(0), y.sum(0)])[0].t(),
    "cumsum_of_the_batch": lambda x, y: torch.cumsum(x, 0) * y,
    "flip_of_the_batch": lambda x, y: x.flip(0) * y,
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
    "rsub": lambda x, y: torch.rsub(x, y, alpha=2),
    "floor_divide": lambda x, y: torch.floor_divide(x * 9, 2) + y,
    "special": lambda x, y: torch.special.ndtr(x) + torch.special.i0(y),
    "filled_in_place": lambda x, y: torch.empty_like(x).normal_() * 0 + torch.empty_like(x).fill_(2) * y,
    "quantile": lambda x, y: x / torch.quantile(y, 0.5, dim=1, keepdim=True),
    "quantiles": lambda x, y: x - torch.nanquantile(y, torch.tensor([0.2, 0.7], dtype=y.dtype), dim=1).sum(0)[:, None],
    "median": lambda x, y: x - y.median(1, keepdim=True)[0] + y.median(),
    "renorm": lambda x, y: torch.renorm(x, 2, 0, 0.5) + y,
    "cdist": lambda x, y: torch.cdist(x, y) @ x,
    "multi_dot": lambda x, y: torch.linalg.multi_dot([x, y.t(), x]) + y,
    "diff_of_the_batch": lambda x, y: torch.diff(x, dim=0) + y[:1],
    "rot90_of_others": lambda x, y: torch.rot90(x.expand(2, 2, -1), 1, (0, 1)).sum(0) + y,
    "inverse_of_others": lambda x, y: torch.einsum("bij,bc->bc", torch.linalg.inv(_matrices(x)), x) + y,
    "inverse_for_each_channel": lambda x, y: (
        torch.linalg.inv(x[..., None, None] + 3 * torch.eye(2, dtype=x.dtype)).sum((2, 3)) * y
    ),
    "svdvals": lambda x, y: x * torch.linalg.svdvals(_matrices(x))[:, :1] + y,
    "narrow": lambda x, y: torch.cat([x, y], 1).narrow(1, 0, x.shape[1]) + y,
    "addmv": lambda x, y: torch.addmv(y[0], x.t() @ y, y[1])[None].expand(2, -1),
    "solve_in_batches": lambda x, y: torch.linalg.solve(_matrices(x), torch.stack([x, y], 1)).sum(1),
    "solve_for_each_channel": lambda x, y: torch.linalg.solve(
        x[..., None, None] + 3 * torch.eye(2, dtype=x.dtype), y[..., None, None].expand(-1, -1, 2, 1)
    ).sum((2, 3)),
    "solve": lambda x, y: torch.linalg.solve(_matrices(x)[0], x) + y,
    "trace": lambda x, y: x * torch.trace(_matrices(x)[0]) + y,
    "diagonal": lambda x, y: torch.diagonal(x.expand(2, 2, -1), 0, 0, 1).t() + y,
    "diagflat": lambda x, y: torch.diagflat(x).sum(0).reshape(2, -1) + y,
    "atleast": lambda x, y: torch.atleast_3d(x).squeeze(-1) + torch.atleast_2d(y),
    "searchsorted": lambda x, y: x + torch.searchsorted(torch.tensor([0.0, 1.0], dtype=y.dtype), y),
    "slice_scatter": lambda x, y: torch.slice_scatter(x, y[:1], 0, 0, 1),
    "select_scatter": lambda x, y: torch.select_scatter(x, y[0], 0, 1),
    "permute_copy": lambda x, y: torch.permute_copy(x, (1, 0)).t() + y,
    "ranking": lambda x, y: x * F.margin_ranking_loss(x, y, torch.ones_like(x)),
    "triplet": lambda x, y: x * F.triplet_margin_loss(x, y, x + y),
    "poisson": lambda x, y: x * F.poisson_nll_loss(x, y.exp()),
    "last_entry": lambda x, y: torch.cat([x, y], 1)[:, -1, None] * x,
    "first_entry": lambda x, y: torch.cat([x, y], 1)[:, 0, None] * y,
    "pixel_unshuffle": lambda x, y: F.pixel_unshuffle((x + y)[..., None, None].expand(-1, -1, 2, 2), 2).flatten(1),
    "max_unpool_without_batch": lambda x, y: (
        F.max_unpool2d(*F.max_pool2d(x.t()[..., None].expand(-1, -1, 2), (1, 2), return_indices=True), (1, 2))
        .sum(-1)
        .t()
        + y
    ),
    "masked_scatter_of_the_batch": lambda x, y: x.masked_scatter(torch.tensor([[True], [False]]), y),
    "queries_of_one_key": lambda x, y: F.scaled_dot_product_attention(
        x[..., None, None].expand(-1, -1, 1, 4),
        y.sum(1)[:, None, None, None].expand(-1, 1, 1, 4),
        y.sum(1)[:, None, None, None].expand(-1, 1, 1, 4),
        enable_gqa=True,
    ).sum((2, 3)),
    "unused": lambda x, y: x.reshape(2, y[0].numel()) + (x[:, 0] * 0).shape[0] * y,
}

FIXED: dict[str, tuple[Function, str]] = {
    "fft": (lambda x, y: torch.fft.fft(x).real + y, "a Fourier transform mixes its entries"),
    "argmax": (lambda x, y: x + y + x.argmax(1, keepdim=True), "aten.argmax runs over it"),
    "max_positions": (lambda x, y: x + y + x.max(1, keepdim=True)[1], "aten.max runs over it"),
    "table": (lambda x, y: x * torch.arange(x.shape[1]) + y, "the code makes a table of this size"),
    "median_positions": (lambda x, y: x + y + x.median(1, keepdim=True)[1], "aten.median runs over it"),
    "diff": (lambda x, y: torch.diff(x, dim=1)[:, :1] + y, "aten.diff depends on the order"),
    "rot90": (lambda x, y: torch.rot90(x.expand(2, 2, -1), 2, (1, 2))[0] + y, "aten.rot90 depends on the order"),
    "fftshift": (lambda x, y: torch.fft.fftshift(x, 1) + y, "aten.fft_fftshift depends on the order"),
    "matrix": (lambda x, y: torch.linalg.inv(x.t() @ x + torch.eye(8, dtype=x.dtype))[:2] + y, "matrix as a whole"),
    "classes": (lambda x, y: F.cross_entropy(x, torch.tensor([0, 3])) + x + y, "targets name its entries"),
    "searched": (lambda x, y: x + y + torch.searchsorted(x.detach().sort()[0], y), "order of its entries"),
    "multinomial": (lambda x, y: x + y + 0 * torch.multinomial(x.abs() + 1, 1), "not understood"),
    "an_entry": (lambda x, y: x[:, 3, None] * y + x, "single entries of it are picked by position"),
    "an_entry_amid_others": (lambda x, y: torch.cat([x, y], 1)[:, 3, None] * y, "single entries of it are picked"),
    "an_entry_from_the_end": (lambda x, y: x[:, -2, None] * y + x, "single entries of it are picked by position"),
    "scatter": (lambda x, y: x.scatter(0, (y[:, :5] > 0).long(), 1.0), "only its first entries are used"),
    "max_unpool": (
        lambda x, y: F.max_unpool2d(x[..., None], torch.arange(8)[None, :, None].expand(2, 8, 1), (1, 1))[..., 0] + y,
        "aten.max_unpool2d runs over it",
    ),
    "the_middle": (lambda x, y: x[:, x.shape[1] // 2, None] * y + x, "single entries of it are picked by position"),
}


def cut_and_compared(function: Function) -> mp.ChannelGraph:
    torch.manual_seed(0)
    model, x = Two(function).double().eval(), torch.rand(2, 6, dtype=torch.float64)
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


@pytest.mark.filterwarnings("ignore:The use of `x.T`")
def test_three_dimensions_are_reversed() -> None:
    """As code has it that was written before PyTorch frowned on it."""
    assert "one" in cut_and_compared(lambda x, y: x[None].T.T[0] + y.T.T).free


@pytest.mark.parametrize("name", ["first_entry", "last_entry"])
def test_an_entry_that_is_picked_from_an_end_is_no_channel_any_more(name: str) -> None:
    graph = mp.trace(Two(FREE[name]), (torch.rand(2, 6),))
    assert sorted(axis.size for axis in graph.free.values()) == [7, 8, 12]


@pytest.mark.parametrize("name", FIXED)
def test_channels_stay_with_the_reason_and_its_line(name: str) -> None:
    function, reason = FIXED[name]
    graph = cut_and_compared(function)
    [axis] = [axis for axis in graph.axes.values() if "one.weight:0" in axis.members]
    assert axis.fixed is not None
    assert reason in axis.fixed
    assert "test_operators.py:" in axis.fixed


class ManyQueries(nn.Module):
    """Heads of queries, then one of keys and one of values, laid out together: the last two are picked by position."""

    def __init__(self, listed: bool) -> None:
        super().__init__()
        self.heads, self.size, self.listed = 4, 6, listed
        self.qkv, self.out = nn.Linear(6, 36), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (self.heads + 2, self.size))
        q = qkv[..., :-2, :]
        if self.listed:
            k, v = qkv[..., [-2], :], qkv[..., [-1], :]
        else:
            k, v = qkv[..., -2, :].unsqueeze(-2), qkv[..., -1, :].unsqueeze(-2)
        return self.out((q * k * v).flatten(-2))


@pytest.mark.parametrize("listed", [True, False])
def test_what_is_picked_from_the_end_stays_and_the_rest_is_free(listed: bool) -> None:
    torch.manual_seed(0)
    model, x = ManyQueries(listed).double().eval(), torch.rand(2, 6, dtype=torch.float64)
    graph = mp.trace(model, (x,))
    assert sorted(axis.size for axis in graph.free.values()) == [4, 6]
    for width in (1, 3):
        plan = mp.Plan({name: range(width) for name in graph.free})
        small, masked = mp.slice(model, graph, plan), mp.mask(model, graph, plan)
        assert small.heads == small.size == width
        assert oracle.distance(small(x), masked(x)) < 1e-10
        assert oracle.distance(small(x[:1]), masked(x[:1])) < 1e-10  # read once more, beside what is known


def test_a_reason_of_the_theory_has_the_line() -> None:
    class Across(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x).unflatten(-1, (4, 2)).flatten(-2)
            return self.b(y[..., 1:4])

    graph = mp.trace(Across(), (torch.rand(2, 6),))
    told = [str(axis.fixed) for axis in graph.axes.values() if "falls inside" in str(axis.fixed)]
    assert told
    assert all("test_operators.py:" in reason for reason in told)
