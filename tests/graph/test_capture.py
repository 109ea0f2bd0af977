"""Capture: what an export alone does not read, and is read all the same; whose line a call is."""

import types

import pytest
import torch
from torch import Tensor

import metaprune as mp
from tests.graph.odd import Two, state_of


class Asks(Two):
    """Goes another way, and fails, where it is told that it is compiled or exported."""

    def between(self, h: Tensor) -> Tensor:
        mask = None if torch.compiler.is_compiling() or torch.compiler.is_exporting() else torch.ones(h.shape[:1])
        return h * mask[:, None].to(h.dtype)  # type: ignore[index]


class Moves(Two):
    """Brings a layer to where the data are, and to their type, each time."""

    def between(self, h: Tensor) -> Tensor:
        self.b = self.b.to(h.device, h.dtype)
        return h


@pytest.mark.parametrize("kind", [Asks, Moves])
def test_it_is_captured_and_cut(kind: type[Two]) -> None:
    model, x = kind().double().eval(), torch.rand(3, 4).double()
    before = state_of(model)
    graph = mp.trace(model, (x,))
    assert list(graph.free) == ["a"]
    plan = mp.Plan({"a": [0, 3, 5]})
    torch.testing.assert_close(mp.slice(model, graph, plan)(x), mp.mask(model, graph, plan)(x), rtol=1e-10, atol=1e-10)
    assert state_of(model) == before
    assert not torch.compiler.is_compiling()


def test_a_layer_that_is_moved_elsewhere_is_moved() -> None:
    class Lowered(Two):
        def between(self, h: Tensor) -> Tensor:
            self.b.to(torch.float32 if h.dtype == torch.float64 else torch.float64)
            return h

    with pytest.raises(mp.MetapruneError, match=r"Lowered itself fails .*odd.py:\d+") as caught:
        mp.trace(Lowered().eval(), (torch.rand(3, 4),))
    assert "same dtype" in str(caught.value)


def test_the_line_of_a_call_is_the_networks_not_its_helper_librarys() -> None:
    helper = types.ModuleType("helper")
    exec(
        compile("def halved(h):\n    return h.reshape(2, -1)\n", "/site-packages/helper/backend.py", "exec"),
        vars(helper),
    )

    class Helped(Two):
        def between(self, h: Tensor) -> Tensor:
            return helper.halved(h).reshape(h.shape)  # type: ignore[no-any-return]

    graph = mp.trace(Helped(), (torch.rand(4, 4),))
    assert {one.where.rpartition("/")[2].partition(":")[0] for one in graph.operators} == {"test_capture.py", "odd.py"}


@pytest.mark.parametrize("mode", [True, False])
def test_the_second_attempt_is_in_the_mode_of_the_call(mode: bool) -> None:
    """Whatever mode the network was given in: where training asks for targets, there is no training forward."""

    class Asking(Two):
        def between(self, h: Tensor) -> Tensor:
            if self.training:
                raise ValueError("where are the targets?")
            return h

    model, x = Asking().double().train(mode), torch.rand(3, 4).double()
    graph = mp.trace(model, (x,))
    assert graph.uncaptured == "ValueError: where are the targets?"
    assert list(graph.free) == ["a"]
