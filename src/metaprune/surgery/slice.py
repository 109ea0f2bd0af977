"""Slice: a new module with fewer channels, verified by tracing it again."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from metaprune.graph.errors import TraceError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.infer import Inference, infer, inference_mode_of
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import named_tensors, with_tensors
from metaprune.graph.term import channels
from metaprune.surgery.numbers import set_numbers
from metaprune.surgery.rescale import rescale
from metaprune.surgery.verify import mismatch, scale_changes

__all__ = ["Cut", "CutWarning", "attempt", "carve", "slice"]

_NOT_THEIRS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "<")
"""Where the files of PyTorch and of this package lie; all others are the network's."""


class CutWarning(UserWarning):
    """Part of a plan could not be verified and was undone."""


@dataclass(frozen=True)
class Cut:
    """A verified cut.

    Attributes:
        model: The smaller network.
        plan: What was cut.
        undone: The axes that were left whole against the plan, each with the reason.
    """

    model: nn.Module
    plan: Plan
    undone: Mapping[str, str]


def slice(model: nn.Module, graph: ChannelGraph, plan: Plan) -> nn.Module:
    """Cut `model` down to `plan`; a new module, verified by tracing it again.

    Args:
        model: The network that `graph` was traced from; left untouched.
        graph: From `mp.trace`.
        plan: The channels that stay. Ties, dtypes, devices, modes and frozen parameters are kept.

    Returns:
        The smaller network. Axes whose cut could not be verified are left whole, with a `CutWarning` that says why.

    Raises:
        PlanError: The plan does not fit the graph.
    """
    done = carve(model, graph, plan)
    for axis, reason in done.undone.items():
        warnings.warn(f"axis {axis!r} was left whole: {reason}", CutWarning, stacklevel=2)
    return done.model


def carve(model: nn.Module, graph: ChannelGraph, plan: Plan) -> Cut:
    """As `slice`, but returns what was cut and what was left whole instead of warning.

    Raises:
        PlanError: The plan does not fit the graph.
    """
    graph.check(model)
    plan.check(graph)
    wanted = {name: stays for name, stays in plan.kept.items() if len(stays) < graph.axes[name].size}
    result = attempt(model, graph, wanted)
    if isinstance(result, nn.Module):
        return Cut(result, plan, {})
    undone: dict[str, str] = {}
    accepted: dict[str, tuple[int, ...]] = {}

    def accept(names: Sequence[str], known: str | None = None) -> None:
        """Cut as many of `names` as can be verified beside what was accepted already, halving where they cannot."""
        outcome = known or attempt(model, graph, accepted | {name: wanted[name] for name in names})
        if isinstance(outcome, nn.Module):
            accepted.update({name: wanted[name] for name in names})
        elif len(names) == 1:
            undone[names[0]] = outcome
        else:
            accept(names[: len(names) // 2])
            accept(names[len(names) // 2 :])

    accept(list(wanted), result)
    final = attempt(model, graph, accepted)
    if isinstance(final, str):
        raise TraceError(f"slice: the network does not trace to the same graph twice ({final}); is its code random?")
    return Cut(final, Plan({name: s for name, s in plan.kept.items() if name not in undone}), undone)


def attempt(model: nn.Module, graph: ChannelGraph, kept: Mapping[str, tuple[int, ...]]) -> nn.Module | str:
    """The network cut and verified, or in words what went wrong."""
    widths = {name: len(stays) for name, stays in kept.items()}
    small = _index(model, graph, kept)
    set_numbers(small, graph.numbers, widths)
    try:
        with inference_mode_of(small):
            seen = infer(small, *_beside(small, graph))
    except TraceError as error:
        return _blame(error)
    problem = mismatch(graph, seen.graph, widths)
    return problem or _make_up(small, graph, seen, widths) or small


def _beside(model: nn.Module, graph: ChannelGraph) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example inputs, on the device of the network, which may have moved since it was traced."""
    devices = {tensor.device for tensor in named_tensors(model).values()}
    if len(devices) != 1:
        return graph.args, dict(graph.kwargs)
    [device] = devices
    moved: tuple[tuple[Any, ...], dict[str, Any]] = tree_map_only(
        Tensor, lambda tensor: tensor.to(device), (graph.args, dict(graph.kwargs))
    )
    return moved


def _make_up(small: nn.Module, graph: ChannelGraph, seen: Inference, widths: Mapping[str, int]) -> str | None:
    changes = scale_changes(graph, seen.graph, widths)
    if isinstance(changes, str):
        return changes
    if any(tensor.is_meta for tensor in small.parameters()):
        return None
    for change in changes:
        node = seen.nodes[change.index]
        if (problem := rescale(small, seen, node, change.argument, change.factor)) is not None:
            return f"{graph.operators[change.index].where}: {problem}"
    return None


def _blame(error: TraceError) -> str:
    """Where the code of the cut network failed: the innermost line that is neither PyTorch's nor ours, and how."""
    cause: BaseException = error.__cause__ or error
    lines = []
    trail = cause.__traceback__
    while trail is not None:
        frame = trail.tb_frame
        if f"{torch.__name__}/" not in frame.f_code.co_filename and "metaprune/" not in frame.f_code.co_filename:
            lines.append(f"{frame.f_code.co_filename}:{trail.tb_lineno}")
        trail = trail.tb_next
    reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return f"{lines[-1] if lines else 'a module'}: {reason}"


def _index(model: nn.Module, graph: ChannelGraph, kept: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """A copy whose tensors hold only the channels that stay; tied tensors stay tied."""
    once = {id(tensor): (name, tensor) for name, tensor in named_tensors(model).items()}
    small: dict[str, Tensor] = {}
    for name, tensor in once.values():
        indexed = tensor.detach()
        for dim, term in enumerate(graph.tensors[name]):
            positions = channels(term, kept)
            if len(positions) < tensor.shape[dim]:
                indexed = indexed.index_select(dim, positions.to(tensor.device))
        small[name] = indexed.clone() if indexed.data_ptr() == tensor.data_ptr() or tensor.is_meta else indexed
    return with_tensors(model, small)
