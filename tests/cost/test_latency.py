"""Measured latency: it measures what it says, under the conditions it says, and leaves no trace."""

import copy
import itertools
import math
import time
from types import MappingProxyType

import pytest
import torch
from torch import nn

from metaprune.cost.latency import ROUNDS, Latency, latencies, latency, ratio
from metaprune.graph.errors import MetapruneError


class Sleep(nn.Module):
    """Takes 2 ms, whatever comes in."""

    def forward(self, x):
        time.sleep(0.002)
        return x


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())


def test_a_known_time_is_found():
    """At least: a busy machine adds to it."""
    measured = latency(Sleep(), (torch.zeros(7, 3),), seconds=0.01)
    assert measured.median_ms >= 2
    assert measured.batch == 7


def test_median_and_spread_of_known_times(monkeypatch):
    """In milliseconds, of all runs: six, however slow; the first of all, and of each round, warm up."""
    now, took = 0.0, iter([9, *(each for run in (0.10, 0.11, 0.15, 0.14, 0.12, 0.13) for each in (5, run))])

    class Known(nn.Module):
        def forward(self, x):
            nonlocal now
            now += next(took)
            return x

    monkeypatch.setattr("metaprune.cost.latency.reading", lambda *_: lambda: now)
    measured = latency(Known(), (torch.zeros(1),), seconds=1e-6)
    assert measured.median_ms == pytest.approx(125)
    assert measured.iqr_ms == pytest.approx(137.5 - 112.5)
    assert measured.runs == ROUNDS == 6


def test_the_model_is_left_as_it_was():
    model = network()
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    threads = torch.get_num_threads()
    latency(model, (torch.randn(2, 3, 8, 8),), precision="bf16-mixed", channels_last=True, seconds=0.01, threads=1)
    assert model.training
    assert model[1].training
    assert model[0].weight.is_contiguous()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.get_num_threads() == threads
    assert not torch.is_autocast_enabled("cpu")


def test_precision_and_layout_reach_the_model():
    seen = []
    model = network()
    model.append(nn.Identity())
    model[-1].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    latency(model, (torch.randn(2, 3, 8, 8),), precision="bf16-mixed", channels_last=True, seconds=0.01)
    assert seen[-1].dtype == torch.bfloat16
    assert seen[-1].is_contiguous(memory_format=torch.channels_last)
    assert not seen[-1].requires_grad


@pytest.mark.parametrize("channels_last", [True, False])
def test_weights_and_inputs_have_the_layout_that_is_stated(channels_last):
    """Also where the network and its inputs come in the other."""
    seen = []
    given = torch.contiguous_format if channels_last else torch.channels_last
    stated = torch.channels_last if channels_last else torch.contiguous_format

    class Layer(nn.Conv2d):
        def forward(self, x):
            seen.append((x.is_contiguous(memory_format=stated), self.weight.is_contiguous(memory_format=stated)))
            return super().forward(x)

    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=given)
    measured = latency(Layer(3, 8, 3).to(memory_format=given), (x,), channels_last=channels_last, seconds=0.001)
    assert set(seen) == {(True, True)}
    assert measured.channels_last == channels_last


