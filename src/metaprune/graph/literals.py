"""Tensors of a program that are no parameters, buffers or inputs: what the code makes, and plain attributes of modules.

A table that a module holds as a plain tensor is cut like a buffer. A tensor of one entry that is made of numbers is
known like a number. What else the code makes must be the same after a cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Set

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export.graph_signature import InputKind

from metaprune.graph.tensors import plain_tensors

__all__ = ["digests", "single_values", "tables"]


_FILLED = {"aten.full", "aten.scalar_tensor"}


def _made(program: torch.export.ExportedProgram) -> Iterator[tuple[fx.Node, str, Tensor]]:
    placeholders = (node for node in program.graph.nodes if node.op == "placeholder")
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        value = program.constants.get(str(spec.target)) if spec.kind == InputKind.CONSTANT_TENSOR else None
        if isinstance(value, Tensor):
            yield node, str(spec.target), value


def tables(model: nn.Module, program: torch.export.ExportedProgram) -> dict[fx.Node, str]:
    """The placeholders that are plain tensors of modules, with their names, as `embed.positions`."""
    wanted = {name: (node, value.shape) for node, name, value in _made(program)}
    held = plain_tensors(model, wanted)
    return {node: name for name, (node, shape) in wanted.items() if name in held and held[name].shape == shape}


@torch.no_grad()
def single_values(program: torch.export.ExportedProgram) -> dict[fx.Node, float]:
    """The values of tensors of one entry that are computed from constants alone."""
    known: dict[fx.Node, Tensor] = {
        node: value for node, _, value in _made(program) if value.numel() == 1 and not value.is_meta
    }
    for node in program.graph.nodes:
        inputs = node.all_input_nodes
        if node.op != "call_function" or not known.keys() >= set(inputs):
            continue
        if not inputs and str(getattr(node.target, "overloadpacket", "")) not in _FILLED:
            continue
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.numel() == 1:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda given: known[given].clone())
            known[node] = node.target(*args, **kwargs)
    return {node: float(value.real if value.is_complex() else value) for node, value in known.items()}


def digests(
    program: torch.export.ExportedProgram, followed: Set[fx.Node], where: Callable[[fx.Node], str]
) -> tuple[tuple[str, str], ...]:
    """Of each constant that is not `followed` some other way: the line of code that makes it, and what it holds."""
    return tuple(
        (where(node), "no values" if value.is_meta or isinstance(value, FakeTensor) else _digest(value))
        for node, _, value in _made(program)
        if node not in followed
    )


def _digest(value: Tensor) -> str:
    plain = value.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(plain.view(torch.uint8).numpy().tobytes()).hexdigest()
