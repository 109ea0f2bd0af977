"""The training forward of the example inputs, which is a call of every network without being asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from metaprune.graph.call import named_arguments
from metaprune.graph.calling import Call
from metaprune.graph.capture import Captured, capture
from metaprune.graph.chance import is_by_chance, with_its_chance
from metaprune.graph.errors import TraceError
from metaprune.graph.infer import Inference
from metaprune.graph.term import axes_of
from metaprune.graph.trail import Step, followed, switches

__all__ = ["Training", "as_in_evaluation", "training_of", "trains_alike"]

_FLAGS = {"aten.batch_norm": "training", "aten.instance_norm": "use_input_stats"}


@dataclass(frozen=True)
class Training:
    """What is known of the training forward: one of these, or nothing where it was not asked for.

    Attributes:
        norms: Where it runs the operators of the evaluation forward: for each batch or instance norm, whether it takes
            the statistics of its input.
        captured: Its own export, where it runs others; more of them where what it runs hangs on random numbers.
        uncaptured: Why there is none, in words.
    """

    norms: Sequence[bool] | None = None
    captured: Sequence[Captured] = ()
    uncaptured: str | None = None


def training_of(model: nn.Module, evaluation: Call, export: bool = False) -> Training:
    """The training forward of a call.

    Args:
        model: The network.
        evaluation: The call in evaluation mode.
        export: Whether to export it in any case.
    """
    call = replace(evaluation, training=True)
    by_chance = False
    if not export:
        try:
            norms, trained, drew = _in_both_modes(model, evaluation)
        except Exception:
            norms = None  # the export says what went wrong
        else:
            by_chance = (drew or norms is None) and is_by_chance(model, call, trained, drew)
        if norms is not None and not by_chance:
            return Training(norms)
    try:
        captured = capture(model, call)
        return Training(captured=[replace(captured, seed=0) if by_chance else with_its_chance(model, captured)])
    except TraceError as error:
        cause = error.__cause__ or error
        reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        return Training(uncaptured=f"{type(cause).__name__}: {reason}")


def trains_alike(model: nn.Module, call: Call) -> bool:
    """Whether a call in training runs the operators of the same in evaluation, but for what a mode switches."""
    try:
        return _in_both_modes(model, call)[0] is not None
    except Exception:
        return False


def _in_both_modes(model: nn.Module, call: Call) -> tuple[list[bool] | None, list[Step], bool]:
    """See `switches`; what the training forward calls, and whether it draws numbers of Python's or NumPy's."""
    steps, _ = followed(model, replace(call, training=False))
    trained, drew = followed(model, replace(call, training=True))
    return switches(steps, trained), trained, drew


def as_in_evaluation(inference: Inference, norms: Sequence[bool]) -> Mapping[fx.Node, Mapping[str, Any]] | None:
    """The arguments that training switches in the program of the evaluation forward.

    None where statistics of an input would run over channels that may be cut: then the operators say something else.
    """
    nodes = [
        node for operator, node in zip(inference.operators, inference.nodes, strict=True) if operator.name in _FLAGS
    ]
    if len(nodes) != len(norms):
        return None
    switched: dict[fx.Node, dict[str, Any]] = {}
    for node, training in zip(nodes, norms, strict=True):
        flag = _FLAGS[str(getattr(node.target, "overloadpacket", node.target))]
        given = named_arguments(node.target, node.args, node.kwargs)
        if given[flag] == training:
            continue
        across = [term for place, term in enumerate(inference.dims[given["input"]]) if place != 1]
        if any(inference.graph.is_free(axis) for term in across for axis in axes_of(term)):
            return None
        switched[node] = {flag: training}
    return switched
