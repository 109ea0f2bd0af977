"""A lean export holds all that is read of an export, and other threads notice nothing."""

import re
import threading
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.experimental import proxy_tensor
from torch.utils._traceback import CapturedTraceback

from metaprune.graph.lean import lean

WAIT = 60  # seconds: longer than any of this takes


class Inner(nn.Module):
    """Calls in lines of its own, one of them through a helper."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)

    def halved(self, h: Tensor) -> Tensor:
        return h / 2

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        h = self.halved(h) + h.sum(-1, keepdim=True)
        return h.reshape(2, -1)


def outer() -> nn.Module:
    return nn.Sequential(Inner(), nn.Flatten(), nn.Linear(6, 3))


def read_of(model: nn.Module) -> list[tuple[Any, list[Any]]]:
    """What is read of each node: its operator, arguments and tensor, and the lines that it comes from."""
    program = torch.export.export(model, (torch.rand(2, 4),), strict=False)
    found = []
    for node in program.graph.nodes:
        frames = re.findall(r'File "([^"]+)", line (\d+), in (\w+)', str(node.meta.get("stack_trace")))
        shape = getattr(node.meta.get("val"), "shape", None)
        found.append(((str(node.target), str(node.args), str(node.kwargs), shape), frames))
    return found


def test_what_is_read_is_the_same() -> None:
    torch.manual_seed(0)
    model = outer()
    expected = read_of(model)
    with lean():
        got = read_of(model)
    assert got == expected
    here = [frame for _, frames in got for frame in frames if frame[0] == __file__]
    assert len({line for _, line, _ in here}) == 3  # lines of `forward`
    with lean(stack_traces=False):
        assert [node for node, _ in read_of(model)] == [node for node, _ in expected]


def test_another_thread_exports_as_before() -> None:
    found: list[Any] = []

    def work() -> None:
        found.append(proxy_tensor._extract_tensor_metadata(torch.rand(2, 3)))
        found.append("".join(fx.proxy.CapturedTraceback.extract().format()))

    with lean():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(WAIT)
        assert proxy_tensor._extract_tensor_metadata(torch.rand(2, 3)) is None
        assert "in test_another" in "".join(CapturedTraceback.extract().format())  # who else asks for a stack gets it
    assert found[0].shape == (2, 3)
    assert "in work\n" in found[1]
