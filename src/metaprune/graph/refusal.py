"""What to tell when a network cannot be captured: the line, what it does there, and the way out."""

from __future__ import annotations

import linecache
import re
import types
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from metaprune.graph.errors import TraceError
from metaprune.graph.provenance import is_network, place

__all__ = ["depends_on_values", "place_of", "refuse_at_once", "refused"]

_PART = "trace the part before this line as a module of its own, cut it and put it back"

_CONSTRUCTS: tuple[tuple[str, str, str], ...] = (
    (
        r"autograd\.grad|\.backward\(|requires_grad_?\(",
        "a derivative is taken inside the forward pass",
        "trace the network without the derivative (a wrapper that returns what is derived), cut that, and put it back",
    ),
    (
        r"\.data\s*=[^=]",
        "the data of a tensor are replaced inside the forward pass",
        "replace them outside of forward, or compute with the new ones (torch.func, parametrizations)",
    ),
    (r"\.numpy\(|np\.|numpy\.", "values leave PyTorch for NumPy", f"compute with PyTorch; or {_PART}"),
    (
        r"inference_mode",
        "tensors are made in inference mode inside the forward pass",
        "use torch.no_grad() there, which an export reads",
    ),
    (
        r"pack(_padded|ed)?_seq",
        "sequences are packed, so sizes hang on the lengths in the data",
        f"pass the padded sequences to the layer and mask what follows; or {_PART}",
    ),
    (
        r"^for .+ in |\.unbind\(|\.tolist\(",
        "the code goes one by one through positions that depend on the data",
        f"go through all there may be (every expert, on all rows) and weigh the results; or {_PART}",
    ),
)
"""What the line says (a regular expression), in words, and the way out."""

_VALUES = (
    "GuardOnDataDependentSymNode",
    "DataDependentOutputException",
    "DynamicOutputShapeException",
    "UserError",
    "PendingUnbackedSymbolNotFound",
)


def refuse_at_once(model: nn.Module) -> None:
    """Refuse what no export reads, before anything runs.

    Raises:
        TraceError: The network is scripted, compiled, or was not given its sizes yet.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TraceError(
                f"trace: {name or 'the network'} is a scripted module, whose code PyTorch does not show to an export;\n"
                "pass the module that it was scripted from"
            )
        if "_orig_mod" in module._modules and hasattr(module, "dynamo_ctx"):
            inner = f"{name}._orig_mod" if name else "_orig_mod"
            raise TraceError(
                f"trace: {name or 'the network'} is what torch.compile made of a module, and a cut would leave what it "
                f"compiled;\npass the network with the module itself in its place ({inner}), and compile what is cut"
            )
    for name, parameter in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(parameter):
            raise TraceError(
                f"trace: {name!r} has no size yet (a lazy layer); call the network once, with inputs like yours, first"
            )


def refused(
    model: nn.Module, error: BaseException, itself: BaseException | None, suspects: Sequence[tuple[str, str]] = ()
) -> TraceError:
    """The error for a network that could not be captured: who, where, what, and what to do, in three lines.

    Args:
        model: The network.
        error: What the export raised.
        itself: What the network raises when it is called without an export; None if it runs.
        suspects: Places where the code did what an export does not follow, each with the name of the function.
    """
    who = type(model).__name__
    if itself is not None:
        at = place_of(itself)
        where = f" at {at}{_shown(at)}" if at else ""
        return TraceError(
            f"trace: {who} itself fails with these inputs{where}:\n{_first_line(itself)}\n"
            "pass inputs with which model(*args, **kwargs) runs, on the device of the network"
        )
    at = place_of(error) or (suspects[-1][0] if suspects else None)
    code = _code(at)
    line = f"{code} {' '.join(name for _, name in suspects)}" if not place_of(error) else code
    if "nference tensor" in str(error):  # which a later line cannot use
        line += " inference_mode"
    where = f"at {at}{_shown(at)}" if at else "in its forward pass"
    reason = f"{type(error).__name__}: {_first_line(error, 160)}"
    for pattern, words, way in _CONSTRUCTS:
        if re.search(pattern, line):
            return TraceError(f"trace: {who} cannot be captured {where}: {words}\n(torch.export: {reason});\n{way}")
    if depends_on_values(error):
        words = "the code decides by the values of a tensor, or by a size that depends on them"
        way = f"{_PART}; or decide by torch.where, or by a flag of the module"
    else:
        words = "torch.export does not follow the code there"
        way = f"{_PART}; or write the line with operators of PyTorch"
    return TraceError(f"trace: {who} cannot be captured {where}: {words}\n(torch.export: {reason});\n{way}")


def depends_on_values(error: BaseException) -> bool:
    """Whether an export failed because the code decides by the values of tensors."""
    return any(type(inner).__name__ in _VALUES for inner in _chain(error))


def place_of(error: BaseException) -> str | None:
    """File and line of the innermost code of a network that an exception went through; None where there is none."""
    for one in _chain(error):
        found: types.TracebackType | None = None
        trail = one.__traceback__
        while trail is not None:
            if is_network(trail.tb_frame.f_code) and _runs_a_network(trail):
                found = trail
            trail = trail.tb_next
        if found is not None:
            return place(found.tb_frame.f_code, found.tb_lineno)
    return None


def _runs_a_network(trail: types.TracebackType) -> bool:
    """Whether a frame lies inside a call of a module: not the user's script, which called us."""
    frame: types.FrameType | None = trail.tb_frame
    while frame is not None:
        if frame.f_code.co_name == "_call_impl" and isinstance(frame.f_locals.get("self"), nn.Module):
            return True
        frame = frame.f_back
    return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those it came from, innermost cause first."""
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    yield from reversed(causes)


def _code(at: str | None) -> str:
    file, _, line = (at or "").rpartition(":")
    return linecache.getline(file, int(line)).strip() if line.isdigit() else ""


def _shown(at: str | None) -> str:
    code = _code(at)
    return f" ({code if len(code) <= 80 else code[:77] + '...'})" if code else ""


def _first_line(error: BaseException, most: int = 300) -> str:
    text = str(error) if not isinstance(error, KeyError) else repr(error)
    found = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return found if len(found) <= most else found[: most - 3] + "..."
