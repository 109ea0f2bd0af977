"""How long a network takes, measured: warm-up, median, spread, at a stated batch, device and precision."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.benchmark import Timer

from metaprune.graph import tensors
from metaprune.graph.errors import MetapruneError

__all__ = ["Latency", "latency"]

BLOCKS = 5  # the time is split among so many timers, so that even one run a timer leaves a spread


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass of a whole batch, in milliseconds."""

    median_ms: float
    iqr_ms: float  # interquartile range, between blocks of runs
    runs: int
    batch: int
    device: str
    precision: str
    threads: int
    channels_last: bool = False

    def __str__(self) -> str:
        """Says the time, its spread, and every condition it was taken under, in one line."""
        layout = ", channels last" if self.channels_last else ""
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}" if self.device == "cpu" else ""
        return (
            f"{self.median_ms:.3g} ms (IQR {self.iqr_ms:.2g} ms, {self.runs} runs; "
            f"batch {self.batch}, {self.device}{threads}, {self.precision}{layout})"
        )


def latency(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    device: str = "cpu",
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
    channels_last: bool = False,
    seconds: float = 1.0,
    threads: int | None = None,
) -> Latency:
    """Measures inference of `model(*args, **kwargs)`: evaluation mode, no gradients.

    A copy of the model is measured; the one given keeps its device, layout and mode.

    Args:
        model: the network.
        args: its positional arguments; the batch is the first size of the first tensor.
        kwargs: its keyword arguments.
        device: where to measure; "cuda" waits for the kernels to end.
        precision: "bf16-mixed" runs each pass under autocast, as Lightning Fabric does.
        channels_last: lay images and filters out as (N, H, W, C) in memory.
        seconds: how long to measure, after the warm-up; a slow model is run at least five times all the same.
        threads: CPU threads; by default as many as torch uses now.

    Raises:
        MetapruneError: for a device that is not here, an unknown precision, or no time to measure in.
    """
    if precision not in ("32-true", "bf16-mixed"):
        raise MetapruneError(f"latency: precision must be '32-true' or 'bf16-mixed', got {precision!r}")
    if not seconds > 0 or (threads is not None and threads < 1):
        raise MetapruneError(f"latency: seconds and threads must be positive, got {seconds} and {threads}")
    where = available(device)
    threads = threads or torch.get_num_threads()

    def placed(x: Tensor) -> Tensor:
        return tensors.channels_last(x.to(where)) if channels_last else x.to(where)

    inputs, named = tree_map_only(Tensor, placed, (args, kwargs or {}))
    network = tensors.clone(model).eval().to(where)
    for weight in network.parameters():
        weight.data = placed(weight.data)

    def run() -> None:
        with (
            torch.inference_mode(),
            torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16-mixed"),
        ):
            network(*inputs, **named)

    timer = Timer("run()", globals={"run": run}, num_threads=threads)
    timer.timeit(2)  # the first calls choose kernels and fill caches
    blocks = [timer.blocked_autorange(min_run_time=seconds / BLOCKS) for _ in range(BLOCKS)]
    times = torch.tensor([t for block in blocks for t in block.times], dtype=torch.float64) * 1e3
    low, median, high = times.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    return Latency(
        median_ms=median,
        iqr_ms=high - low,
        runs=sum(block.number_per_run * len(block.times) for block in blocks),
        batch=next((x.shape[0] for x in tree_leaves(inputs) if isinstance(x, Tensor) and x.dim()), 1),
        device=str(where),
        precision=precision,
        threads=threads,
        channels_last=channels_last,
    )


def available(device: str) -> torch.device:
    """Returns the torch device of that name, or says which there are."""
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:  # torch raises both, depending on how it was built
        raise MetapruneError(
            f"latency: device {device!r} cannot be used here ({str(error).splitlines()[0]}); try device='cpu'"
        ) from error
    return where
