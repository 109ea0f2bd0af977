"""The state of an optimizer goes with the channels that stay, and training goes on where it was."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adafactor, Adam, AdamW, Optimizer, RMSprop

import metaprune as mp
from metaprune.graph.term import channels
from metaprune.surgery.optimizer import OptimizerError, carry
from tests.laws import oracle

Make = Callable[[list[Any]], Optimizer]

ELEMENTWISE: dict[str, Make] = {
    "SGD": lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": lambda p: Adam(p, lr=0.01, foreach=False),
    "AdamW": lambda p: AdamW(p, lr=0.01, amsgrad=True, weight_decay=0.1),
    "RMSprop": lambda p: RMSprop(p, lr=0.01, momentum=0.9, centered=True),
}
ALL = ELEMENTWISE | {"Adafactor": lambda p: Adafactor(p, lr=0.01)}


class Network(nn.Module):
    """Convolutions with a shortcut, an MLP, a tie; no statistic runs over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 12, 3, padding=1)
        self.back = nn.Conv2d(12, 8, 1)
        self.hidden = nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.hidden.weight
        self.frozen = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).tanh()
        x = x + self.back(self.wide(x).relu())
        x = x.mean((2, 3))
        x = self.again(self.hidden(x).tanh()).tanh()
        return self.head(self.frozen(x).tanh())


