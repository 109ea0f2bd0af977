"""Chance: whether what a network's code runs hangs on random numbers that it draws.

Layers left out at random, masks and augmentations made with Python's or NumPy's random numbers, a branch chosen by a
draw. Dropout and noise are not meant: they are operators like others, which the program holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.export.graph_signature import InputKind

from metaprune.graph.calling import Call
from metaprune.graph.capture import Captured, capture
from metaprune.graph.draws import checks_a_draw
from metaprune.graph.errors import TraceError
from metaprune.graph.literals import digests
from metaprune.graph.tensors import named_tensors
from metaprune.graph.trail import Step, followed

__all__ = ["is_by_chance", "other_ways", "with_its_chance"]

_SEEDS = range(1, 5)  # of draws that are tried besides those of seed 0


def with_its_chance(model: nn.Module, captured: Captured) -> Captured:
    """A training forward, with the seed that it was captured under if what it runs hangs on it.

    Evaluation is taken as it goes under one seed: code that draws there, and hangs on it, is the same each time.
    """
    if not captured.call.training or captured.seed is not None:
        return captured
    if any(map(checks_a_draw, captured.program.graph.nodes)) or (captured.drew and _is_another(model, captured)):
        return replace(captured, seed=0)
    return captured


def other_ways(model: nn.Module, call: Call, captured: Sequence[Captured]) -> list[Captured]:
    """Exports of a call under other draws, each of which reads parameters that nothing read before it.

    Args:
        model: The network.
        call: The call.
        captured: What was captured already; nothing is tried where that reads all parameters.
    """
    parameters = {id(parameter) for parameter in model.parameters()}
    unread = parameters - {known for one in captured for known in _read(model, one)}
    found: list[Captured] = []
    if not unread or (first := _trail(model, call, 0)) is None:
        return found
    for seed in _SEEDS:
        if not unread:
            break
        way = _trail(model, call, seed)
        if way is None or way == first:
            continue
        try:
            one = replace(capture(model, call, seed=seed), seed=seed)
        except TraceError:
            continue
        if unread & _read(model, one) or not found:  # the first says, at least, that there are several ways
            found.append(one)
            unread -= _read(model, one)
    return found


def is_by_chance(model: nn.Module, call: Call, trail: list[Step], drew: bool) -> bool:
    """Whether the code of a network calls other functions, or with other arguments, when it draws other numbers.

    Args:
        model: The network.
        call: The call.
        trail: What its code called under seed 0.
        drew: Whether it is known to draw numbers of Python's or NumPy's; else one other try suffices, for generators
            of its own.
    """
    return any(_trail(model, call, seed) != trail for seed in (_SEEDS if drew else _SEEDS[:1]))


def _trail(model: nn.Module, call: Call, seed: int) -> list[Step] | None:
    try:
        return followed(model, call, seed)[0]
    except Exception:
        return None  # an export says what went wrong


def _read(model: nn.Module, captured: Captured) -> set[int]:
    """The parameters that a program reads, by identity."""
    tensors = named_tensors(model)
    specs = captured.program.graph_signature.input_specs
    nodes = [node for node in captured.program.graph.nodes if node.op == "placeholder"]
    return {
        id(tensors[str(spec.target)])
        for node, spec in zip(nodes, specs, strict=True)
        if spec.kind == InputKind.PARAMETER and node.users and spec.target in tensors
    }


def _is_another(model: nn.Module, captured: Captured) -> bool:
    """Whether the program is another where other numbers are drawn."""
    try:
        other = capture(model, captured.call, recorded=False, seed=1)
    except TraceError:
        return True
    return _said(captured.program) != _said(other.program)


def _said(program: torch.export.ExportedProgram) -> list[Any]:
    """What a program runs on what, and the constants that its code made."""
    graphs = [inner.graph for inner in program.graph_module.modules() if isinstance(inner, fx.GraphModule)]
    lines = [(str(node.target), node.args, node.kwargs) for graph in graphs for node in graph.nodes]
    constants = [digest for _, digest in digests(program, frozenset(), lambda node: "")]
    return [*map(str, lines), constants]
