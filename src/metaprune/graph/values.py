"""Values for an export: where code decides by them (`if mask.any():`), it goes the way the example inputs go."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch._functorch.config
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from metaprune.graph.provenance import is_network, place
from metaprune.graph.tensors import named_tensors

__all__ = ["values_followed"]


@contextmanager
def values_followed(actor: nn.Module) -> Iterator[list[tuple[str, frozenset[str]]]]:
    """Tensors of an export inside carry their values along (PyTorch's own way, as its draft export goes).

    Args:
        actor: A stand-in, which is exported inside; its weights' values are copied.

    Yields:
        File and line of each decision, as they come, with the names of the values that it hangs on.
    """
    decided: list[tuple[str, frozenset[str]]] = []
    values = {name: tensor.detach().clone() for name, tensor in named_tensors(actor).items()}

    def give(*_: Any) -> None:
        for name, tensor in named_tensors(actor).items():
            if isinstance(tensor, FakeTensor):  # PyTorch gives inputs their values, and weights none
                tensor.real_tensor = values[name]

    def note(_: Any, decision: Any, *__: Any) -> None:
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None and not is_network(frame.f_code):
            frame = frame.f_back
        if frame is not None:
            names = frozenset(str(symbol) for symbol in decision.free_symbols)
            decided.append((place(frame.f_code, frame.f_lineno), names))

    hook = actor.register_forward_pre_hook(give, prepend=True)
    try:
        with (
            torch._functorch.config.patch(fake_tensor_propagate_real_tensors=True),
            patch.object(ShapeEnv, "_log_real_tensor_propagation", note),
        ):
            yield decided
    finally:
        hook.remove()
