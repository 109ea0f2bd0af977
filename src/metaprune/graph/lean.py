"""An export that does no more than is read of it, where this version of PyTorch has what is switched off here.

Three fifths of an export's time remain. Nobody reads what is left out: checks of sizes that only matter where sizes
vary, the Python source of the program (written when it is called), what each node says of its tensor beside `val`, and
the stack of each node but for the frames of modules, and those without their source. And no garbage is collected: an
export makes many objects that stay.
"""

from __future__ import annotations

import gc
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import fx
from torch.fx.experimental import proxy_tensor

__all__ = ["lean"]


@contextmanager
def lean(stack_traces: bool = True) -> Iterator[None]:
    """Inside, this thread exports in less time.

    Args:
        stack_traces: Whether nodes shall know from which line of which module they come.
    """
    replaced: list[tuple[Any, str, Any]] = [(torch._dynamo.config, "do_not_emit_runtime_asserts", True)]
    if not stack_traces:
        replaced.append((getattr(fx, "config", None), "do_not_emit_stack_traces", True))
    for owner, name, instead in (
        (fx.GraphModule, "recompile", _recompiled_when_called),
        (proxy_tensor, "_extract_tensor_metadata", _nothing),
    ):
        if hasattr(owner, name):
            replaced.append((owner, name, _in_this_thread(getattr(owner, name), instead)))
    if hasattr(fx.proxy, "CapturedTraceback"):
        extract = _in_this_thread(fx.proxy.CapturedTraceback.extract, _Stack)
        replaced.append((fx.proxy, "CapturedTraceback", SimpleNamespace(extract=extract)))
    collecting = gc.isenabled()
    gc.disable()
    try:
        with ExitStack() as stack:
            for owner, name, value in replaced:
                if hasattr(owner, name):
                    stack.enter_context(patch.object(owner, name, value))
            yield
    finally:
        if collecting:
            gc.enable()


def _in_this_thread(function: Callable[..., Any], instead: Callable[..., Any]) -> Callable[..., Any]:
    """What calls one function in this thread and the other in all others."""
    ours = threading.get_ident()

    def either(*args: Any, **kwargs: Any) -> Any:
        return (instead if threading.get_ident() == ours else function)(*args, **kwargs)

    return either


_recompile = fx.GraphModule.recompile


def _recompiled_when_called(module: fx.GraphModule) -> None:
    def forward(self: fx.GraphModule, *args: Any, **kwargs: Any) -> Any:
        _recompile(self)
        return self.forward(*args, **kwargs)

    type(module).forward = forward


def _nothing(*_: Any, **__: Any) -> None:
    return None


class _Stack:
    """The frames of modules' `forward`, which are all that PyTorch keeps of a stack; the innermost comes last."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.frames: list[tuple[str, int, str]] = []
        frame: types.FrameType | None = sys._getframe(2)
        while frame is not None:
            code = frame.f_code
            if code.co_name == "forward" or code.co_filename.endswith("torch/__init__.py"):
                self.frames.append((code.co_filename, frame.f_lineno, code.co_name))
            frame = frame.f_back

    def summary(self) -> traceback.StackSummary:
        found = (traceback.FrameSummary(*one, lookup_line=False, line="") for one in reversed(self.frames))
        return traceback.StackSummary.from_list(list(found))
