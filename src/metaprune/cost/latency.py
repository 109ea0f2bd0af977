"""How long networks take, measured in turns: median and spread, at a stated batch, device, precision and layout."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.benchmark import Measurement, Timer

from metaprune.cost import backends
from metaprune.cost.stopwatch import on_threads, reading
from metaprune.graph import tensors
from metaprune.graph.arguments import is_number, is_whole, wanted
from metaprune.graph.errors import MetapruneError
from metaprune.graph.rehearsal import as_the_caller, on_the_cpu

__all__ = ["Latency", "latencies", "latency", "ratio", "rehearse"]

ROUNDS = (
    6  # the time is split among so many: even one run each leaves a spread, and a machine that drifts hits all alike
)

_QUIET = 1.03
"""A round is quiet where a network takes at most so many times the least that it took."""

_PATIENCE = 4
"""So many times as many rounds are run at most, for enough that are quiet."""


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass of a whole batch, in milliseconds."""

    median_ms: float
    iqr_ms: float  # interquartile range of the runs
    runs: int
    batch: int
    device: str
    precision: str
    threads: int
    channels_last: bool = False
    backend: str = "eager"

    def __str__(self) -> str:
        """Says the time, its spread, and every condition it was taken under, in one line."""
        if self.backend == "measure":
            return f"{self.median_ms:.3g} ms (as {self.device} measures it)"
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}" if self.device == "cpu" else ""
        backend = "" if self.backend == "eager" else f", {self.backend}"
        return (
            f"{self.median_ms:.3g} ms (IQR {self.iqr_ms:.2g} ms, {self.runs} runs; "
            f"batch {self.batch}, {self.device}{threads}, {self.precision}, {self.layout}{backend})"
        )

    @property
    def layout(self) -> str:
        """How images and filters lay in memory, in words."""
        return "channels last" if self.channels_last else "contiguous"


def latency(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    device: str = "cpu",
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
    channels_last: bool = False,
    seconds: float = 1.0,
    threads: int | None = None,
    backend: str = "eager",
) -> Latency:
    """Measures inference of `model(*args, **kwargs)`: evaluation mode, no gradients.

    A copy of the model is measured; the one given keeps its device, layout and mode.

    Args:
        model: the network.
        args: its positional arguments; the batch is the first size of the first tensor, keyword arguments last.
        kwargs: its keyword arguments.
        device: where to measure, "auto" where runs are trained by default; "cuda" waits for the kernels to end.
        precision: "bf16-mixed" runs each pass under autocast, as Lightning Fabric does.
        channels_last: lay images and filters out as (N, H, W, C) in memory; else contiguous, as `load` gives them.
        seconds: how long to measure, after the warm-up; a slow model is run at least six times all the same.
        threads: CPU threads; by default as many as torch uses now.
        backend: "eager", "compiled" (`torch.compile`) or "onnxruntime".

    Raises:
        MetapruneError: for a device that is not here, an unknown precision, or no time to measure in.
    """
    [found] = latencies(
        {"": model},
        args,
        kwargs,
        device=device,
        precision=precision,
        channels_last=channels_last,
        seconds=seconds,
        threads=threads,
        backend=backend,
    ).values()
    return found


@on_the_cpu()
def latencies(
    networks: Mapping[str, nn.Module],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    device: str = "cpu",
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
    channels_last: bool = False,
    seconds: float = 1.0,
    threads: int | None = None,
    backend: str = "eager",
) -> dict[str, Latency]:
    """Measures several networks on the same inputs in turns, so that what slows the machine down slows all of them.

    Args:
        networks: by name; each is measured for `seconds`, in several rounds, forwards and backwards through the names.
        args: as for `latency`, and so is the rest.
        kwargs: see there.
        device: see there.
        precision: see there.
        channels_last: see there.
        seconds: see there.
        threads: see there.
        backend: see there.

    Raises:
        MetapruneError: see there.
    """
    timers = _timers(networks, args, kwargs, seconds, device, precision, channels_last, threads, backend)
    found: dict[str, list[Measurement]] = {name: [] for name in timers}
    for turn in range(ROUNDS):
        for name, block in _round(timers, turn, seconds / ROUNDS).items():
            found[name].append(block)
    inputs = tree_leaves((args, dict(kwargs or {})))
    batch = next((x.shape[0] for x in inputs if isinstance(x, Tensor) and x.dim()), 1)

    def summed(blocks: list[Measurement]) -> Latency:
        times = torch.tensor([time for block in blocks for time in block.times], dtype=torch.float64) * 1e3
        low, median, high = times.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
        return Latency(
            median_ms=median,
            iqr_ms=high - low,
            runs=sum(block.number_per_run * len(block.times) for block in blocks),
            batch=batch,
            device=str(available(device)),
            precision=precision,
            threads=blocks[0].num_threads,
            channels_last=channels_last,
            backend=backend,
        )

    return {name: summed(blocks) for name, blocks in found.items()}


