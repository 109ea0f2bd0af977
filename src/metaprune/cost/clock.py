"""The clock: where and how time is measured, of whole networks and of their operators."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaprune.cost import stopwatch
from metaprune.cost.backends import check
from metaprune.cost.latency import ROUNDS, Latency, available, latencies, ratio, rehearse
from metaprune.cost.latency_form import Sum
from metaprune.cost.roofline import Roofline, place_of
from metaprune.cost.signature import pieces
from metaprune.cost.table import Table
from metaprune.cost.table_sum import TableSum
from metaprune.graph.arguments import is_whole
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.infer import Inference

__all__ = ["Clock"]

_SIDE_BY_SIDE = 25
"""Two networks that are compared run so often beside each other, where that takes no longer than usual."""


@dataclass(frozen=True)
class Clock:
    """Where and how time is measured. Budgets in milliseconds are on a clock; so is every time of a report.

    Attributes:
        device: "cpu", "cuda" …; "auto": a CUDA device where there is one.
        precision: "32-true", or "bf16-mixed": under autocast, as Lightning Fabric runs it.
        batch: Examples at once; None: as many as the example inputs have.
        backend: "eager", "compiled" (`torch.compile`) or "onnxruntime".
        measure: Your own: takes a network, returns milliseconds. For a phone, TensorRT … It is called on a few whole
            networks; the fields above then are yours to mind.
        channels_last: Whether images and filters lie as (N, H, W, C).
        threads: Of a CPU; None: as many as torch uses now.
        seconds: How long each whole network is timed; None: 1.
        cache: The folder that measured operators are kept in; None: `times` in $METAPRUNE_CACHE, or
            `metaprune/times` in the user's cache folder.
    """

    device: str = "cpu"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    batch: int | None = None
    backend: Literal["eager", "compiled", "onnxruntime"] = "eager"
    measure: Callable[[nn.Module], float] | None = None
    channels_last: bool = False
    threads: int | None = None
    seconds: float | None = None
    cache: str | Path | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.precision not in ("32-true", "bf16-mixed"):
            raise MetapruneError(f"clock: expected precision '32-true' or 'bf16-mixed', got {self.precision!r}")
        for name in ("batch", "threads"):
            value = getattr(self, name)
            if value is not None and not (is_whole(value) and value >= 1):
                raise MetapruneError(f"clock: expected {name} as a whole number from 1, got {value!r}")
        if self.measure is not None and not callable(self.measure):
            raise MetapruneError(f"clock: expected measure as a function of a network, got {self.measure!r}")
        if self.measure is None:
            check(self.backend, str(available(self.device)), self.precision)

    @property
    def has_tables(self) -> bool:
        """Whether its operators can be measured one by one."""
        return self.measure is None and self.backend == "eager"

    def inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Example inputs, with as many examples as the clock measures at: repeated, or fewer."""
        leaves = [leaf for leaf in pytree.tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor) and leaf.dim()]
        if self.batch is None or not leaves or leaves[0].shape[0] in (0, self.batch):
            return args, dict(kwargs)
        given, wanted = leaves[0].shape[0], self.batch

        def at_batch(leaf: Tensor) -> Tensor:
            if not leaf.dim() or leaf.shape[0] != given:
                return leaf
            return torch.cat([leaf] * -(-wanted // given))[:wanted]

        found: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map_only(Tensor, at_batch, (args, dict(kwargs)))
        return found

    def latencies(
        self, networks: Mapping[str, nn.Module], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
    ) -> dict[str, Latency]:
        """The times of networks on example inputs, in turns.

        Raises:
            MetapruneError: A network cannot take the inputs, or `measure` gave no time.
        """
        if self.measure is not None:
            return {name: self._asked(network) for name, network in networks.items()}
        args, named = self.inputs(args, kwargs or {})
        return latencies(networks, args, named, **self.settings)

    def rehearse(self, network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """One pass of a network that will be timed; `measure` is not asked.

        Raises:
            MetapruneError: The network cannot take the inputs.
        """
        if self.measure is None:
            rehearse(network, *self.inputs(args, kwargs), **self.settings)

    def ratio(
        self,
        network: nn.Module,
        other: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        ms: float,
    ) -> float:
        """How many times as long one network takes as another, of runs side by side.

        Args:
            network: The one.
            other: The other.
            args: The example inputs.
            kwargs: See there.
            ms: What the other is known to take; the longer, the fewer runs.

        Raises:
            MetapruneError: As for `latencies`.
        """
        if self.measure is not None:
            return self._asked(network).median_ms / ms  # a phone is not asked twice
        args, named = self.inputs(args, kwargs or {})
        fit = int(1e3 * (self.seconds or 1.0) / ms)
        rounds = max(ROUNDS, min(fit, _SIDE_BY_SIDE))
        return ratio(network, other, args, named, rounds=rounds, quiet_ms=ms, **self.settings)

    @property
    def settings(self) -> dict[str, Any]:
        """How it measures, as `latencies` takes it."""
        names = ("device", "precision", "channels_last", "threads", "backend", "seconds")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def _asked(self, network: nn.Module) -> Latency:
        assert self.measure is not None
        name = getattr(self.measure, "__name__", type(self.measure).__name__)
        try:
            said = self.measure(network)
            ms = float(said)
        except (TypeError, ValueError) as error:
            raise MetapruneError(f"clock: expected milliseconds from measure ({name}), got {error}") from error
        if not 0 < ms < float("inf"):
            raise MetapruneError(f"clock: expected milliseconds above 0 from measure ({name}), got {said!r}")
        return Latency(ms, 0.0, 1, self.batch or 1, name, "its own", 0, backend="measure")

    def operators(self, graph: ChannelGraph, inference: Inference) -> Sum:
        """The sum over the operators: their tables, measured or known from the disk; or what they multiply and move.

        Args:
            graph: Which axes are free.
            inference: What the first call was read from, at the batch of this clock.
        """
        if not self.has_tables:
            return Roofline.of(graph)
        where = available(self.device)
        found = pieces(graph, inference, device=where, precision=self.precision, channels_last=self.channels_last)
        with self._as_stated(where):
            self.table.learn(piece.signature for piece in found)
        return TableSum(
            (place_of(piece.operator), piece.signature.key, piece.terms, self.table[piece.signature]) for piece in found
        )

    def _as_stated(self, where: torch.device) -> ExitStack:
        """Threads, precision and mode of inference, as whole networks are measured."""
        stack = ExitStack()
        stack.enter_context(stopwatch.on_threads(self.threads or torch.get_num_threads()))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(
            torch.autocast(where.type, torch.bfloat16, enabled=self.precision == "bf16-mixed", cache_enabled=False)
        )
        return stack

    @cached_property
    def table(self) -> Table:
        """The measured operators of this machine, as this clock measures."""
        where = available(self.device)
        threads = self.threads or torch.get_num_threads()

        def watch(call: Callable[[], Any]) -> float:
            return stopwatch.least(call, where, stopwatch.reading(where, threads, call))

        return Table(watch, where, self._folder / f"{self._name(where, threads)}.json")

    @property
    def _folder(self) -> Path:
        if self.cache is not None:
            return Path(self.cache).expanduser()
        if given := os.environ.get("METAPRUNE_CACHE"):
            return Path(given).expanduser() / "times"
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "metaprune" / "times"

    @property
    def machine(self) -> str:
        """What time is measured on, as the system names it."""
        where = available(self.device)
        return torch.cuda.get_device_name(where) if where.type == "cuda" else _processor()

    def _name(self, where: torch.device, threads: int) -> str:
        """What the times of a table hang on, as the name of a file."""
        machine = self.machine if where.type == "cuda" else f"{platform.node()} {self.machine}"
        layout = "last" if self.channels_last else "contiguous"
        conditions = (machine, torch.__version__, str(where), str(threads), self.precision, layout)
        digest = hashlib.sha256("\n".join(conditions).encode()).hexdigest()[:16]
        return f"{where.type}-{threads}-{self.precision}-{layout}-{digest}"


def _processor() -> str:
    """The name of the CPU, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    said = dict(line.split(":", 1) for line in lines if ":" in line)
    wanted = {key.strip(): value.strip() for key, value in said.items()}
    return " ".join(wanted.get(key, "") for key in ("vendor_id", "cpu family", "model", "model name"))