class Queries(nn.Module):
    """Attention whose head size is cut, so that the weights of the queries are multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x)))


X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SENTENCE = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def trained(model: nn.Module, x: Tensor, make: Make, steps: int = 3) -> Optimizer:
    optimizer = make([p for p in model.parameters() if p.requires_grad])
    for _ in range(steps):
        step(model, x, optimizer)
    return optimizer


def step(model: nn.Module, x: Tensor, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


@cache
def graph_of(kind: type[nn.Module]) -> mp.ChannelGraph:
    """The same whatever the weights are."""
    return mp.trace(kind().double(), (X if kind is Network else SENTENCE,))


def cut(model: nn.Module) -> tuple[nn.Module, mp.ChannelGraph, mp.Plan]:
    graph = graph_of(type(model))
    plan = oracle.half(graph)
    return mp.slice(model, graph, plan), graph, plan


def network() -> Network:
    model = Network().double()
    model.frozen.requires_grad_(False)
    return model


def by_hand(tensor: Tensor, terms: Any, plan: mp.Plan) -> Tensor:
    for dim, term in enumerate(terms):
        if tensor.shape[dim] > 1:
            tensor = tensor[(slice(None),) * dim + (channels(term, plan.kept),)]
    return tensor


@pytest.mark.parametrize("kind", ALL)
def test_the_state_is_cut_as_the_parameter(kind: str) -> None:
    model = network()
    optimizer = trained(model, X, ALL[kind])
    small, graph, plan = cut(model)
    carried = carry(optimizer, model, small, graph, plan)
    assert type(carried) is type(optimizer)
    assert len(carried.state) == len(optimizer.state) > 0
    ours, settings = dict(small.named_parameters()), {**optimizer.param_groups[0], "params": None}
    assert {**carried.param_groups[0], "params": None} == settings
    for name, parameter in model.named_parameters():
        held = optimizer.state.get(parameter, {})
        assert set(carried.state.get(ours[name], {})) == set(held)
        for key, value in held.items():
            actual = carried.state[ours[name]][key]
            expected = by_hand(value, graph.tensors[name], plan) if value.numel() > 1 else value
            assert torch.equal(actual, expected), (name, key)
            assert actual.data_ptr() != value.data_ptr()
    assert sum(v.numel() for s in carried.state.values() for v in s.values()) < sum(
        v.numel() for s in optimizer.state.values() for v in s.values()
    )


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_the_next_step_is_that_of_the_masked_network(kind: str) -> None:
    model = network()
    optimizer = trained(model, X, ELEMENTWISE[kind])
    small, graph, plan = cut(model)
    carried = carry(optimizer, model, small, graph, plan)
    masked = mp.mask(model, graph, plan)
    whole = dict(masked.network.named_parameters())
    full = copy.deepcopy(optimizer, {id(p): whole[name] for name, p in model.named_parameters()})
    for _ in range(3):
        step(small, X, carried)
        step(masked, X, full)
    for name, parameter in small.named_parameters():
        expected = by_hand(whole[name], graph.tensors[name], plan)
        torch.testing.assert_close(parameter, expected, rtol=1e-10, atol=1e-12)
    other, *_ = cut(model)
    fresh = trained(other, X, ELEMENTWISE[kind], steps=0)
    for _ in range(3):
        step(other, X, fresh)
    assert not torch.allclose(other.head.weight, small.head.weight), "without the state it is another step"


@pytest.mark.parametrize("kind", ALL)
def test_nothing_given_is_touched(kind: str) -> None:
    model = network()
    optimizer = trained(model, X, ALL[kind])
    small, graph, plan = cut(model)
    before = copy.deepcopy(optimizer.state_dict()), oracle.fingerprint(model), oracle.fingerprint(small)
    carried = carry(optimizer, model, small, graph, plan)
    assert (oracle.fingerprint(model), oracle.fingerprint(small)) == before[1:]
    step(small, X, carried)
    torch.testing.assert_close(optimizer.state_dict(), before[0], rtol=0, atol=0)
    assert oracle.fingerprint(model) == before[1]


def test_groups_ties_and_parameters_in_no_group() -> None:
    model = network()
    groups = [
        {"params": [model.again.weight, model.stem.weight], "lr": 0.1, "betas": (0.5, 0.9)},
        {"params": [model.head.bias, model.frozen.weight], "weight_decay": 0.3, "initial_lr": 7.0},
    ]
    optimizer = AdamW(groups, foreach=True)
    step(model, X, optimizer)
    optimizer.param_groups[1]["capturable"] = True  # of use on a GPU only
    small, graph, plan = cut(model)
    carried = carry(optimizer, model, small, graph, plan)
    first, second = carried.param_groups
    assert [id(p) for p in first["params"]] == [id(small.hidden.weight), id(small.stem.weight)]
    assert [id(p) for p in second["params"]] == [id(small.head.bias), id(small.frozen.weight)]
    assert (first["lr"], first["betas"], first["foreach"]) == (0.1, (0.5, 0.9), True)
    assert (second["weight_decay"], second["capturable"], second["initial_lr"]) == (0.3, True, 7.0)
    assert small.frozen.weight not in carried.state
    assert len(carried.state) == 3


def test_a_cut_that_multiplies_weights_divides_their_moments() -> None:
    """Attention over 6 channels, cut to 3: the queries' weights are halved in square, the gradients grow likewise."""
    model = Queries().double()
    with torch.no_grad():
        model.q.bias[1:].zero_()
    optimizer = trained(model, SENTENCE, ELEMENTWISE["AdamW"], steps=1)
    with torch.no_grad():
        model.q.bias.zero_()  # zeros say nothing of their factor: the weight beside them does
    small, graph, plan = cut(model)
    carried = carry(optimizer, model, small, graph, plan)
    factor = small.q.weight.norm() / by_hand(model.q.weight, graph.tensors["q.weight"], plan).norm()
    torch.testing.assert_close(factor.item(), (1 / 2) ** 0.5)
    for name, parameter in model.q.named_parameters():
        for key, power in {"exp_avg": -1, "exp_avg_sq": -2, "max_exp_avg_sq": -2}.items():
            held = by_hand(optimizer.state[parameter][key], graph.tensors[f"q.{name}"], plan)
            found = carried.state[small.q.get_parameter(name)][key]
            torch.testing.assert_close(found, held * factor**power, rtol=1e-9, atol=0)
    held = by_hand(optimizer.state[model.k.weight]["exp_avg"], graph.tensors["k.weight"], plan)
    assert torch.equal(carried.state[small.k.weight]["exp_avg"], held)


def test_momentum_of_steps_that_were_divided_by_their_size_stays() -> None:
    """RMSprop's momentum adds up gradient / root of its square, which multiplied weights do not change."""
    model = Queries().double()
    optimizer = trained(model, SENTENCE, lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9), steps=2)
    before = model.q.weight.detach().clone()
    small, graph, plan = cut(model)
    carried = carry(optimizer, model, small, graph, plan)
    factor = small.q.weight.norm() / by_hand(before, graph.tensors["q.weight"], plan).norm()
    for key, power in {"square_avg": -2, "momentum_buffer": 0}.items():
        held = by_hand(optimizer.state[model.q.weight][key], graph.tensors["q.weight"], plan)
        torch.testing.assert_close(carried.state[small.q.weight][key], held * factor**power, rtol=1e-9, atol=0)


