"""Where and how time is measured."""

import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.cost import stopwatch
from metaprune.cost.clock import Clock
from metaprune.graph.errors import MetapruneError
from metaprune.timing import form_of


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()


X = torch.randn(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"precision": "int8"}, "precision '32-true' or 'bf16-mixed'"),
        ({"batch": 0}, "batch as a whole number from 1, got 0"),
        ({"threads": 1.5}, "threads"),
        ({"backend": "tensorrt"}, "backend as one of eager, compiled, onnxruntime, got 'tensorrt'"),
        ({"backend": "onnxruntime", "precision": "bf16-mixed"}, "give measure="),
        ({"device": "abacus"}, "abacus"),
        ({"measure": 3}, "measure as a function"),
    ],
)
def test_bad_clocks_are_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(MetapruneError, match=words) as caught:
        Clock(**fields)
    assert "\n" not in str(caught.value)


def test_inputs_have_the_batch_that_is_stated() -> None:
    mask = torch.ones(2, 5)
    (x,), named = Clock(batch=5).inputs((X,), {"mask": mask, "table": torch.ones(7), "scale": 2})
    assert (x.shape[0], named["mask"].shape[0], named["table"].shape[0], named["scale"]) == (5, 5, 7, 2)
    assert torch.equal(x[:2], X)
    assert torch.equal(x[4], X[0])
    assert Clock(batch=1).inputs((X,), {})[0][0].shape[0] == 1
    assert Clock().inputs((X,), {})[0][0] is X


def test_a_function_of_the_users_is_the_clock() -> None:
    asked = []

    def phone(model: nn.Module) -> float:
        asked.append(sum(p.numel() for p in model.parameters()))
        return asked[-1] / 100

    model, clock = network(), Clock(measure=phone, device="no device of ours")
    found = clock.latencies({"it": model}, (X,))["it"]
    assert found.median_ms == asked[-1] / 100
    assert str(found).endswith("ms (as phone measures it)")
    form = form_of(model, mp.trace(model, (X,)), clock)
    assert 4 <= len(asked) <= 8
    assert form.at({"0": 8}) / 1e6 == pytest.approx((3 * 9 * 8 + 8 + 8 * 9 * 8 + 8) / 100, rel=0.02)


@pytest.mark.parametrize("said", ["fast", None, 0.0, -1.0, float("nan")])
def test_a_function_that_gives_no_time_is_named(said: Any) -> None:
    def phone(_: nn.Module) -> Any:
        return said

    with pytest.raises(MetapruneError, match=r"milliseconds .*phone"):
        Clock(measure=phone).latencies({"it": network()}, (X,))


def test_a_form_on_this_machine(tmp_path: Path) -> None:
    model = network()
    graph = mp.trace(model, (X,))
    clock = Clock(threads=1, batch=4, seconds=0.002, cache=tmp_path)
    form = form_of(model, graph, clock)
    assert form.at({}) == round(form.anchors[0].ms * 1e6) > 0
    assert clock.table.measured > 0
    [file] = tmp_path.iterdir()
    assert file.name.startswith("cpu-1-32-true-contiguous-")
    again = Clock(threads=1, batch=4, seconds=0.002, cache=tmp_path)
    form_of(model, graph, again)
    assert again.table.measured == 0
    for other in (Clock(threads=2, cache=tmp_path), Clock(threads=1, precision="bf16-mixed", cache=tmp_path)):
        assert other.table.path != again.table.path


def test_one_thread_is_read_by_its_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = iter([0, 0, 0, 1, 0, 0])
    monkeypatch.setattr(stopwatch, "_waits", lambda: next(waits))
    cpu = torch.device("cpu")
    assert stopwatch.reading(cpu, 1, lambda: None) is stopwatch.time.thread_time
    assert stopwatch.reading(cpu, 1, lambda: None) is stopwatch.timeit.default_timer  # it waits for something
    assert stopwatch.reading(cpu, 2, lambda: None) is stopwatch.timeit.default_timer


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc")
def test_memory_is_held_while_time_is_taken() -> None:
    """Else each tensor of a few MB is mapped anew, page by page, which takes as long as what is computed in it."""
    resource = pytest.importorskip("resource")
    ones = torch.ones(2**20)  # 4 MiB

    def call() -> Tensor:
        return (ones + 1).add(1).mul(2)

    stopwatch.reading(torch.device("cpu"), 1, call)
    for _ in range(10):
        call()  # where in a heap that others have used they come to lie is settled
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(10):
        call()
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before < 5000  # 30,000 pages


def test_long_calls_are_timed_once() -> None:
    times = iter([0.0, 0.5])
    assert stopwatch.least(lambda: None, torch.device("cpu"), lambda: next(times)) == pytest.approx(500.0)


def test_the_least_time_of_a_call() -> None:
    times = iter([0.0, 0.003, 1.0, 1.001, 2.0, 2.002])
    assert stopwatch.least(lambda: None, torch.device("cpu"), lambda: next(times)) == pytest.approx(1.0)


def test_a_network_that_cannot_take_another_batch_is_said() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x).view(2, 8))

    with pytest.raises(MetapruneError, match="cannot take the inputs"):
        form_of(Fixed(), mp.trace(Fixed(), (torch.ones(2, 4),)), Clock(batch=3, seconds=0.001))
