"""Carve: what is cut, what is undone, and what it says."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.errors import PlanError
from metaprune.surgery.slice import CutWarning, carve
from tests.laws import oracle
from tests.methods import small


def graph_and_network() -> tuple[nn.Module, mp.ChannelGraph]:
    model = small.Small().eval()
    return model, mp.trace(model, small.EXAMPLE)


def test_shapes_numbers_and_values() -> None:
    model, graph = graph_and_network()
    done = carve(model, graph, mp.Plan({"inner.0": [1, 4, 5], "wide.0": [0, 23]}))
    assert not done.undone
    cut = done.model
    assert torch.equal(cut.inner[0].weight, model.inner[0].weight[[1, 4, 5]])
    assert torch.equal(cut.inner[1].running_mean, model.inner[1].running_mean[[1, 4, 5]])
    assert torch.equal(cut.back.weight, model.back.weight[:, [1, 4, 5]])
    assert torch.equal(cut.back.bias, model.back.bias)
    assert torch.equal(cut.wide[2].weight, model.wide[2].weight[[0, 23]])
    assert torch.equal(cut.head.weight, model.head.weight[:, [0, 23]])
    assert (cut.inner[0].out_channels, cut.inner[1].num_features, cut.back.in_channels) == (3, 3, 3)
    assert (cut.wide[2].in_channels, cut.wide[2].out_channels, cut.wide[2].groups) == (2, 2, 2)
    assert cut.head.in_features == 2


class Sized(nn.Module):
    """Has a length, as containers do, which makes it false where that is 0; and one axis that a number holds fast."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 8), nn.Linear(8, 2)

    def __len__(self) -> int:
        return 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        return self.c(self.b(x.view(-1, 6) if len(x) else x).relu())


def test_a_network_of_no_length_is_a_network() -> None:
    model = Sized().eval()
    graph = mp.trace(model, (torch.zeros(3, 4),))
    fixed = next(name for name in graph.axes if name.startswith("a"))
    known = replace(graph, axes=graph.axes | {fixed: replace(graph.axes[fixed], fixed=None)})
    done = carve(model, known, mp.Plan({fixed: range(4), "b": range(5)}))
    assert done.undone.keys() == {fixed}
    assert (done.model.b.out_features, done.model.c.in_features) == (5, 5)


def test_an_empty_plan_is_a_copy() -> None:
    model, graph = graph_and_network()
    done = carve(model, graph, mp.Plan({}))
    assert done.model is not model
    assert done.plan.kept == {}
    assert oracle.fingerprint(done.model) == oracle.fingerprint(model)


def test_one_channel_is_enough() -> None:
    model, graph = graph_and_network()
    plan = mp.Plan({name: [axis.size - 1] for name, axis in graph.free.items()})
    done = carve(model, graph, plan)
    assert done.plan == plan
    assert oracle.counted_params(done.model) == mp.params(graph, plan)
    assert done.model(torch.zeros(5, 1, 8, 8)).shape == (5, 3)


def test_hooks_attributes_and_subclasses_come_along() -> None:
    model, graph = graph_and_network()
    model.note = {"mine": [1, 2]}  # type: ignore[assignment]
    seen: list[torch.Size] = []
    model.inner.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    cut = mp.slice(model, graph, mp.Plan({"inner.0": [0]}))
    seen.clear()
    cut(*small.EXAMPLE)
    assert seen == [(len(small.EXAMPLE[0]), 1, 8, 8)]
    assert type(cut) is small.Small
    assert cut.note == {"mine": [1, 2]}
    assert cut.note is not model.note


def test_dtypes_are_kept() -> None:
    model, _ = graph_and_network()
    model = model.to(torch.bfloat16).to(memory_format=torch.channels_last)
    x = torch.randn(2, 1, 8, 8, dtype=torch.bfloat16)
    graph = mp.trace(model, (x,))
    plan = mp.Plan({"inner.0": [0, 1]})
    cut = mp.slice(model, graph, plan)
    kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    assert {name: tensor.dtype for name, tensor in cut.state_dict().items()} == kinds
    assert set(kinds.values()) == {torch.bfloat16, torch.int64}
    torch.testing.assert_close(cut(x), mp.mask(model, graph, plan)(x), rtol=0.05, atol=0.05)