def test_networks_take_turns():
    """What slows the machine down half of the time slows all alike; the order turns round and round."""
    order = []

    class Named(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            order.append(self.name)
            time.sleep(0.0002)
            return x

    found = latencies({name: Named(name) for name in "abc"}, (torch.zeros(1),), seconds=1e-6)
    assert list(found) == list("abc")
    turns = "".join(name for name, _ in itertools.groupby(order))
    assert turns == "abc" + "abcba" + "bcba" * (ROUNDS // 2 - 1)
    assert turns.count("b") == ROUNDS + 1


def test_a_slow_spell_hits_all_alike(monkeypatch):
    """The second half of the measurement is slower by half: one after the other, the networks would differ by it."""
    now = 0.0

    class Drifting(nn.Module):
        def forward(self, x):
            nonlocal now
            now += 0.001 if now < 0.2 else 0.0015
            return x

    monkeypatch.setattr("metaprune.cost.latency.reading", lambda *_: lambda: now)
    one, other = latencies({"one": Drifting(), "other": Drifting()}, (torch.zeros(1),), seconds=0.2).values()
    assert one.median_ms == pytest.approx(1.0)
    assert other.median_ms == pytest.approx(1.0)
    assert now > 0.35


@pytest.mark.parametrize(
    ("busy", "quiet_ms", "rounds_at_most"),
    [
        (lambda now: 0.1 <= now < 0.4, math.inf, 2.5),  # a busy spell in the middle
        (lambda now: now < 0.5, 2.0, 5.0),  # busy from the start, which shows by what the other is known to take
        (lambda now: False, 2.0, 1.2),
    ],
)
def test_a_ratio_is_of_what_a_quiet_machine_takes(busy, quiet_ms, rounds_at_most, monkeypatch):
    """Both are slower in busy spells, the small network by more: a median over all of them would say so."""
    now = 0.0

    class Sized(nn.Module):
        def __init__(self, quiet, slow):
            super().__init__()
            self.seconds = {False: quiet, True: slow}

        def forward(self, x):
            nonlocal now
            now += self.seconds[busy(now)]
            return x

    monkeypatch.setattr("metaprune.cost.latency.reading", lambda *_: lambda: now)
    one, other = Sized(0.001, 0.003), Sized(0.002, 0.004)
    found = ratio(one, other, (torch.zeros(1),), seconds=0.2, rounds=10, quiet_ms=quiet_ms)
    assert found == pytest.approx(0.5, rel=1e-6)
    assert now < 0.45 * rounds_at_most


@pytest.mark.parametrize("dims", [1, 3])
def test_networks_of_other_than_images(dims):
    """A layout that only images have is theirs alone."""
    model = (nn.Conv1d if dims == 1 else nn.Conv3d)(2, 3, 3)
    assert latency(model, (torch.randn(1, 2, *[5] * dims),), channels_last=True, seconds=0.01).median_ms > 0


def test_keyword_and_nested_arguments():
    class Dictionary(nn.Module):
        def forward(self, inputs, *, scale):
            return inputs["x"] * scale

    assert latency(Dictionary(), ({"x": torch.zeros(3, 2)},), {"scale": 2}, seconds=0.01).batch == 3


def test_the_batch_of_keyword_inputs():
    class Tokens(nn.Module):
        def forward(self, ids, mask, factor=1.0):
            return ids * mask * factor

    ids, mask = torch.ones(5, 7, dtype=torch.long), torch.ones(5, 7)
    assert latency(Tokens(), (), {"ids": ids, "mask": mask}, seconds=0.001).batch == 5
    assert latency(Tokens(), (ids,), {"factor": torch.tensor(2.0), "mask": mask}, seconds=0.001).batch == 5
    assert latency(Tokens(), (), MappingProxyType({"ids": ids, "mask": mask}), seconds=0.001).batch == 5


def test_it_reads_as_one_line_that_says_all():
    line = str(Latency(3.2104, 0.0512, 310, 128, "cpu", "bf16-mixed", 2, channels_last=True))
    assert line == "3.21 ms (IQR 0.051 ms, 310 runs; batch 128, cpu, 2 threads, bf16-mixed, channels last)"
    assert str(Latency(3.2104, 0.0512, 310, 128, "cuda", "32-true", 2)).endswith(
        "batch 128, cuda, 32-true, contiguous)"
    )
    one = str(Latency(3.2104, 0.0512, 310, 128, "cpu", "32-true", 1, backend="compiled"))
    assert one.endswith("cpu, 1 thread, 32-true, contiguous, compiled)")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "16"}, "precision must be '32-true' or 'bf16-mixed', got '16'"),
        ({"seconds": 0}, "seconds and threads must be positive"),
        ({"threads": 0}, "seconds and threads must be positive"),
        ({"device": "abacus"}, "device 'abacus' cannot be used here"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(MetapruneError, match=message):
        latency(network(), (torch.randn(1, 3, 8, 8),), **settings)


@pytest.mark.gpu
def test_cuda_waits_for_the_kernels():
    model = nn.Sequential(*(nn.Linear(4096, 4096, bias=False) for _ in range(8)))
    measured = latency(model, (torch.randn(8192, 4096),), device="cuda", seconds=0.2)
    teraflops = 2 * 8192 * 4096**2 * 8 / measured.median_ms / 1e9
    assert measured.device == "cuda"
    assert teraflops < 2000, "faster than any GPU of today: the launch was timed, not the work"
