"""Time as a function of the widths: the wiring from operators to networks, and what sets it right."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.cost.closed_form import macs_form
from metaprune.cost.latency_form import NANOSECONDS, Anchor, LatencyForm
from metaprune.cost.roofline import Roofline
from metaprune.cost.signature import Piece, pieces
from metaprune.cost.table import Table
from metaprune.cost.table_sum import TableSum
from metaprune.graph.errors import BudgetError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.term import axes_of
from tests.laws.case import case

CPU = torch.device("cpu")


def graph_of(name: str) -> ChannelGraph:
    return case(name).graph


def pieces_of(graph: ChannelGraph, **conditions: Any) -> list[Piece]:
    given = {"device": CPU, "precision": "32-true", "channels_last": False} | conditions
    return pieces(graph, graph.inferences[0], **given)


def multiplications(call: Callable[[], Any]) -> float:
    """A stopwatch that counts what an operator multiplies, in millions, and hardly anything else."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2e6 + 1e-9


@cache
def counted(name: str) -> LatencyForm:
    graph = graph_of(name)
    known, found = Table(multiplications, CPU, rounds=1), pieces_of(graph)
    known.learn(piece.signature for piece in found)
    sums = TableSum((p.operator.where, p.signature.key, p.terms, known[p.signature]) for p in found)
    return LatencyForm(graph, sums)


