"""The mask, where it has to remember something: plans, modes, norms that stand beside one another."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.surgery import mask as masking
from tests.laws import oracle
from tests.zoo import ZOO

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Normed(nn.Module):
    """A batch norm, which knows nothing of other channels, beside a norm that runs over them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.batch, self.layer, self.out = (
            nn.Linear(6, 12),
            nn.BatchNorm1d(12),
            nn.LayerNorm(12),
            nn.Linear(12, 3),
        )
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(self.batch(self.inner(x)).relu()))


def network() -> tuple[nn.Module, mp.ChannelGraph]:
    model = Normed().double().eval()
    return model, mp.trace(model, (X,))


def test_two_plans_at_one_size_of_inputs() -> None:
    """What was made for one plan serves no other, in any order of the calls."""
    model, graph = network()
    plans = [mp.Plan({"inner": kept}) for kept in ([0, 2, 3, 7, 11], [1, 2, 4, 8, 9], range(3))]
    masked, small = ([cut(model, graph, plan) for plan in plans] for cut in (mp.mask, mp.slice))
    for place in (0, 1, 0, 2, 1):
        torch.testing.assert_close(masked[place](X), small[place](X), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("training", [False, True])
def test_a_batch_norm_beside_a_norm_over_channels(training: bool) -> None:
    model, graph = network()
    plan = mp.Plan({"inner": [0, 2, 3, 7, 11]})
    masked, small = (cut(model, graph, plan).train(training) for cut in (mp.mask, mp.slice))
    for _ in range(2):
        torch.testing.assert_close(masked(X), small(X), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(masked.eval()(X), small.eval()(X), rtol=1e-10, atol=1e-12)  # the statistics moved alike


class Headed(nn.Module):
    """Runs something more in training, so that it is exported in both modes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out, self.more = nn.Linear(6, 12), nn.Linear(12, 3), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Any:
        x = self.inner(x).relu()
        return (self.out(x), self.more(x)) if self.training else self.out(x)


@pytest.mark.parametrize("training", [False, True])
def test_calls_that_the_graph_knows_are_not_exported_again(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Headed().double().eval()
    graph = mp.trace(model, (X,))
    masked = mp.mask(model, graph, mp.Plan({"inner": [1, 4, 7]})).train(training)
    monkeypatch.setattr(masking, "capture", lambda *_, **__: pytest.fail("exported again"))
    assert len(masked(X)) == (2 if training else len(X))


def test_what_is_hidden_is_nought_whatever_stood_there() -> None:
    """A dead channel may overflow."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 3))
    x = torch.randn(2, 3, 8, 8)
    graph = mp.trace(model, (x,))
    with torch.no_grad():
        model[0].weight[1] = math.inf
    plan = mp.Plan({"0": [0, 2, 5]})
    expected = mp.slice(model, graph, plan)(x)
    hidden = mp.mask(model, graph, plan)(x)
    assert expected.isfinite().all()
    torch.testing.assert_close(hidden, expected)


def test_a_training_call_whose_weights_hold_several_parts_of_one_size_of_the_input() -> None:
    """Had the parts one name, a part of the one call would be taken for another of the other."""
    model, args, _ = ZOO["patched"].example()
    graph = mp.trace(model, args)
    assert {name for name in graph.axes if name.startswith("x:2")} == {"x:2[0]", "x:2[1]"}
    masked = mp.mask(model, graph, oracle.half(graph)).train()
    small = mp.slice(model, graph, oracle.half(graph)).train()
    torch.testing.assert_close(masked(*args), small(*args), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["layer_norm", "rms_norm"])
def test_a_norm_in_place_works_where_its_input_lies(kind: str) -> None:
    """The meta device stands for any other that a caller may have made the default."""
    x, weight = X.clone(), torch.arange(1.0, 7.0, dtype=torch.float64)
    stays = torch.tensor([0, 2, 3])
    function = getattr(torch.nn.functional, kind)
    given = {"input": x, "normalized_shape": [6], "weight": weight, "eps": 1e-5}
    if kind == "layer_norm":
        given["bias"] = weight.flip(0)
    with torch.device("meta"):
        found = masking._norm_in_place(function, given, stays)
    living = {name: value[..., stays] for name, value in given.items() if isinstance(value, Tensor)}
    expected = function(**living, normalized_shape=[3], eps=1e-5)
    torch.testing.assert_close(found[:, stays], expected, rtol=1e-10, atol=1e-12)
