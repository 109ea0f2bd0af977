"""What the caller has set, default devices, inference mode, types, does not reach what is made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.graph.surroundings import random_numbers_kept, surroundings_kept


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b = nn.Linear(4, 8), nn.GroupNorm(1, 8), nn.Linear(8, 6)
        self.attend, self.c = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        h = self.b(self.n(self.a(x)).softmax(-1))[None]
        return self.c(self.attend(h, h, h)[0])


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def test_random_numbers_of_gpus_go_on_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: ["of the first", "of the second"])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", given.append)
    for started, expected in ((False, []), (True, [["of the first", "of the second"]])):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda started=started: started)
        with random_numbers_kept():
            pass
        assert given == expected


CALLS = {"n": 0}
COUNT = 0


class Writing(nn.Module):
    """Writes into everything around it but itself; one name only where there are many examples."""

    seen: ClassVar[list[int]] = []
    table: ClassVar[dict[str, list[int]]] = {"k": [0]}
    count: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        global COUNT, UNSAID, SELDOM
        COUNT, UNSAID = COUNT + 1, 1
        if len(x) > 100:
            SELDOM = 1
        CALLS["n"] += 1
        self.seen.append(1)
        type(self).table["k"].append(1)
        type(self).count += 1
        return self.b(self.a(x))


def test_what_the_code_writes_around_it_is_as_it_was() -> None:
    """Globals, what they hold, what classes hold, and names that were not there."""
    model = Writing()
    graph = mp.trace(model, (torch.randn(2, 4),))
    mp.slice(model, graph, mp.Plan(dict.fromkeys(graph.free, (0, 1))))
    assert (CALLS, COUNT) == ({"n": 0}, 0)
    assert (Writing.seen, Writing.table, Writing.count) == ([], {"k": [0]}, 0)
    assert not {"UNSAID", "SELDOM"} & globals().keys()


SETTINGS: dict[
    str, tuple[Callable[[], AbstractContextManager[object]], Callable[[], AbstractContextManager[object]]]
] = {
    "made in inference mode": (torch.inference_mode, nullcontext),
    "cut in inference mode": (nullcontext, torch.inference_mode),
    "both": (torch.inference_mode, torch.inference_mode),
    "no gradients": (nullcontext, torch.no_grad),
    "a default device without values": (nullcontext, lambda: default_device("meta")),
    "float64 by default": (nullcontext, lambda: default_type(torch.float64)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_cut_is_ordinary_whatever_the_caller_has_set(name: str) -> None:
    making, cutting = SETTINGS[name]
    with making():
        model, x = Net().eval(), torch.randn(5, 4)
    before = {key: tensor.tolist() for key, tensor in model.state_dict().items()}
    with cutting():
        graph = mp.trace(model, (x,))
        plan = mp.Plan({name: range((axis.size + 1) // 2) for name, axis in graph.free.items()})
        small, masked = mp.slice(model, graph, plan), mp.mask(model, graph, plan)
    assert len(graph.free) == 6
    with torch.no_grad():
        torch.testing.assert_close(small(x.clone()), masked(x.clone()), rtol=1e-4, atol=1e-5)
    tensors = [*small.parameters(), *small.buffers()]
    assert not any(tensor.is_inference() for tensor in tensors)
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    small.train()(torch.randn(5, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    assert {key: tensor.tolist() for key, tensor in model.state_dict().items()} == before


@functools.lru_cache
def doubled(number: int) -> int:
    return 2 * number


@functools.lru_cache
def settled(number: int) -> int:
    return 3 * number


def test_what_was_cached_inside_is_forgotten_and_what_was_before_is_not() -> None:
    class Caching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * doubled(3) * settled(5)

    settled(5)
    with surroundings_kept(Caching()):
        doubled(3)
        settled(5)
    assert doubled.cache_info().currsize == 0
    assert settled.cache_info().currsize == 1


TOTAL, INFERENCE = torch.zeros(2), torch.inference_mode()(lambda: torch.zeros(2))()


def test_tensors_outside_that_are_written_to_are_what_they_were() -> None:
    """Those that were made in inference mode cannot be watched, and are no reason to fail."""

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            TOTAL.add_(1)
            return x + TOTAL + INFERENCE

    version = TOTAL._version
    with surroundings_kept(Counting()):
        Counting()(torch.zeros(2))
        assert TOTAL.tolist() == [1, 1]
    assert TOTAL.tolist() == [0, 0]
    assert TOTAL._version > version
