"""Trace: the channel graph of a network in all the ways it is called, with what the numbers in its code hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from metaprune.graph.attributes import whole_numbers
from metaprune.graph.calling import Call
from metaprune.graph.capture import capture, check_inputs
from metaprune.graph.chance import other_ways, with_its_chance
from metaprune.graph.counting import Outputs
from metaprune.graph.graph import ChannelGraph, Tie
from metaprune.graph.infer import Inference, read
from metaprune.graph.objects import learn
from metaprune.graph.rehearsal import undisturbed
from metaprune.graph.term import Term, axes_of, size
from metaprune.surgery.attention import observe, written_out
from metaprune.surgery.culprits import with_alike
from metaprune.surgery.numbers import Solution, solve
from metaprune.surgery.rescale import Way, way_to_weights
from metaprune.surgery.slice import Fate, carve, fate
from metaprune.surgery.training import Training, as_in_evaluation, training_of
from metaprune.surgery.trial import may_hold_a_size, ragged, takes_another_way, trial, turning
from metaprune.surgery.unfollowed import unfollowed
from metaprune.surgery.unread import feeding_what_is_unread

__all__ = ["trace"]

_MOST_ROUNDS = 8
_QUICK = 2 * 10**9
"""Multiply-accumulates up to which a trial cut compares outputs, too; `slice` always does."""


@undisturbed
def trace(
    model: nn.Module,
    args: tuple[object, ...],
    kwargs: Mapping[str, object] | None = None,
    calls: Sequence[Call] = (),
    outputs: Outputs = None,
) -> ChannelGraph:
    """Infer the channel graph of a network: its axes, and every tensor dimension as a term over them.

    A network is all the ways in which it is called. Axes, numbers and reasons hold over the evaluation forward of the
    example inputs, its training forward (unless `calls` has another one; where it cannot be captured, the graph says so
    in `uncaptured`), and all of `calls`; costs are those of the first.

    Numbers that the code gives to operators (`view`, `split` …) are followed back to the attributes and sizes they were
    computed from. Where that does not tell how a number follows a cut, the network is cut once on trial; an axis whose
    size cannot be reached is fixed, with the file and line.

    Args:
        model: Any module that `torch.export` can read, also on the meta device. Left untouched.
        args: Example inputs, a tuple; the first dimension of the first tensor is the batch.
        kwargs: Example keyword inputs.
        calls: Other ways in which the network is called.
        outputs: Which outputs count, by default all: names or positions in what the network returns (`"logits"`,
            `("logits", "boxes")`, `0`), or a function that takes them out of it (`lambda out: out.logits`). What does
            not count may change its size, and is not compared. Where a call returns none of them, all of its outputs
            count. Caches and other objects that the network alone reads never count.

    Raises:
        TraceError: `torch.export` cannot read the network with these inputs, or the outputs are not there.
    """
    check_inputs(model, args, kwargs)
    wanted = [Call(args, kwargs or {}), *calls]
    learn([(call.args, dict(call.kwargs)) for call in wanted])
    return _traced(model, wanted, outputs)


def _traced(model: nn.Module, wanted: Sequence[Call], outputs: Outputs, export: bool = False) -> ChannelGraph:
    """See `trace`; `export` says that the training forward is exported in any case."""
    first, *calls = wanted
    alone = not any(call.training for call in calls)
    written = observe(model, [*wanted, replace(first, training=True)] if alone else wanted)
    dense, model = model, written_out(model, written)
    captured = [with_its_chance(model, capture(model, call)) for call in wanted]
    training = training_of(model, first, export) if alone else Training()
    captured += training.captured
    ways = [call for call in wanted if call.training] if not alone else [replace(first, training=True)]
    captured += [one for call in ways if training.uncaptured is None for one in other_ways(model, call, captured)]

    stages: tuple[tuple[Tie, ...], ...] = ()
    inferences = read(model, captured, outputs=outputs)
    if training.norms is not None and as_in_evaluation(inferences[0], training.norms) is None:
        training = training_of(model, first, export=True)
        captured += training.captured
        inferences = read(model, captured, outputs=outputs)
    solution = solve(model, inferences[0].graph)
    while solution.ties and len(stages) < _MOST_ROUNDS:
        stages = (*stages, tuple(solution.ties))
        inferences = read(model, captured, stages, outputs)
        solution = solve(model, inferences[0].graph)
    graph = _assembled(inferences, training, solution)
    graph = replace(graph, written_out=written)
    if training.uncaptured is not None or any(one.decided or one.seed is not None for one in captured):
        graph = graph.fixing(feeding_what_is_unread(model, graph))
    forks = any(isinstance(way, Way) and way.beside for _, _, way in _scales(graph))
    constants = any(one.constants for one in graph.passes if one.seed is None)
    numbers = whole_numbers(model)
    if (
        forks
        or constants
        or any(may_hold_a_size(operator, graph) for operator in graph.every_operator)
        or takes_another_way(graph, numbers, trial(graph).widths)
    ):
        by_values = forks or constants or _work(graph) <= _QUICK
        graph = graph.fixing(carve(model, graph, trial(graph), by_values).undone)
    if (least := turning(graph, numbers)).kept:
        graph = graph.fixing(carve(model, graph, least).undone)
    other = ragged(graph)
    found = fate(model, graph, other)
    if found == Fate.CRASHES:
        graph = graph.fixing(with_alike(graph, carve(model, graph, other).undone))
        found = fate(model, graph, ragged(graph))
    if found == Fate.TRAINS_OTHERWISE:
        return _traced(dense, wanted, outputs, export=True)
    return replace(graph, unfollowed=unfollowed(model, graph, solution.followed))


def _assembled(inferences: Sequence[Inference], training: Training, solution: Solution) -> ChannelGraph:
    """The graph with its passes, numbers and reasons."""
    graph = inferences[0].graph
    switched = None if training.norms is None else as_in_evaluation(inferences[0], training.norms)
    if switched is not None:
        twin = replace(graph.passes[0], call=replace(graph.passes[0].call, training=True), like=0)
        graph = replace(graph, passes=(*graph.passes, twin))
        inferences = [*inferences, replace(inferences[0], place=len(graph.passes) - 1, switched=switched)]
    graph = replace(graph, numbers={**graph.numbers, **solution.numbers}, uncaptured=training.uncaptured)
    graph = replace(graph, inferences=tuple(replace(one, graph=graph) for one in inferences))
    stuck = {
        axis.name: f"{where}: {way}"
        for where, scale, way in _scales(graph)
        if isinstance(way, str)
        for axis in axes_of(scale)
        if graph.is_free(axis)
    }
    return graph.fixing({**stuck, **solution.fixed})


def _work(graph: ChannelGraph) -> int:
    """Multiply-accumulates of all calls."""
    return sum(math.prod(map(size, terms)) for operator in graph.every_operator for terms in operator.macs)


def _scales(graph: ChannelGraph) -> list[tuple[str, Term, Way | str]]:
    """For each operator that turns a size into a scale: where it is called, the dimension, and the way to weights."""
    return [
        (operator.where, operator.scale, way_to_weights(inference, node, 0))
        for inference in graph.inferences
        if graph.passes[inference.place].like is None
        for operator, node in zip(inference.operators, inference.nodes, strict=True)
        if operator.scale is not None
    ]
