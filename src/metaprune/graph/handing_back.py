"""States that a user hands back: which output they are, so that both are cut alike.

Where a network makes a state's dimension in another call as well (a key that is put behind a cache, encoder outputs),
its weights tie the two. Where it only reads the state, nothing in the program does: the state is what the network
returned, and its dimension is the one of the output of its sizes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from metaprune.graph.call import Dims
from metaprune.graph.unify import Irreconcilable, Shape, Variable, fix, measure, unify, variables

__all__ = ["Given", "tie_states"]


@dataclass(frozen=True)
class Given:
    """A program that was read, as far as its states are concerned.

    Attributes:
        dims: The dimensions of each value, in order of execution.
        inside: What the inputs of bodies stand for.
        inputs: Its inputs that are no states.
        states: Its states, in order.
        returned: The dimensions of what it returns, in order, and whether it counts as an output.
    """

    dims: Mapping[fx.Node, Any]
    inside: Mapping[fx.Node, fx.Node]
    inputs: Collection[fx.Node]
    states: Sequence[fx.Node]
    returned: Sequence[tuple[Dims, bool]]

    def made(self) -> Iterator[Variable]:
        """What is in the dimensions of values that it makes of its inputs, and of no state."""
        of_inputs, of_states = set(self.inputs), set(self.states)
        for node, dims in self.dims.items():
            sources = [self.inside[node]] if node in self.inside else node.all_input_nodes
            for kind in (of_inputs, of_states):
                if any(source in kind for source in sources):
                    kind.add(node)
            if node in of_inputs and node not in of_states:
                for one in dims if isinstance(dims, list) else [dims]:
                    for dim in one or ():
                        yield from variables(dim)


def tie_states(programs: Sequence[Given], held: Collection[Variable]) -> None:
    """Make each dimension of a state that only readers hold one with that of the output which is handed back.

    Which output that is, is told by its sizes, first among those that do not count as outputs; of several alike, by
    their order, where there are as many states. A dimension for which it cannot be told keeps its size.

    Args:
        programs: All calls of the network.
        held: What parameters hold.
    """
    if not any(program.states for program in programs):
        return
    made = {variable for program in programs for variable in program.made()}
    for program in programs:
        for state in program.states:
            dims = program.dims[state]
            for place, dim in enumerate(dims):
                alone = [each for each in variables(dim) if each in held and each not in made and not each.fixed]
                if alone:
                    _tie(dim, place, state, program, programs)


def _tie(dim: Shape, place: int, state: fx.Node, program: Given, programs: Sequence[Given]) -> None:
    name, found = f"it is a size of the state {state.name!r}", _handed_back(place, state, program, programs)
    kinds = {tuple(id(variable) for variable in variables(one)) for one in found}
    if len(kinds) != 1:
        why = "which output is handed back there cannot be told" if found else "no call returns it"
        fix(dim, f"{name}, and {why}")
        return
    try:
        unify(dim, found[0])
    except Irreconcilable as error:
        for one in (dim, found[0]):
            fix(one, f"{name}, and what is handed back there is laid out otherwise ({error})")


def _handed_back(place: int, state: fx.Node, program: Given, programs: Sequence[Given]) -> list[Shape]:
    """What a dimension of a state may be among those of outputs."""
    sizes = _sizes(program.dims[state])
    alike = [each for each in program.states if _sizes(program.dims[each]) == sizes]
    for counts in (False, True):
        outputs = [
            [dims for dims, one in each.returned if one == counts and _sizes(dims) == sizes] for each in programs
        ]
        in_order = [every[alike.index(state)] for every in outputs if len(every) == len(alike)]
        if found := in_order or [dims for every in outputs for dims in every]:
            return [dims[place] for dims in found]
    return []


def _sizes(dims: Dims) -> tuple[int, ...]:
    return tuple(map(measure, dims))
