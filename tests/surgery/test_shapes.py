"""Shapes: what code raises shows without values, and code that asks for values is not called wrong."""

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
import metaprune.graph.valueless as valueless
import metaprune.surgery.slice as slicing
from metaprune.surgery.blame import blame
from metaprune.surgery.shapes import failure
from metaprune.surgery.slice import carve
from tests.surgery.test_culprits import Block, network

CALL = mp.Call((torch.ones(2, 4),))


class Asking(nn.Module):
    """Code that asks for a value, which there is none of."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x))) * x.max().item()


@pytest.fixture(params=[0, 10**8])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether small networks are called with values, as they are, or run without, as larger ones are."""
    monkeypatch.setattr(valueless, "_SMALL", request.param)
    return bool(request.param)


@pytest.mark.usefixtures("small")
def test_a_network_that_runs_has_no_failure_and_stays_what_it_is() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    assert failure(model, [CALL, mp.Call(CALL.args, training=True)]) is None
    assert model[1].num_batches_tracked == 0
    assert type(model[0].weight) is nn.Parameter


@pytest.mark.usefixtures("small")
def test_a_failure_names_line_and_modules() -> None:
    model = network(3)
    model[2].a = nn.Linear(8, 5)
    error = failure(model, [CALL])
    assert error is not None
    found = blame(error, model)
    assert found.startswith(f"{__file__.replace('test_shapes', 'test_culprits')}:")
    assert found.paths == {"1", "2", "3"}
    assert type(model[2]) is Block


def test_code_that_asks_for_values_is_cut_all_the_same(small: bool) -> None:
    model = Asking().eval()
    assert (failure(model, [CALL]) is None) == small
    graph = mp.trace(model, CALL.args)
    assert list(graph.free) == ["a"]
    assert not carve(model, graph, mp.Plan({"a": [0, 2]})).undone


class Adding(nn.Module):
    """Code that makes a tensor on the CPU, wherever the network is."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), torch.ones(2, 6)])


@pytest.mark.usefixtures("small")
def test_what_runs_on_the_cpu_alone_has_no_failure() -> None:
    assert failure(Adding(), [CALL]) is None


def test_the_whole_network_is_asked_only_where_the_cut_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[nn.Module] = []

    def noted(model: nn.Module, calls: list[mp.Call]) -> Exception | None:
        asked.append(model)
        return failure(model, calls)

    monkeypatch.setattr(slicing, "failure", noted)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    graph = mp.trace(model, CALL.args)
    assert len(asked) == 1
    assert asked[0] is not model
    carving = slicing._Carving(model, graph)
    broken = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(6, 3)).eval()
    assert carving.crash({}, broken) is not None
    assert asked[1:] == [broken, model]
