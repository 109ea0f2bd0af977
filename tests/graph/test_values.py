"""Code that decides by values is read as the example inputs go; what another path may read is kept whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.calling import Call
from metaprune.graph.capture import capture
from tests.graph.odd import Two, state_of


class Asserts(Two):
    def between(self, h: Tensor) -> Tensor:
        assert not torch.isnan(h).any(), "not a number"
        return h


class ReturnsEarly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)[x[:, 0] > -9]
        if h.shape[0] == 0:
            return torch.zeros(0, 3, dtype=x.dtype)
        return self.b(h.relu())


class Branches(Two):
    """A decision by the inputs, which a cut does not change."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = h.relu() if x.sum().item() > 0 else h.tanh()
        return self.b(h)


@pytest.mark.parametrize("build", [Asserts, ReturnsEarly, Branches])
def test_it_is_cut_as_the_example_goes(build: Callable[[], nn.Module]) -> None:
    model, x = build().double().eval(), torch.rand(3, 4).double()
    before = state_of(model)
    graph = mp.trace(model, (x,))
    assert list(graph.free) == ["a"]
    plan = mp.Plan({"a": [0, 3, 5]})
    small, masked = mp.slice(model, graph, plan), mp.mask(model, graph, plan)
    torch.testing.assert_close(small(x), masked(x), rtol=1e-10, atol=1e-10)
    assert state_of(model) == before


class Other(Two):
    """What another path reads is not cut, and neither is what may feed it."""

    def __init__(self) -> None:
        super().__init__()
        self.other, self.wide, self.back = nn.Linear(8, 8), nn.Linear(8, 12), nn.Linear(12, 8)

    def between(self, h: Tensor) -> Tensor:
        h = self.back(self.wide(h).relu())
        return self.other(h) if h.sum() > 1e9 else h


def test_what_another_path_reads_is_kept_whole_with_what_feeds_it() -> None:
    graph = mp.trace(Other().eval(), (torch.rand(3, 4),))
    assert [axis.size for axis in graph.free.values()] == [12]
    assert "other" in str(graph.axes["a"].fixed)


def test_its_place_is_known() -> None:
    captured = capture(Branches().eval(), Call((torch.rand(3, 4),)))
    assert len(captured.decided) == 1
    assert "test_values.py:" in captured.decided[0]


def test_the_values_are_the_networks_own() -> None:
    """PyTorch gives weights no values in such an export; what the branch hangs on here is a weight."""

    class ByWeight(Two):
        def between(self, h: Tensor) -> Tensor:
            return h * 2 if (self.a.weight.sum() + 0 * h.sum()) > 0 else h

    for sign in (1, -1):
        model = ByWeight().double().eval()
        with torch.no_grad():
            model.a.weight.copy_(sign * model.a.weight.abs())
        x = torch.rand(3, 4).double()
        graph = mp.trace(model, (x,))
        torch.testing.assert_close(mp.mask(model, graph, mp.Plan({}))(x), model(x))


def test_the_mask_goes_the_way_of_its_inputs() -> None:
    model, x = Branches().double().eval(), torch.rand(3, 4).double()
    graph = mp.trace(model, (x,))
    plan = mp.Plan({"a": [0, 3, 5]})
    small, masked = mp.slice(model, graph, plan), mp.mask(model, graph, plan)
    for given in (x, -x, x, -x[:1]):
        torch.testing.assert_close(small(given), masked(given), rtol=1e-10, atol=1e-10)


def test_where_it_cannot_the_error_is_ours() -> None:
    model, x = Asserts().eval(), torch.rand(3, 4)
    masked = mp.mask(model, mp.trace(model, (x,)), mp.Plan({"a": [0, 3]}))
    with pytest.raises(mp.MetapruneError, match=r"fails .* at .*test_values.py:\d+"):
        masked(x * torch.nan)
