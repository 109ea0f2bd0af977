"""Trace: the channel graph, with what the numbers in the code of the network hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from metaprune.graph.capture import capture, check_inputs
from metaprune.graph.graph import ChannelGraph, Tie
from metaprune.graph.infer import read
from metaprune.graph.term import axes_of
from metaprune.surgery.attention import observe, written_out
from metaprune.surgery.numbers import solve
from metaprune.surgery.rescale import Way, way_to_weights
from metaprune.surgery.slice import carve
from metaprune.surgery.trial import may_hold_a_size, trial
from metaprune.surgery.unfollowed import unfollowed

__all__ = ["trace"]

_MOST_ROUNDS = 8


def trace(model: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object] | None = None) -> ChannelGraph:
    """Infer the channel graph of a network: its axes, and every tensor dimension as a term over them.

    Numbers that the code gives to operators (`view`, `split` …) are followed back to the attributes and sizes they were
    computed from. Where that does not tell how a number follows a cut, the network is cut once on trial; an axis whose
    size cannot be reached is fixed, with the file and line.

    Args:
        model: Any module that `torch.export` can read, also on the meta device. Left untouched; traced in eval mode.
        args: Example inputs, a tuple; the first dimension of the first tensor is the batch.
        kwargs: Example keyword inputs.

    Raises:
        TraceError: `torch.export` cannot read the network with these inputs.
    """
    check_inputs(model, args, kwargs)
    calls = observe(model, args, kwargs or {})
    model = written_out(model, calls)
    captured = capture(model, args, kwargs, training=False)
    stages: tuple[tuple[Tie, ...], ...] = ()
    inference = read(model, captured)
    solution = solve(model, inference.graph)
    while solution.ties and len(stages) < _MOST_ROUNDS:
        stages = (*stages, tuple(solution.ties))
        inference = read(model, captured, stages)
        solution = solve(model, inference.graph)
    graph = inference.graph
    scaling = [index for index, operator in enumerate(graph.operators) if operator.scale is not None]
    ways = {index: way_to_weights(inference, inference.nodes[index], 0) for index in scaling}
    stuck = {
        axis.name: f"{graph.operators[index].where}: {way}"
        for index, way in ways.items()
        if isinstance(way, str)
        for axis in axes_of(graph.operators[index].scale)  # type: ignore[arg-type]
        if graph.is_free(axis)
    }
    graph = replace(graph, numbers={**graph.numbers, **solution.numbers}).fixing({**stuck, **solution.fixed})
    graph = replace(graph, written_out=calls, inference=inference)
    forks = any(isinstance(way, Way) and way.beside for way in ways.values())
    if forks or graph.constants or any(may_hold_a_size(operator, graph) for operator in graph.operators):
        graph = graph.fixing(carve(model, graph, trial(graph)).undone)
    return replace(graph, unfollowed=unfollowed(model, graph, solution.followed))
