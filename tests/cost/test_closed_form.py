"""Closed forms: every value against sums over the terms, one product at a time."""

import math

import pytest
import torch

import metaprune as mp
from metaprune.cost.closed_form import ClosedForm, axis_shares, layer_macs, macs_form, params_form
from metaprune.graph.errors import PlanError
from metaprune.graph.graph import ChannelGraph, Pass
from metaprune.graph.term import Axis, Concat, Product, width
from tests.laws import oracle
from tests.laws.case import case
from tests.zoo import ZOO

FORMS = {"macs": macs_form, "params": params_form}
NAMES = (
    *("resnet", "densenet", "unet", "efficientnet", "resnext", "shufflenet_v1", "edsr", "flat_view"),
    *("convnext", "gpt", "mixer", "bilinear", "experts", "interactions", "lstm"),
)


def graph_of(name: str) -> ChannelGraph:
    return case(name).graph


def random_widths(graph: ChannelGraph, seed: int) -> dict[str, int]:
    return oracle.ragged(graph, seed).widths


def summed(graph: ChannelGraph, cost: str, widths: dict[str, int]) -> int:
    """No polynomial: the sizes of the terms, multiplied and summed."""
    if cost == "macs":
        products = [product for operator in graph.operators for product in operator.macs]
        return sum(math.prod(width(term, widths) for term in p) for p in products) // graph.batch
    return sum(math.prod(width(term, widths) for term in graph.tensors[name]) for name in graph.parameters)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cost", FORMS)
def test_every_way_to_ask_gives_the_same(name: str, cost: str) -> None:
    graph = graph_of(name)
    form = FORMS[cost](graph)
    assert form.axes == tuple(graph.free)
    candidates = [{}, *(random_widths(graph, seed) for seed in range(5))]
    table = torch.tensor([[w.get(axis, graph.axes[axis].size) for axis in form.axes] for w in candidates])
    for widths, row, many in zip(candidates, table, form.many(table).tolist(), strict=True):
        expected = summed(graph, cost, widths)
        assert form.at(widths) == many == expected
        real = form(row)
        assert real.dtype == torch.float64
        assert math.floor(real.item() + 1e-6) == expected
    plan = oracle.ragged(graph, 3)
    assert {"macs": mp.macs, "params": mp.params}[cost](graph, plan) == form.at(plan.widths)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cost", FORMS)
def test_gradient_is_finite_differences(name: str, cost: str) -> None:
    graph = graph_of(name)
    form = FORMS[cost](graph)
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([float(axis.size) for axis in graph.free.values()]).double()
    at = (sizes * (0.3 + 0.7 * torch.rand(len(sizes), generator=generator).double())).requires_grad_()
    [gradient] = torch.autograd.grad(form(at), at)
    for i in range(len(sizes)):
        step = torch.zeros_like(sizes)
        step[i] = 1e-3
        slope = (form(at.detach() + step) - form(at.detach() - step)).item() / 2e-3
        assert gradient[i].item() == pytest.approx(slope, rel=1e-5, abs=1e-4)
        assert gradient[i] >= 0


def test_widths_may_be_float32() -> None:
    form = macs_form(graph_of("resnet"))
    sizes = torch.tensor([float(axis.size) for axis in graph_of("resnet").free.values()])
    assert form(sizes).item() == form.at({})


@pytest.mark.parametrize("name", NAMES)
def test_layers_sum_to_the_network(name: str) -> None:
    graph = graph_of(name)
    for plan in (None, oracle.half(graph)):
        layers = layer_macs(graph, plan)
        total, loss = mp.macs(graph, plan), sum(cost for _, cost in layers.values())
        assert total - len(layers) < loss <= total  # each is rounded down to whole operations an example
        assert all(not operator.startswith("aten.") for operator, _ in layers.values())
    if name == "resnet":
        assert loss == total


def test_layers_are_those_that_multiply() -> None:
    layers = layer_macs(graph_of("resnet"))
    model, *_ = ZOO["resnet"].example()
    weighted = {path for path, module in model.named_modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)}
    assert set(layers) == weighted


def test_a_convolution_by_hand() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 4, 5, stride=2))
    graph = mp.trace(model, (torch.zeros(2, 3, 11, 11),))
    assert mp.macs(graph) == 11 * 11 * 9 * 3 * 8 + 4 * 4 * 25 * 8 * 4
    assert mp.params(graph) == 9 * 3 * 8 + 8 + 25 * 8 * 4 + 4
    plan = mp.Plan({"0": [1, 4, 6]})
    assert mp.macs(graph, plan) == 11 * 11 * 9 * 3 * 3 + 4 * 4 * 25 * 3 * 4
    assert layer_macs(graph) == {"0": ("conv2d", 11 * 11 * 9 * 3 * 8), "1": ("conv2d", 4 * 4 * 25 * 8 * 4)}
    assert layer_macs(graph, plan) == {"0": ("conv2d", 11 * 11 * 9 * 3 * 3), "1": ("conv2d", 4 * 4 * 25 * 3 * 4)}
    first, second = 11 * 11 * 9 * 3 * 8, 4 * 4 * 25 * 8 * 4
    shares = {name: round(share * (first + second)) for name, share in axis_shares(graph).items()}
    assert shares == {"input:1": first, "0": first + second, "1": second}
    assert mp.params(graph, plan) == 9 * 3 * 3 + 3 + 25 * 3 * 4 + 4


def test_terms_by_hand() -> None:
    a, b, picture = Axis("a", 4), Axis("b", 5), Axis("", 3)
    graph = ChannelGraph(axes={"a": a, "b": b}, tensors={}, parameters=(), passes=(Pass(mp.Call()),), numbers={})
    form = ClosedForm(graph, [(Product((a, picture)), Concat((a, b))), (a, a), (picture,)])
    widths = torch.tensor([2, 3])
    assert form.at({"a": 2, "b": 3}) == form.many(widths[None]).item() == 2 * 3 * (2 + 3) + 2 * 2 + 3
    assert form.at({"a": 2}) == 2 * 3 * (2 + 5) + 4 + 3
    assert form.at({}) == 4 * 3 * 9 + 16 + 3
    half = ClosedForm(graph, [(a, b)], divisor=8)
    assert half.at({"a": 3}) == 15 // 8
    assert half(torch.tensor([3.0, 5.0])).item() == 15 / 8


def test_nothing_to_count() -> None:
    graph = graph_of("shufflenet_v1_odd")
    assert not graph.free
    form = params_form(graph)
    assert form.axes == ()
    assert form.at({}) == summed(graph, "params", {}) > 0
    assert form.many(torch.zeros(1, 0, dtype=torch.int64)).tolist() == [form.at({})]
    assert ClosedForm(graph, []).at({}) == 0


def test_tied_parameters_count_once() -> None:
    model, *_ = ZOO["gpt"].example()
    assert mp.params(graph_of("gpt")) == oracle.counted_params(model)


def test_a_plan_that_does_not_fit_has_no_cost() -> None:
    for cost in (mp.macs, mp.params):
        with pytest.raises(PlanError, match="no axis"):
            cost(graph_of("resnet"), mp.Plan({"nowhere": [0]}))
    with pytest.raises(PlanError):
        layer_macs(graph_of("resnet"), mp.Plan({"conv1": [99]}))