def some_widths(graph: ChannelGraph, count: int) -> torch.Tensor:
    torch.manual_seed(0)
    columns = [torch.randint(max(1, axis.size // 4), axis.size + 1, (count,)) for axis in graph.free.values()]
    return torch.stack(columns, 1)


@pytest.mark.parametrize("name", ["resnet", "resnext", "gpt", "channel_shuffle"])
def test_operators_are_put_together_as_the_closed_form_is(name: str) -> None:
    """Where only multiplications take time, the time is the multiplications, at any widths."""
    graph, form = graph_of(name), counted(name)
    widths = some_widths(graph, 20)
    ours = form.many(widths).double() / graph.batch
    theirs = macs_form(graph).many(widths)
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-3, atol=200)


def test_equal_blocks_share_signatures() -> None:
    found = pieces_of(graph_of("resnet"))
    assert len({piece.signature.key for piece in found}) < len(found)
    assert len({piece.signature.key for piece in pieces_of(graph_of("gpt"))}) < len(pieces_of(graph_of("gpt")))


def test_what_only_looks_at_a_tensor_takes_no_time() -> None:
    names = {piece.operator.name for piece in pieces_of(graph_of("gpt"))}
    assert "aten.linear" in names
    assert not names & {"aten.view", "aten.transpose", "aten.permute", "aten.split", "aten.dropout"}


def test_what_is_put_behind_a_tensor_of_nothing_is_timed_as_it_is() -> None:
    """As caches begin: PyTorch puts anything behind one dimension of size 0."""

    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.leave = nn.Conv2d(3, 16, 1), nn.Conv2d(3, 12, 1), nn.Conv2d(12, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pairs = self.one(x)[:, :, None] * self.other(x)[:, None]
            return self.leave(torch.cat([x.new_zeros(0), pairs], dim=-1).sum(1))

    graph = mp.trace(Growing(), (torch.randn(2, 3, 8, 8),))
    [joined] = [piece for piece in pieces_of(graph) if piece.operator.name == "aten.cat"]
    assert sorted(graph.axes[name].size for name in graph.free) == [12, 16]
    assert joined.signature.call([8, 6], CPU)().shape == (2, 8, 6, 8, 8)


def test_what_hangs_on_the_data_takes_nobody_knows_how_long(capfd: pytest.CaptureFixture[str]) -> None:
    """Rows that the data pick: their number is not known, and no operator of that size is made."""

    class Picking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.leave = nn.Linear(3, 8), nn.Linear(8, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            return self.leave(self.inner(x[x.sum(1) > 0]).sum(0))

    graph = mp.trace(Picking(), (torch.randn(9, 3),))
    products = [piece.terms for piece in pieces_of(graph) if piece.operator.macs]
    names = [axis.name for terms in products for term in terms for axis in axes_of(term)]
    assert names == ["stem", "inner"]  # of the layers `stem` and `leave`
    assert capfd.readouterr().err == ""


def test_what_is_too_involved_is_a_copy_as_large_as_its_answer() -> None:
    """A product over four dimensions that can be cut: as many numbers are moved as it has, however they are cut."""

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factors = nn.ModuleList(nn.Linear(3, width) for width in (6, 5, 4, 2))
            self.leave = nn.Linear(2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            one, two, three, four = (factor(x) for factor in self.factors)
            pairs = one[:, :, None, None, None] * two[:, None, :, None, None]
            return self.leave((pairs * three[:, None, None, :, None] * four[:, None, None, None]).sum((1, 2, 3)))

    graph = mp.trace(Outer(), (torch.randn(7, 3),))
    assert sorted(axis.size for axis in graph.free.values()) == [2, 4, 5, 6]
    found = [piece.signature for piece in pieces_of(graph) if piece.operator.name == "aten.mul"][-1]
    assert found.full == (6 * 5 * 4 * 2,)
    assert [found.call([size], CPU)().numel() for size in (6 * 5 * 4 * 2, 3 * 2 * 4 * 2)] == [7 * 240, 7 * 48]


def test_types_and_layouts_are_those_of_the_stated_conditions() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 3))
    graph = mp.trace(model, (torch.randn(2, 3, 8, 8),))
    found = pieces_of(graph, precision="bf16-mixed", channels_last=True)
    conv = next(p.signature for p in found[1:] if p.operator.name == "aten.conv2d")
    given, weight = conv.operands[:2]
    assert (given.dtype, given.order, given.learned) == ("bfloat16", (0, 2, 3, 1), False)
    assert (weight.dtype, weight.order, weight.learned) == ("float32", (0, 2, 3, 1), True)
    sizes = [8] * len(conv.full)
    with torch.autocast("cpu", torch.bfloat16):
        answer = conv.call(sizes, CPU)()
    assert (answer.shape, answer.dtype) == ((2, 8, 4, 4), torch.bfloat16)
    assert given.make(sizes, CPU).is_contiguous(memory_format=torch.channels_last)


def test_anchors_are_gone_through() -> None:
    graph, form = graph_of("resnet"), counted("resnet")
    half = {name: max(1, axis.size // 2) for name, axis in graph.free.items()}
    least = {name: max(1, axis.size // 8) for name, axis in graph.free.items()}
    right = form.through(Anchor({}, 10.0), Anchor(least, 4.0))
    assert right.at({}) == 10 * NANOSECONDS
    assert right.at(least) == 4 * NANOSECONDS
    assert 4 < right.at(half) / NANOSECONDS < 10
    nearer = right.through(Anchor(half, 7.7))
    assert [nearer.at(widths) for widths in ({}, half, least)] == [10_000_000, 7_700_000, 4_000_000]
    assert form.through(Anchor({}, 10.0)).at({}) == 10 * NANOSECONDS
    late = nearer.through(Anchor(half, 9.0))  # the later one counts
    assert [late.at({}), late.at(half)] == [10_000_000, 9_000_000]
    odd = right.through(Anchor(half, 3.0))  # faster than the smallest network: that cannot be, the later counts
    assert odd.at({}) > odd.at(half) > 0


def test_it_has_the_interface_of_the_closed_form() -> None:
    graph = graph_of("resnet")
    form = counted("resnet").through(Anchor({}, 10.0), Anchor(dict.fromkeys(graph.free, 2), 2.0))
    widths = some_widths(graph, 5)
    for row, ns in zip(widths, form.many(widths), strict=True):
        assert form.at(dict(zip(form.axes, row.tolist(), strict=True))) == int(ns)
        assert float(form(row.double())) == pytest.approx(float(ns), abs=1)
    point = widths[0].double().requires_grad_()
    [slope] = torch.autograd.grad(form(point), point)
    assert slope.isfinite().all()
    assert (form.slopes(widths[0]) > 0).all()
    name = next(iter(graph.free))
    fewer = form.on(graph.fixing({name: "mine"}))
    assert name not in fewer.axes
    assert fewer.at({}) == form.at({})


def test_plans_are_made_within_a_time() -> None:
    graph = graph_of("resnet")
    form = counted("resnet").through(Anchor({}, 10.0), Anchor(dict.fromkeys(graph.free, 2), 2.0))
    scores = {name: torch.rand(axis.size) for name, axis in graph.free.items()}
    for budget, limit, aim in (
        (mp.Budget(latency=6.0), 6.0, 5_940_000),  # a hundredth less: what is measured later has a spread
        (mp.Budget(speedup=2.0), 5.0, 4_950_000),
        (mp.Budget(latency=20.0), 10.0, 20_000_000),  # which the whole network meets
    ):
        allocation = Allocation(graph, mp.Budget(**{**budget.bounds, "multiple_of": 1}).on(form))
        assert allocation.limit == aim
        plan = allocation.plan(scores)
        allocation.check(plan, "test")
        assert limit - 0.12 < form.at(plan.widths) / NANOSECONDS <= limit
    both = Allocation(graph, mp.Budget(macs=0.5, latency=9.0, multiple_of=1).on(form))
    assert mp.macs(graph, both.plan(scores)) <= 0.5 * mp.macs(graph)
    with pytest.raises(
        BudgetError, match=r"smallest possible is [\d.]+ times the speed \([\d.]+ of 10 ms, .*\d% of that"
    ):
        Allocation(graph, mp.Budget(speedup=50.0, multiple_of=1).on(form))
    prices = both.prices({})
    assert prices.keys() == graph.free.keys()
    assert min(prices.values()) > 0


def test_few_constants_are_fitted_to_networks() -> None:
    graph = graph_of("resnext")
    truth = Roofline.of(graph)
    known = LatencyForm(graph, Roofline(truth.products, (0.5, 3e-6, 0.0, 2e-6)))
    rows = some_widths(graph, 6)
    networks = [dict(zip(known.axes, row.tolist(), strict=True)) for row in rows]
    ms = [known.at(widths) / NANOSECONDS for widths in networks]
    fitted = truth.fitted(known.sizes_of(*networks), ms)
    assert fitted.constants == pytest.approx((0.5, 3e-6, 0.0, 2e-6), rel=1e-3, abs=1e-9)
    slow = truth.fitted(known.sizes_of(*networks), [5.0] * 6)  # a time that hangs on nothing
    assert slow.constants == pytest.approx((5.0, 0, 0, 0), abs=1e-6)
    places = {place: ns for place, (ns, _) in LatencyForm(graph, fitted).parts({}).items()}
    assert sum(places.values()) == pytest.approx(known.at({}), rel=1e-3)
    assert max(places, key=places.__getitem__) == "the network"
    assert places["the network"] == pytest.approx(0.5 * NANOSECONDS, rel=1e-3)
    assert places["stem (conv2d)"] == pytest.approx(3 * 9 * 16 * 8 * 8 * 3e-6 * NANOSECONDS, rel=0.6)
