"""Capture: one export of a network, with a record of the calls that its code made."""

from __future__ import annotations

import gc
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import fx, nn

from metaprune.graph.errors import TraceError
from metaprune.graph.provenance import Record, recording

__all__ = ["Captured", "capture", "check_inputs", "inference_mode_of"]


@dataclass(frozen=True)
class Captured:
    """One export of a network.

    Attributes:
        program: The exported program.
        records: The calls of the network's code that it came from.
        floats: The broken numbers that its modules hold, which are what they are whatever is cut.
        args: The example inputs.
        kwargs: The example inputs by name.
    """

    program: torch.export.ExportedProgram
    records: Sequence[Record]
    floats: Set[float]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def capture(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None, recorded: bool = True
) -> Captured:
    """Export a network, in the mode it is in.

    Args:
        model: Any module that `torch.export` can read.
        args: Example inputs.
        kwargs: Example inputs by name.
        recorded: Whether to record the calls of its code; without, it takes less time.

    Raises:
        TraceError: `torch.export` cannot capture it with these inputs.
    """
    check_inputs(model, args, kwargs)
    kwargs = dict(sorted((kwargs or {}).items()))  # one order, whoever calls
    try:
        with _quiet(), _buffers_kept(model), torch.enable_grad():  # programs differ with it
            if recorded:
                try:
                    with recording(model) as recorder, _no_more_than_needed():
                        program = torch.export.export(model, args, kwargs, strict=False)
                    return Captured(program, recorder.records, recorder.floats, args, kwargs)
                except Exception:
                    pass  # trial cuts tell less, but something
            with _no_more_than_needed(stack_traces=recorded):
                program = torch.export.export(model, args, kwargs, strict=False)
            return Captured(program, (), frozenset(), args, kwargs)
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise TraceError(
            f"trace: torch.export could not read {type(model).__name__} with these inputs "
            f"({type(error).__name__}: {reason}); check that model(*args, **kwargs) runs and is exportable"
        ) from error


def check_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> None:
    """Check the kinds of what is to be traced.

    Raises:
        TraceError: The model is no module, or the inputs are not a tuple and a dictionary.
    """
    if not isinstance(model, nn.Module):
        raise TraceError(f"trace: expected a torch.nn.Module, got {type(model).__name__}; pass the network itself")
    if not isinstance(args, tuple):
        raise TraceError(f"trace: expected args as a tuple of inputs, got {type(args).__name__}; write (x,)")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TraceError(f"trace: expected kwargs as a dictionary of inputs by name, got {type(kwargs).__name__}")


@contextmanager
def inference_mode_of(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every module's own mode is restored afterwards, also after an error."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _quiet() -> Iterator[None]:
    """What fails is told by the error, not by pages of log."""
    silenced = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(silenced)


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Buffers that the code replaces are put back."""
    buffers = dict(model.named_buffers())
    try:
        yield
    finally:
        for name, buffer in buffers.items():
            path, _, attribute = name.rpartition(".")
            owner = model.get_submodule(path)
            if owner._buffers.get(attribute) is not buffer:
                owner._buffers[attribute] = buffer


@contextmanager
def _no_more_than_needed(stack_traces: bool = True) -> Iterator[None]:
    """An export in three quarters of the time, where this version of PyTorch has the switches.

    Nobody reads what is left out: checks of sizes that only matter where sizes vary, the Python source of the program
    (written when it is called), where wanted the stack of each node; and no garbage is collected, for an export makes
    many objects that stay.
    """
    switches: list[tuple[Any, str, bool]] = [(torch._dynamo.config, "do_not_emit_runtime_asserts", True)]
    if not stack_traces:
        switches.append((getattr(fx, "config", None), "do_not_emit_stack_traces", True))
    collecting = gc.isenabled()
    gc.disable()
    try:
        with ExitStack() as stack:
            for owner, name, value in switches:
                if hasattr(owner, name):
                    stack.enter_context(patch.object(owner, name, value))
            stack.enter_context(patch.object(fx.GraphModule, "recompile", _recompile_when_called))
            yield
    finally:
        if collecting:
            gc.enable()


_recompile = fx.GraphModule.recompile


def _recompile_when_called(module: fx.GraphModule) -> None:
    """Take the place of `GraphModule.recompile`, and do what it does when the module is called first."""

    def forward(self: fx.GraphModule, *args: Any, **kwargs: Any) -> Any:
        _recompile(self)
        return self.forward(*args, **kwargs)

    type(module).forward = forward
