"""Recurrent layers: gates × hidden units; all layers and directions share their units, as the state is one tensor."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from metaprune.graph.call import Call, Dims, constants, rule
from metaprune.graph.unify import Parts, Shape, fix, measure, resolve, split_right, unify

__all__ = []


@rule("aten.lstm")
def lstm(call: Call) -> list[Dims]:
    """Hidden and cell states are (layers × directions, batch, units); where the hidden one is projected, it differs."""
    hidden, cell = (call.of(state) for state in call["hx"])
    return _layers(call, hidden, cell)


@rule("aten.gru", "aten.rnn_tanh", "aten.rnn_relu")
def recurrent(call: Call) -> list[Dims]:
    """The only state is (layers × directions, batch, units)."""
    return _layers(call, call.tensor("hx"))


def _layers(call: Call, *states: Dims) -> list[Dims]:
    """The sequence and the last of each state; states[0] is what a step gives out, states[-1] what it keeps."""
    *steps, inner = call.tensor("input")
    batch = steps[0 if call["batch_first"] else 1]
    for count, examples, _ in states:
        fix(count, "it counts the layers and directions of a recurrent layer")
        unify(examples, batch)
    output, units = states[0][-1], states[-1][-1]
    directions = 2 if call["bidirectional"] else 1
    cells = directions * call["num_layers"]
    held = len(call["params"]) // cells
    call.number(None, input_size=inner, hidden_size=units)
    if held % 2:
        call.number(None, proj_size=output)
    else:
        unify(output, units)
    call.apart = True
    call.reads["input"] = (len(steps),)
    call.reads |= {f"params.{i}": (1,) for i, weight in enumerate(call["params"]) if len(call.of(weight)) == 2}
    for layer in range(call["num_layers"]):
        for direction in range(directions):
            first = held * (directions * layer + direction)
            _cell(call, call["params"][first : first + held], (*steps,), inner, output, units)
        inner = resolve(Parts((output,) * directions))
    return [(*steps, inner), *((*constants([measure(count)]), batch, resolve(last)) for count, _, last in states)]


@rule("aten.lstm_cell")
def lstm_cell(call: Call) -> list[Dims]:
    """One step of an LSTM; the states are (batch, units)."""
    hidden, cell = (call.of(state) for state in call["hx"])
    unify(hidden[-1], cell[-1])
    state = _step(call, hidden)
    return [state, state]


@rule("aten.gru_cell", "aten.rnn_tanh_cell", "aten.rnn_relu_cell")
def cell(call: Call) -> Dims:
    """One step of a layer with a single state, (batch, units)."""
    return _step(call, call.tensor("hx"))


def _step(call: Call, state: Dims) -> Dims:
    *examples, inner = call.tensor("input")
    units = state[-1]
    weights = [call[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh") if call.get(name) is not None]
    _cell(call, weights, (*examples,), inner, units, units)
    call.apart = True
    call.reads["input"] = (len(examples),)
    call.reads["w_hh"] = (1,)
    call.sums["w_ih"] = {1: inner}
    call.number("w_ih", input_size=inner, hidden_size=units)
    return (*examples, resolve(units))


def _cell(call: Call, weights: Sequence[fx.Node], steps: Dims, inner: Shape, output: Shape, units: Shape) -> None:
    """Of each weight the rows are gates × units; a projection, the last of an odd number, is (output, units)."""
    of_input, of_state, *rest = (call.of(weight) for weight in weights)
    projection = rest.pop() if len(rest) % 2 else None
    for rows, *_ in (of_input, of_state, *rest):
        unify(rows, of_input[0])
    gates, each = split_right(of_input[0], measure(units))
    fix(gates, "it counts the gates of a recurrent cell")
    unify(each, units)
    unify(of_input[1], inner)
    unify(of_state[1], output)
    call.macs.append((*steps, *of_input))
    call.macs.append((*steps, *of_state))
    if projection is not None:
        unify(projection[0], output)
        unify(projection[1], units)
        call.macs.append((*steps, *projection))
