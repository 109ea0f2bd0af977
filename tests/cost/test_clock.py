"""Where and how time is measured."""

import importlib.util
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
        ({"threads": 1.5}, "threads as a whole number from 1, got 1.5"),
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


def test_packages_that_a_backend_needs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name in ("onnx", "onnxruntime") else known(name, *rest)

    monkeypatch.setattr("importlib.util.find_spec", without)
    with pytest.raises(MetapruneError, match=r"needs onnx, onnxruntime; pip install 'metaprune\[export\]'"):
        Clock(backend="onnxruntime")
    assert Clock(backend="compiled").has_tables is False
    assert Clock(measure=lambda _: 1.0).has_tables is False
    assert Clock().has_tables is True


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


@pytest.mark.parametrize(
    ("ms", "seconds", "rounds"),
    [(1.0, 2.0, 25), (100.0, 2.0, 20), (1000.0, 2.0, 6), (100.0, None, 10)],  # 25 at most, 6 at least; a second
)
def test_two_networks_run_as_often_as_there_is_time(
    ms: float, seconds: float | None, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def spy(*networks: Any, **conditions: Any) -> float:
        asked.append({"networks": networks[:2], "batch": len(networks[2][0]), **conditions})
        return 0.5

    monkeypatch.setattr("metaprune.cost.clock.ratio", spy)
    one, other = network(), network()
    clock = Clock(batch=5, threads=1, precision="bf16-mixed", channels_last=True, seconds=seconds)
    assert clock.ratio(one, other, (X,), {}, ms) == 0.5
    [found] = asked
    assert found.pop("networks") == (one, other)
    assert found.pop("seconds", None) == seconds
    conditions = {"device": "cpu", "precision": "bf16-mixed", "channels_last": True, "threads": 1, "backend": "eager"}
    assert found == {"batch": 5, "rounds": rounds, "quiet_ms": ms, **conditions}


def test_a_function_of_the_users_is_asked_once_for_a_ratio() -> None:
    asked: list[nn.Module] = []

    def phone(model: nn.Module) -> float:
        asked.append(model)
        return 3.0

    one, other = network(), network()
    assert Clock(measure=phone).ratio(one, other, (X,), {}, 12.0) == 0.25
    assert asked == [one]


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
    others = [{"threads": 2}, {"precision": "bf16-mixed"}, {"channels_last": True}]
    clocks = [Clock(**{"threads": 1, **other, "cache": tmp_path}) for other in others]  # type: ignore[arg-type]
    assert len({one.table.path for one in (again, *clocks)}) == 4


def test_tables_lie_where_the_user_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAPRUNE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def place(clock: Clock) -> Path:
        assert clock.table.path is not None
        return clock.table.path.parent

    assert place(Clock(cache="~/mine")) == tmp_path / "home" / "mine"
    assert place(Clock()) == tmp_path / "own" / "times"
    monkeypatch.delenv("METAPRUNE_CACHE")
    assert place(Clock()) == tmp_path / "xdg" / "metaprune" / "times"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert place(Clock()) == tmp_path / "home" / ".cache" / "metaprune" / "times"


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


def test_a_call_that_takes_no_time_is_made_thirty_times() -> None:
    calls: list[None] = []
    assert stopwatch.least(lambda: calls.append(None), torch.device("cpu"), lambda: 1.0) > 0
    assert len(calls) == 30


def test_a_network_that_cannot_take_another_batch_is_said() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x).view(2, 8))

    with pytest.raises(MetapruneError, match="cannot take the inputs"):
        form_of(Fixed(), mp.trace(Fixed(), (torch.ones(2, 4),)), Clock(batch=3, seconds=0.001))
