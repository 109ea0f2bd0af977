"""Which outputs of a network count: they keep their size, and a cut network's are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from metaprune.graph.calling import apart
from metaprune.graph.errors import TraceError
from metaprune.graph.objects import open_to_trees

__all__ = ["Outputs", "counted"]

Outputs = str | int | Sequence[str | int] | Callable[[Any], Any] | None
"""Names or positions in what the network returns, or a function that takes them out of it; None for all."""


def counted(
    program: torch.export.ExportedProgram,
    outputs: Outputs,
    named_here: bool,
    is_state: Callable[[type, object], bool] = lambda kind, key: True,
) -> list[str]:
    """For each leaf of what a program returns: "yes", "no", or "state" for what the network alone reads (a cache).

    Args:
        program: The program.
        outputs: As `mp.trace` was told.
        named_here: Whether the outputs must be found in what this program returns; else, where none is, all count.
        is_state: Whether an object of this class, returned under this name, is a state.

    Raises:
        TraceError: They are not there.
    """
    spec = program.call_spec.out_spec
    [output] = [node for node in program.graph.nodes if node.op == "output"]
    nodes = list(output.args[0])
    states = list(apart(spec, is_state=is_state))
    every = ["state" if state else "yes" for state in states]
    if outputs is None:
        return every
    values = [node.meta.get("val", node) if isinstance(node, fx.Node) else node for node in nodes]
    try:
        with open_to_trees():
            chosen = pytree.tree_leaves(_chosen(outputs, pytree.tree_unflatten(values, spec), strict=named_here))
        found = [any(value is one for one in chosen if one is not None) for value in values]
        if any(not any(one is value for value in values) for one in chosen if one is not None):
            raise LookupError("it gives tensors that the network does not return; take outputs, do not compute")
        if not any(found):
            raise LookupError("it gives nothing")
    except Exception as error:
        if not named_here:
            return every
        returned = spec.context if issubclass(spec.type or object, Mapping) else f"{spec.num_leaves} values"
        raise TraceError(
            f"trace: outputs={outputs!r} is not in what the network returns ({type(error).__name__}: {error}); "
            f"it returns {returned}"
        ) from error
    return ["yes" if here else "state" if state else "no" for here, state in zip(found, states, strict=True)]


def _chosen(outputs: Outputs, returned: Any, strict: bool) -> Any:
    if callable(outputs):
        return outputs(returned)
    wanted = [outputs] if isinstance(outputs, str | int) else list(outputs or ())
    found = []
    for name in wanted:
        try:
            found.append(_entry(returned, name))
        except (LookupError, AttributeError, TypeError):
            if strict:
                raise
    return found


def _entry(returned: Any, name: str | int) -> Any:
    if isinstance(returned, torch.Tensor) and name == 0:
        return returned
    if isinstance(name, int) and isinstance(returned, Mapping):
        return [value for value in returned.values() if value is not None][name]
    if isinstance(name, str) and not isinstance(returned, Mapping):
        return getattr(returned, name)
    return returned[name]
