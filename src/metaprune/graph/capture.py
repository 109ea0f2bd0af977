"""Capture: one export of a network, with a record of the calls that its code made."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaprune.graph.calling import Call, answering
from metaprune.graph.errors import TraceError
from metaprune.graph.extents import settle
from metaprune.graph.lean import lean
from metaprune.graph.objects import learn, open_to_trees
from metaprune.graph.provenance import Record, recording
from metaprune.graph.quiet import quiet
from metaprune.graph.refusal import depends_on_values, refuse_at_once, refused
from metaprune.graph.rehearsal import fresh, ordinary, rehearsal
from metaprune.graph.surroundings import drawn_so_far
from metaprune.graph.tensors import named_tensors
from metaprune.graph.values import values_followed

__all__ = ["Captured", "capture", "check_inputs", "inference_mode_of", "mode_of", "raised"]


@dataclass(frozen=True)
class Captured:
    """One export of a network.

    Attributes:
        program: The exported program.
        records: The calls of the network's code that it came from.
        floats: The broken numbers that its modules hold, which are what they are whatever is cut.
        call: How it was called.
        extents: For each number that stands for a size that depends on the data, what it was on the example inputs.
        decided: File and line of each decision of the code by values of tensors: it is read as the example inputs go.
        unchecked: Whether its program holds not all of these as assertions: on other inputs it may be wrong.
        drew: Whether the code drew random numbers of Python's or NumPy's meanwhile.
        seed: Where the random numbers started, if what the code runs hangs on them (`graph/chance.py`).
    """

    program: torch.export.ExportedProgram
    records: Sequence[Record]
    floats: Set[float]
    call: Call
    extents: Mapping[int, int] = field(default_factory=dict)
    decided: Sequence[str] = ()
    unchecked: bool = False
    drew: bool = False
    seed: int | None = None


def capture(model: nn.Module, call: Call, recorded: bool = True, as_it_is: bool = False, seed: int = 0) -> Captured:
    """Export a network. What is exported is a stand-in: whatever its code writes, `model` stays what it is.

    Args:
        model: Any module that `torch.export` can read.
        call: How it is called.
        recorded: Whether to record the calls of its code; without, it takes less time.
        as_it_is: Whether each module stays in its own mode, whatever the call says.
        seed: Where the random numbers that its code draws start.

    Raises:
        TraceError: `torch.export` cannot capture it with these inputs.
    """
    check_inputs(model, call.args, call.kwargs)
    refuse_at_once(model)
    mode = None if as_it_is else call.training
    with open_to_trees(call.args, call.kwargs):
        captured = _captured(model, call, recorded, mode, seed)
        if _is_symbolic(captured.program):
            with rehearsal(model, mode) as actor:
                try:
                    extents = settle(captured.program, named_tensors(actor), call.args, dict(call.kwargs))
                except Exception as error:
                    raise refused(model, error, error) from error
            captured = replace(captured, extents=extents)
        return captured


def _captured(model: nn.Module, call: Call, recorded: bool, mode: bool | None, seed: int) -> Captured:
    """The export, in the first of the ways in which it can be made."""
    args, kwargs = ordinary((call.args, dict(call.kwargs)))
    suspects: Sequence[tuple[str, str]] = ()
    reason = Exception()
    for record in (True, False) if recorded else (False,):  # without, trial cuts tell less, but something
        try:
            with rehearsal(model, mode, writes=False, seed=seed) as actor, torch.enable_grad(), quiet():
                before = drawn_so_far()
                with recording(actor) if record else nullcontext() as recorder:
                    suspects = recorder.suspects if recorder is not None else suspects
                    program = _exported(actor, call.method, args, kwargs, stack_traces=recorded)
                records, floats = (recorder.records, recorder.floats) if recorder is not None else ((), frozenset())
                return Captured(program, records, floats, call, drew=drawn_so_far() != before)
        except Exception as error:
            reason = error
    if depends_on_values(reason) and (captured := _as_the_example_goes(model, call, mode, seed)) is not None:
        return captured
    failure = raised(model, call, mode)
    if failure is None:
        further = _as_if_called(model, call, mode, seed, recorded)
        if isinstance(further, Captured):
            return further
        reason = further
    raise refused(model, reason, failure, suspects) from reason


def _as_if_called(model: nn.Module, call: Call, mode: bool | None, seed: int, recorded: bool) -> Captured | Exception:
    """The export of a network whose code goes another way, and fails, where it is told that it is being exported.

    Or what it fails for then.
    """
    args, kwargs = ordinary((call.args, dict(call.kwargs)))
    try:
        with rehearsal(model, mode, writes=False, seed=seed) as actor, torch.enable_grad(), quiet():
            before = drawn_so_far()
            with recording(actor) if recorded else nullcontext() as recorder, _unaware(actor):
                program = _exported(actor, call.method, args, kwargs, stack_traces=recorded)
            records, floats = (recorder.records, recorder.floats) if recorder is not None else ((), frozenset())
            return Captured(program, records, floats, call, drew=drawn_so_far() != before)
    except Exception as error:
        return (
            _as_the_example_goes(model, call, mode, seed, aware=False) if depends_on_values(error) else None
        ) or error


def _as_the_example_goes(
    model: nn.Module, call: Call, mode: bool | None, seed: int, aware: bool = True
) -> Captured | None:
    """The export of a network that decides by values: on the path that the example inputs take.

    The decisions stay in the program, which refuses inputs that take another path. What such a path may read besides is
    not cut, and neither is what may feed it. None where it cannot be exported either.
    """
    args, kwargs = ordinary((call.args, dict(call.kwargs)))
    if any(tensor.is_meta for tensor in named_tensors(model).values()):
        return None
    try:
        with (
            rehearsal(model, mode, writes=False, seed=seed) as actor,
            torch.enable_grad(),
            values_followed(actor) as decided,
            nullcontext() if aware else _unaware(actor),
            quiet(),
            answering(actor, call.method),
            _outputs_learned(actor),
            _idle_moves(),
        ):
            before = drawn_so_far()
            program = torch.export.export(actor, args, kwargs, strict=False)
            drew = drawn_so_far() != before
    except Exception:
        return None
    checks = " ".join(str(n.args[1]) for n in program.graph.nodes if n.target is torch.ops.aten._assert_scalar.default)
    return Captured(
        program,
        (),
        frozenset(),
        call,
        decided=tuple(dict.fromkeys(at for at, _ in decided)),
        unchecked=any(not re.search(rf"\b{name}\b", checks) for _, names in decided for name in names),
        drew=drew,
    )


def raised(model: nn.Module, call: Call, mode: bool | None) -> Exception | None:
    """What a network raises when it is simply called; see `rehearsal` for the mode."""
    try:
        with rehearsal(model, mode) as actor, quiet(), torch.no_grad(), open_to_trees(call.args, call.kwargs):
            replace(call, args=fresh(call.args), kwargs=fresh(call.kwargs)).of(actor)
    except Exception as error:
        return error
    return None


def _exported(
    actor: nn.Module, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], stack_traces: bool = True
) -> torch.export.ExportedProgram:
    with answering(actor, method), _outputs_learned(actor), _idle_moves(), lean(stack_traces):
        return torch.export.export(actor, args, kwargs, strict=False)


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


def inference_mode_of(model: nn.Module) -> AbstractContextManager[None]:
    """Evaluation mode inside; every module's own mode is restored afterwards, also after an error."""
    return mode_of(model, training=False)


