"""Data flow: where each operator's operands come from."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

__all__ = ["Flow", "Source", "sources", "wrapped"]

Source = tuple[int | str, int]
"""An operator, by its place, and which of its outputs; or a parameter, buffer, input or constant by its name, and 0."""

Flow = tuple[Source, ...]


def wrapped(node: fx.Node) -> fx.Node | None:
    """The body of a node that only runs it in another mode of autograd or autocast, as an argument of it."""
    if isinstance(node.target, torch._ops.HigherOrderOperator) and str(node.target).startswith("wrap"):
        return next((arg for arg in node.args if isinstance(arg, fx.Node) and arg.op == "get_attr"), None)
    return None


def sources(
    module: fx.GraphModule, names: Mapping[fx.Node, str], operators: Sequence[fx.Node]
) -> tuple[list[Flow], Flow]:
    """The sources of every operator's operands, in the order of its arguments, and those of the program's outputs.

    Args:
        module: The program.
        names: What to call its placeholders.
        operators: Its operators, those inside wrapped bodies included.
    """
    place = {node: index for index, node in enumerate(operators)}
    found: dict[fx.Node, Any] = {node: (name, 0) for node, name in names.items()}
    return_of = _walk(module, place, found)
    flows = [_flat(found, (node.args, node.kwargs)) for node in operators]
    return flows, return_of


def _walk(module: fx.GraphModule, place: Mapping[fx.Node, int], found: dict[fx.Node, Any]) -> Flow:
    for node in module.graph.nodes:
        if node.op == "output":
            return _flat(found, node.args)
        if node.op == "get_attr":
            found[node] = ("constant", 0)
        elif node.target is operator.getitem:
            whole = found.get(node.args[0])
            found[node] = whole[node.args[1]] if isinstance(whole, list) else (whole and (whole[0], node.args[1]))
        elif (body := wrapped(node)) is not None:
            inner = getattr(module, str(body.target))
            given = list(node.args[node.args.index(body) + 1 :])
            placeholders = [step for step in inner.graph.nodes if step.op == "placeholder"]
            found |= {step: found.get(arg) for step, arg in zip(placeholders, given, strict=True)}
            found[node] = list(_walk(inner, place, found))
        elif node in place:
            found[node] = (place[node], 0)
    return ()


def _flat(found: Mapping[fx.Node, Any], arguments: Any) -> Flow:
    flow: list[Source] = []
    fx.map_arg(arguments, lambda node: flow.append(found.get(node) or ("unknown", 0)))
    return tuple(flow)