@on_the_cpu()
def rehearse(
    network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None, **conditions: Any
) -> None:
    """One pass, untimed: what cannot be measured is better known before a long training.

    Args:
        network: To be measured later.
        args: as for `latencies`.
        kwargs: see there.
        conditions: seconds, device, precision, channels_last, threads and backend, as for `latencies`.

    Raises:
        MetapruneError: as `latencies` does.
    """
    _timers({"": network}, args, kwargs, **{"seconds": 1.0, **conditions})


@on_the_cpu()
def ratio(
    network: nn.Module,
    other: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    seconds: float = 1.0,
    rounds: int = ROUNDS,
    quiet_ms: float = inf,
    **conditions: Any,
) -> float:
    """How many times as long one network takes as another: the least of each, of rounds in which both run.

    The least, because what else a machine does slows small and large networks by different shares. Rounds go on until
    in enough of them each network was about as fast as it ever was; at most four times as many.

    Args:
        network: the one.
        other: the other.
        args: as for `latencies`.
        kwargs: see there.
        seconds: how long each is measured, where the rounds are as many as asked for.
        rounds: half as many quiet ones are enough; each runs both networks at least once.
        quiet_ms: what the other network is known to take on a quiet machine.
        conditions: device, precision, channels_last, threads and backend, as for `latencies`.

    Raises:
        MetapruneError: as `latencies` does.
    """
    networks = {"one": network, "other": other}
    timers = _timers(networks, args, kwargs, seconds, **conditions)
    known = {"one": inf, "other": quiet_ms}
    best, quiet = dict.fromkeys(timers, inf), dict.fromkeys(timers, 0)
    for turn in range(_PATIENCE * rounds):
        for name, block in _round(timers, turn, seconds / rounds).items():
            ms = 1e3 * min(block.times)
            if ms < best[name] / _QUIET:
                quiet[name] = 0
            best[name] = min(best[name], ms)
            quiet[name] += ms <= _QUIET * min(best[name], known[name])
        if min(quiet.values()) >= rounds // 2:
            break
    return best["one"] / best["other"]


def _round(timers: Mapping[str, Timer], turn: int, seconds: float) -> dict[str, Measurement]:
    """Each timer for so long, forwards and backwards through the names."""
    return {
        name: timers[name].blocked_autorange(min_run_time=seconds) for name in list(timers)[:: -1 if turn % 2 else 1]
    }


def _timers(
    networks: Mapping[str, nn.Module],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    seconds: float,
    device: str = "cpu",
    precision: str = "32-true",
    channels_last: bool = False,
    threads: int | None = None,
    backend: str = "eager",
) -> dict[str, Timer]:
    """What runs and times each network, made ready."""
    for name, network in networks.items():
        wanted("latency", f"network {name}".strip(), network, nn.Module, "an nn.Module", MetapruneError)
    wanted("latency", "inputs", args, tuple | list, "a tuple, (x,)", MetapruneError)
    if precision not in ("32-true", "bf16-mixed"):
        raise MetapruneError(f"latency: precision must be '32-true' or 'bf16-mixed', got {precision!r}")
    if not (is_number(seconds) and seconds > 0) or not (threads is None or (is_whole(threads) and threads >= 1)):
        raise MetapruneError(f"latency: seconds and threads must be positive, got {seconds!r} and {threads!r}")
    where = available(device)
    backends.check(backend, str(where), precision)
    threads = threads or torch.get_num_threads()

    def placed(x: Tensor) -> Tensor:
        return tensors.channels_last(x.to(where)) if channels_last else x.to(where).contiguous()

    inputs, named = tree_map_only(Tensor, placed, (args, dict(kwargs or {})))

    def runs_of(model: nn.Module) -> Callable[[], None]:
        network = tensors.clone(model).eval().to(where)
        for weight in network.parameters():
            weight.data = placed(weight.data)
        forward = backends.runner(network, inputs, named, backend, threads)

        def run() -> None:
            with (
                as_the_caller(),
                torch.inference_mode(),
                torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16-mixed"),
            ):
                forward()

        return run

    timers: dict[str, Timer] = {}
    for name, model in networks.items():
        try:
            with on_threads(threads):
                run = runs_of(model)
                run()  # the first calls choose kernels and fill caches
                clock = reading(where, threads, run)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise MetapruneError(
                f"latency: the {f'network {name}'.strip()} cannot take the inputs: {type(error).__name__}: {reason}"
                f"{'; try channels_last=False' if channels_last else ''}"
            ) from error
        timers[name] = Timer("run()", globals={"run": run}, num_threads=threads, timer=clock)
    return timers


def available(device: str) -> torch.device:
    """Returns the torch device of that name ("auto": a CUDA device where there is one), or says which there are."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError, TypeError) as error:  # torch raises both, depending on how it was built
        raise MetapruneError(
            f"latency: device {device!r} cannot be used here ({str(error).splitlines()[0]}); try device='cpu'"
        ) from error
    return where
