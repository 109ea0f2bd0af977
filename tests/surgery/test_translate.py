"""A plan of one graph over the axes of another, of the same network called otherwise."""

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.calling import Call
from metaprune.graph.capture import capture
from metaprune.graph.errors import PlanError
from metaprune.graph.infer import Inference, read
from metaprune.graph.term import channels
from metaprune.surgery.translate import translated

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


class Called(nn.Module):
    """Reads its hidden units whole, in two parts, in halves that are added, and hands them out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())

    def parted(self, x: Tensor) -> Tensor:
        first, second = self.a(x).relu().split([2, 4], 1)
        return self.b(torch.cat([first.tanh(), second.exp()], 1))

    def added(self, x: Tensor) -> Tensor:
        first, second = self.a(x).relu().chunk(2, 1)
        return self.b(torch.cat([first + second] * 2, 1))

    def narrowed(self, x: Tensor) -> Tensor:
        first, second = self.a(x).relu().chunk(2, 1)
        return self.c(first + second)

    def handed_out(self, x: Tensor) -> Tensor:
        return self.a(x).relu()


def known(method: str) -> tuple[mp.ChannelGraph, Inference]:
    model = Called().eval()
    graph = mp.trace(model, (X,))
    first, second = (capture(model, Call((X,), method=each)) for each in ("forward", method))
    return graph, read(model, [first], further=[second])[-1]


@pytest.mark.parametrize("kept", [(0, 1, 4), (1, 2), (0, 1, 2, 3, 4), (0, 3, 4, 5)])
@pytest.mark.parametrize("method", ["forward", "parted"])
def test_the_same_entries_of_every_tensor_stay(method: str, kept: tuple[int, ...]) -> None:
    graph, inference = known(method)
    here = translated(graph, inference, {"a": kept})
    other = inference.graph
    assert here
    assert set(here) <= set(other.free)
    for name in ("a.weight", "a.bias", "b.weight"):
        dim = 1 if name == "b.weight" else 0
        positions = channels(other.tensors[name][dim], here)
        assert tuple(positions.tolist()) == kept, name
    if method == "parted":
        assert sorted(axis.size for axis in other.free.values()) == [2, 4]


def test_nothing_is_translated_where_nothing_is_cut_or_the_graph_is_the_same() -> None:
    graph, inference = known("parted")
    assert not translated(graph, inference, {})
    assert not translated(graph, inference, {"a": tuple(range(6))})
    kept = {"a": (0, 5)}
    assert translated(inference.graph, inference, kept) is kept


def test_what_is_one_with_others_there_must_stay_with_them() -> None:
    graph, inference = known("added")
    [axis] = [name for name, one in inference.graph.axes.items() if one.size == 3 and not one.fixed]
    assert translated(graph, inference, {"a": (0, 2, 3, 5)}) == {axis: (0, 2)}
    with pytest.raises(PlanError, match=r"mask: the plan cuts '.*', which cannot be cut .* one with others"):
        translated(graph, inference, {"a": (0, 2, 3, 4)})


def test_a_layer_that_only_the_other_call_reads_would_have_to_be_cut_too() -> None:
    graph, inference = known("narrowed")
    with pytest.raises(PlanError, match=r"cannot be cut .* as narrowed"):
        translated(graph, inference, {"a": (0, 2, 3, 5)})


def test_what_may_not_be_cut_there_is_said_with_the_reason() -> None:
    graph, inference = known("handed_out")
    with pytest.raises(PlanError, match=r"cuts 'a'.*it is a size of the output; .*calls=\(mp\.Call"):
        translated(graph, inference, {"a": (0, 2)})