class Transposed(nn.Module):
    """The same with one weight of shape (in, out), of which the columns are multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias, self.out = (
            nn.Parameter(torch.randn(8, 18)),
            nn.Parameter(torch.randn(18)),
            nn.Linear(6, 8),
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (x @ self.weight + self.bias).chunk(3, -1)
        return self.out(F.scaled_dot_product_attention(q, k, v))


def test_a_cut_that_multiplies_columns_divides_their_moments() -> None:
    model = Transposed().double()
    optimizer = trained(model, SENTENCE, ELEMENTWISE["AdamW"], steps=1)
    small, graph, plan = cut(model)
    carried = carry(optimizer, model, small, graph, plan)
    factor = torch.tensor([0.5**0.5] * 3 + [1.0] * 6, dtype=torch.float64)
    for name, parameter in (("weight", model.weight), ("bias", model.bias)):
        held = by_hand(optimizer.state[parameter]["exp_avg"], graph.tensors[name], plan)
        torch.testing.assert_close(
            carried.state[small.get_parameter(name)]["exp_avg"], held / factor, rtol=1e-9, atol=0
        )


def test_moments_after_multiplied_weights_are_those_of_gradients_seen_there() -> None:
    """The gradient of the cut network is the masked one's over the factor: the state of one step follows."""
    model = Queries().double()
    optimizer = trained(model, SENTENCE, ELEMENTWISE["SGD"], steps=0)
    small, graph, plan = cut(model)
    masked = mp.mask(model, graph, plan)
    masked(SENTENCE).square().mean().backward()
    small(SENTENCE).square().mean().backward()
    for name, parameter in masked.network.named_parameters():
        optimizer.state[model.get_parameter(name)]["momentum_buffer"] = parameter.grad.clone()
    carried = carry(optimizer, model, small, graph, plan)
    for parameter in small.parameters():
        held = carried.state[parameter]["momentum_buffer"]
        torch.testing.assert_close(held, parameter.grad, rtol=1e-10, atol=1e-12)


class Rows(Optimizer):
    """Holds a state without a dimension of the parameter, under any name."""

    def __init__(self, params: Any, key: str, dim: int) -> None:
        super().__init__(params, {"key": key, "dim": dim})

    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter][group["key"]] = parameter.detach().square().sum(group["dim"])


@pytest.mark.parametrize(("key", "dim"), [("exp_avg_sq_row", 1), ("exp_avg_sq_col", 0)])
def test_averages_over_a_dimension(key: str, dim: int) -> None:
    model = network()
    optimizer = Rows([model.head.weight, model.frozen.weight], key, dim)
    optimizer.step()
    small, graph, plan = cut(model)
    carried = carry(optimizer, model, small, graph, plan)
    for name in ("head", "frozen"):  # the second is square: only the name tells rows from columns
        weight = model.get_parameter(f"{name}.weight")
        kept = channels(graph.tensors[f"{name}.weight"][1 - dim], plan.kept)
        actual = carried.state[small.get_parameter(f"{name}.weight")][key]
        assert torch.equal(actual, optimizer.state[weight][key][kept])


def test_refusals() -> None:
    model, other = network(), network()
    optimizer = trained(model, X, ALL["Adam"], steps=1)
    small, graph, plan = cut(model)

    def refusal(optimizer: Optimizer, small: nn.Module = small, plan: mp.Plan = plan) -> str:
        with pytest.raises(OptimizerError) as caught:
            carry(optimizer, model, small, graph, plan)
        return str(caught.value)

    assert "not of this Network" in refusal(trained(other, X, ALL["Adam"]))
    assert "by the plan" in refusal(optimizer, plan=mp.Plan({}))
    shifted = {name: [c for c in range(graph.axes[name].size) if c not in stays] for name, stays in plan.kept.items()}
    assert "is not what was cut" in refusal(optimizer, plan=mp.Plan(shifted))
    square = Rows([model.frozen.weight], "total", 0)
    square.step()
    assert "'total' of frozen.weight in Rows" in refusal(square)
    optimizer.state[model.head.weight]["history"] = [3, torch.zeros(2)]
    assert "'history' of head.weight in Adam follows a cut cannot be told (a list of tensors)" in refusal(optimizer)
    flat = LBFGS([p for p in model.parameters() if p.requires_grad], max_iter=2)

    def closure() -> Tensor:
        flat.zero_grad()
        loss = model(X).square().mean()
        loss.backward()
        return loss

    flat.step(closure)
    small_after = cut(model)
    with pytest.raises(OptimizerError, match="LBFGS"):
        carry(flat, model, *small_after)
