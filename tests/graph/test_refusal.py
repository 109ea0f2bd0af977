"""What cannot be captured is refused with the line, what it does there and the way out, in three lines."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.provenance import is_network, place
from tests.graph.odd import RenormsItsWeight, Two, state_of


class Decides(Two):
    def between(self, h: Tensor) -> Tensor:
        h = h * 2 if h.sum() > 1e9 else h
        return h * float(h.detach().numpy().mean())  # so that values do not help


class Derives(Two):
    def between(self, h: Tensor) -> Tensor:
        with torch.enable_grad():
            inner = h.detach().requires_grad_(True)
            return torch.autograd.grad(self.b(inner).sin().sum(), inner, create_graph=True)[0]


class Leaves(Two):
    def between(self, h: Tensor) -> Tensor:
        return h * float(h.detach().numpy().mean())


class GoesThrough(Two):
    def between(self, h: Tensor) -> Tensor:
        return h * float(f"{h.detach().sum(1).tolist()[0]:.3f}")


class Unheard(Two):
    """What nobody has words for, in a line that is long."""

    def between(self, h: Tensor) -> Tensor:
        return h + torch.from_dlpack(h.detach()) * 1.0000000000000000000000000000000000000000000000000001


class Packs(Two):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(8, 8, batch_first=True)

    def between(self, h: Tensor) -> Tensor:
        lengths = (h.sum(1) > -1e9).long().cpu()
        packed = nn.utils.rnn.pack_padded_sequence(h[:, None], lengths, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.cell(packed)[0], batch_first=True)[0][:, 0]


class Mistaken(Two):
    def between(self, h: Tensor) -> Tensor:
        return self.a(h)  # of the wrong size


class MadeInInference(Two):
    """Tensors of inference mode, which a later line cannot use."""

    def between(self, h: Tensor) -> Tensor:
        with torch.inference_mode():
            scale = h.abs().mean()
        return h * scale


class Scripted(Two):
    def __init__(self) -> None:
        super().__init__()
        self.a = torch.jit.script(nn.Linear(4, 8))  # type: ignore[no-untyped-call]


class Compiled(Two):
    def __init__(self) -> None:
        super().__init__()
        self.a = torch.compile(nn.Linear(4, 8))  # type: ignore[assignment]


class Lazy(Two):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.LazyLinear(8)


CASES: dict[str, tuple[Callable[[], nn.Module], str | None, str, str]] = {
    "decides": (Decides, "h.sum() > 1e9", "decides by the values", "part before this line"),
    "derives": (Derives, "torch.autograd.grad", "derivative", "without the derivative"),
    "leaves": (Leaves, ".numpy()", "NumPy", "compute with PyTorch"),
    "goes through": (GoesThrough, ".tolist()[0]", "one by one", "every expert, on all rows"),
    "unheard": (Unheard, f"h.detach()) * 1.{'0' * 32}...)", "does not follow the code", "part before this line"),
    "packs": (Packs, "pad_packed_se", "packed", "padded sequences"),
    "renorms": (RenormsItsWeight, "self.a.weight.data =", "data of a tensor are replaced", "outside of forward"),
    "mistaken": (Mistaken, "return self.a(h)", "itself fails", "pass inputs"),
    "inference": (MadeInInference, "h * scale", "inference mode", "torch.no_grad()"),
    "scripted": (Scripted, None, "scripted", "scripted from"),
    "compiled": (Compiled, None, "a is what torch.compile made", "in its place (a._orig_mod), and compile what is cut"),
    "compiled whole": (lambda: torch.compile(Two()), None, "the network is what torch.compile made", "(_orig_mod)"),
    "lazy": (Lazy, None, "no size yet", "call the network once"),
}


class Complains(Two):
    """With a message whose first line is empty."""

    def between(self, h: Tensor) -> Tensor:
        raise ValueError("\n   \n  eight channels, please\nand more of the like")


def test_the_first_line_with_words_of_an_error_is_said() -> None:
    with pytest.raises(mp.MetapruneError) as caught:
        mp.trace(Complains(), (torch.randn(5, 4),))
    assert str(caught.value).splitlines()[1] == "eight channels, please"


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("name", CASES)
def test_an_error_says_where_what_and_the_way_out(name: str) -> None:
    build, code, what, way = CASES[name]
    model, x = build(), torch.randn(5, 4)
    before = state_of(model) if name != "lazy" else None
    with pytest.raises(mp.MetapruneError) as caught:
        mp.trace(model, (x,))
    text = str(caught.value)
    assert text.startswith("trace: ")
    assert len(text.splitlines()) <= 3
    assert what in text
    assert way in text
    if code is not None:
        assert code in text
        assert re.search(r"(test_refusal|odd)\.py:\d+", text)
    assert before is None or state_of(model) == before


def test_a_network_from_no_file_has_the_name_of_its_function_for_a_place() -> None:
    """As with `python -c`: `<string>:1` is nobody's line."""
    scope: dict[str, type[nn.Module]] = {}
    code = (
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a = torch.nn.Linear(4, 8)\n"
        "    def forward(self, x):\n"
        "        return self.a(x) if x.sum() > 0 else self.a(x).numpy()\n"
    )
    exec(compile(code, "<string>", "exec"), scope)
    with pytest.raises(mp.MetapruneError) as caught:
        mp.trace(scope["Net"](), (-torch.ones(5, 4),))
    assert "<string>" not in str(caught.value)
    assert "Net.forward:7" in str(caught.value)
    graph = mp.trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), (torch.ones(5, 4),))
    assert [operator.where for operator in graph.operators] == ["Linear.forward", "ReLU.forward"]


def test_generated_code_is_nobodys_line() -> None:
    from dataclasses import dataclass

    @dataclass
    class Made:
        x: int

    assert not is_network(Made.__init__.__code__)
    assert not is_network(re.compile.__code__)
    assert not is_network(nn.Linear.forward.__code__)
    assert is_network(Two.forward.__code__)
    assert place(Two.forward.__code__, 3).endswith("odd.py:3")