@contextmanager
def mode_of(model: nn.Module, training: bool) -> Iterator[None]:
    """Training or evaluation mode inside; every module's own mode is restored afterwards, also after an error."""
    modes = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _is_symbolic(program: torch.export.ExportedProgram) -> bool:
    """Whether any size in a program depends on the data."""
    leaves = (leaf for node in program.graph.nodes for leaf in pytree.tree_leaves(node.meta.get("val")))
    return any(
        isinstance(size, torch.SymInt)
        for leaf in leaves
        for size in (leaf.shape if isinstance(leaf, Tensor) else [leaf])
    )


@contextmanager
def _unaware(actor: nn.Module) -> Iterator[None]:
    """The network's code is not told that it is being exported."""

    def hide(*_: Any) -> None:
        torch.compiler._is_compiling_flag = torch.compiler._is_exporting_flag = False  # put back by the export

    hook = actor.register_forward_pre_hook(hide)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _outputs_learned(actor: nn.Module) -> Iterator[None]:
    """Outputs of classes of their own are opened to trees when they are returned."""
    hook = actor.register_forward_hook(lambda module, inputs, output: learn(output))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _idle_moves() -> Iterator[None]:
    """Modules that code moves to where they are, with the type that they have, are left alone, in this thread."""
    ours, move = threading.get_ident(), nn.Module.to

    def to(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == ours:
            device, kind, _, layout = torch._C._nn._parse_to(*args, **kwargs)
            held = [*module.parameters(), *module.buffers()]
            same = all(device is None or tensor.device == torch.empty(0, device=device).device for tensor in held)
            if same and layout is None and all(kind in (None, t.dtype) or not t.is_floating_point() for t in held):
                return module
        return move(module, *args, **kwargs)

    with patch.object(nn.Module, "to", to):
        yield
