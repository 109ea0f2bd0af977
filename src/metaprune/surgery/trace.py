"""Trace: the channel graph, after trial cuts have shown which sizes the code of the network holds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from metaprune.graph.graph import ChannelGraph, Operator
from metaprune.graph.infer import check_inputs, infer, inference_mode_of
from metaprune.graph.plan import Plan
from metaprune.graph.term import Term, axes_of
from metaprune.graph.unify import Irreconcilable
from metaprune.surgery.numbers import guesses, readings
from metaprune.surgery.slice import attempt, carve

__all__ = ["trace"]

_SCALING = {"aten.mul", "aten.div", "aten.full", "aten.scalar_tensor", "aten.full_like"}
"""Operators that scale by a number, or make one, that code may have computed from a size."""


def trace(model: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object] | None = None) -> ChannelGraph:
    """Infer the channel graph of a network: its axes, and every tensor dimension as a term over them.

    Where code was given sizes as plain numbers (`view`, `split` …), the network is cut once on trial, to learn which
    attributes of its modules hold them; an axis whose size cannot be reached is fixed, with the file and line.

    Args:
        model: Any module that `torch.export` can read, also on the meta device. Left untouched; traced in eval mode.
        args: Example inputs, a tuple; the first dimension of the first tensor is the batch.
        kwargs: Example keyword inputs.

    Raises:
        TraceError: `torch.export` cannot read the network with these inputs.
    """
    check_inputs(model, args, kwargs)
    graph, found = _read(model, args, kwargs)
    if ties := _held_together(graph, found):
        try:
            tied, _ = _read(model, args, kwargs, ties)
        except Irreconcilable:
            return graph
        if len(tied.free) > len(graph.free):
            return tied
    return graph


def _read(
    model: nn.Module,
    args: tuple[object, ...],
    kwargs: Mapping[str, object] | None,
    ties: Sequence[tuple[Term, Term]] = (),
) -> tuple[ChannelGraph, Mapping[tuple[str, str], Sequence[Term]]]:
    """Infer; where code was given sizes, find by trial cuts which numbers hold them, and fix what cannot be reached.

    Returns:
        The graph, and for each number what it was thought to hold.
    """
    with inference_mode_of(model):
        graph = infer(model, args, kwargs, ties).graph
    found = guesses(model, graph)
    likeliest = replace(graph, numbers={**graph.numbers, **next(readings(model, found), {})})
    if not graph.constants and not any(_holds_a_size(operator) for operator in graph.operators):
        return likeliest, found
    trials = _trials(graph, found)
    for numbers in readings(model, found):
        read = replace(graph, numbers={**graph.numbers, **numbers})
        if all(isinstance(attempt(model, read, trial), nn.Module) for trial in trials):
            return read, found
    for trial in trials:
        plan = Plan({name: stays for name, stays in trial.items() if likeliest.axes[name].fixed is None})
        likeliest = likeliest.fixing(carve(model, likeliest, plan).undone)
    return likeliest, found


def _holds_a_size(operator: Operator) -> bool:
    """Whether an operator was given, or may compute with, a size that a cut changes."""
    return operator.literal or operator.scale is not None or (operator.name in _SCALING and bool(operator.scalars))


def _held_together(graph: ChannelGraph, found: Mapping[tuple[str, str], Sequence[Term]]) -> list[tuple[Term, Term]]:
    """Pairs of terms, each over one axis, that one number may hold, where neither could be cut without the other."""
    pairs: dict[Term, Term] = {}
    for terms in found.values():
        stuck = [
            term
            for term in terms
            if len(names := {axis.name for axis in axes_of(term)}) == 1 and not graph.free.keys() >= names
        ]
        for other in stuck[1:]:
            pairs.setdefault(other, stuck[0])
    return [(first, other) for other, first in pairs.items()]


def _trials(graph: ChannelGraph, found: Mapping[tuple[str, str], Sequence[Term]]) -> list[dict[str, tuple[int, ...]]]:
    """Cuts that tell apart what one number may hold: all axes at different widths, then some axes without the others.

    Axes that the same number may hold get different colours; the cuts go by the bits of the colours.
    """
    rivals: dict[str, set[str]] = {name: set() for name in graph.free}
    for terms in found.values():
        together = {axis.name for term in terms for axis in axes_of(term)} & rivals.keys()
        for name in together:
            rivals[name] |= together - {name}
    colours: dict[str, int] = {}
    for name in graph.free:
        taken = {colours[rival] for rival in rivals[name] if rival in colours}
        colours[name] = next(colour for colour in itertools.count() if colour not in taken)
    whole: dict[str, tuple[int, ...]] = {}
    for name, axis in graph.free.items():
        widths = range(1 if axis.size == 2 else 2, axis.size)
        whole[name] = tuple(range(widths[(len(widths) // 2 + colours[name]) % len(widths)]))
    rivalling = [name for name in whole if rivals[name]]
    bits = max(colours.values(), default=0).bit_length()
    parts = [
        {name: whole[name] for name in rivalling if (colours[name] >> bit & 1) == side}
        for bit in range(bits)
        for side in (0, 1)
    ]
    return [whole, *parts]