def test_the_layout_in_memory_is_kept() -> None:
    """Channels last, as fast networks are laid out, and a matrix that code laid out in columns."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 5), nn.Linear(5, 2))
    model = model.double().eval().to(memory_format=torch.channels_last)
    model[3].weight = nn.Parameter(model[3].weight.detach().t().contiguous().t())
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    graph = mp.trace(model, (x,))
    plan = oracle.half(graph)
    cut = mp.slice(model, graph, plan)
    for place in (0, 1):
        weight = cut[place].weight
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert not weight.is_contiguous()
    assert cut[3].weight.t().is_contiguous()
    assert cut[4].weight.is_contiguous()
    torch.testing.assert_close(cut(x), mp.mask(model, graph, plan)(x), rtol=1e-10, atol=1e-12)


def test_a_network_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = small.Small().eval()
        graph = mp.trace(model, (torch.zeros(2, 1, 8, 8),))
    plan = oracle.half(graph)
    cut = mp.slice(model, graph, plan)
    assert all(p.is_meta for p in cut.parameters())
    assert oracle.counted_params(cut) == mp.params(graph, plan)


def test_a_network_that_moved_since_it_was_traced() -> None:
    """Evaluation moves a network to the device; the example inputs in the graph stay where they were."""
    model, graph = graph_and_network()
    plan = oracle.half(graph)
    done = carve(model.to("meta"), graph, plan)
    assert not done.undone
    assert oracle.counted_params(done.model) == mp.params(graph, plan)


class Moody(nn.Module):
    """Checks a width of its own in a way no trace can see until it is cut to one width."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        if y.shape[1] == 3:
            raise RuntimeError("three is\na crowd")
        return self.c(self.b(y).relu())


def test_what_cannot_be_verified_is_undone_and_the_rest_is_cut() -> None:
    model = Moody()
    graph = mp.trace(model, (torch.zeros(2, 4),))
    plan = mp.Plan({"a": [0, 1, 2], "b": [4, 5, 6]})
    done = carve(model, graph, plan)
    assert set(done.undone) == {"a"}
    assert done.plan == mp.Plan({"b": [4, 5, 6]})
    assert "three is" in done.undone["a"]
    assert "test_carve.py:" in done.undone["a"]
    assert "\n" not in done.undone["a"]
    assert done.model.a.out_features == 8
    assert done.model.b.weight.shape == (3, 8)
    with pytest.warns(CutWarning, match="axis 'a' was left whole"):
        mp.slice(model, graph, plan)
    assert not carve(model, graph, mp.Plan({"a": [0, 1], "b": [4, 5, 6]})).undone


def test_a_wrong_plan_cuts_nothing() -> None:
    model, graph = graph_and_network()
    before = oracle.fingerprint(model)
    for plan in (mp.Plan({"nowhere": [0]}), mp.Plan({"inner.0": [12]}), mp.Plan({"head": [0]})):
        with pytest.raises(PlanError):
            carve(model, graph, plan)
    assert oracle.fingerprint(model) == before


class Beside(nn.Module):
    """One number lays out a dimension that could be cut, and one that an operator keeps whole, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.size = 2, 6
        self.a, self.b, self.c, self.d = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(24, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        one = self.a(x).view(-1, self.heads, self.size)
        two = self.b(x).cumsum(1).reshape(-1, self.heads, self.size)
        return self.d(self.c(torch.cat([one, two], 1).flatten(1)).relu())


def test_what_a_number_keeps_whole_is_no_obstacle_to_the_rest() -> None:
    model = Beside().eval()
    graph = mp.trace(model, (torch.ones(3, 8),))
    done = carve(model, graph, mp.Plan({"c": [0, 1]}))
    assert not done.undone
    assert done.model.c.out_features == 2
