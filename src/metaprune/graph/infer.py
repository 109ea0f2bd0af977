"""Dimension inference: walk the exported program once and unify what the operators say must be equal."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from metaprune.graph.aliases import is_pointwise, one_name
from metaprune.graph.attributes import held, is_pytorchs, modules_by_name
from metaprune.graph.call import Call, Dims, constants, is_layout, named_arguments, where
from metaprune.graph.calling import Call as Way
from metaprune.graph.calling import made_by, state_leaves, takes
from metaprune.graph.capture import Captured, capture
from metaprune.graph.counting import Outputs, counted
from metaprune.graph.errors import TraceError
from metaprune.graph.extents import is_about_sizes, settled
from metaprune.graph.flow import sources, wrapped
from metaprune.graph.graph import Branch, ChannelGraph, Operator, Pass, Size, Tie
from metaprune.graph.handing_back import Given, tie_states
from metaprune.graph.literals import digests, single_values, tables
from metaprune.graph.memory import over
from metaprune.graph.provenance import Combined, Comparison, Extent, Number, Record, Tagged, call_of, calls_by_place
from metaprune.graph.rules import RULES
from metaprune.graph.rules.elementwise import pointwise
from metaprune.graph.tensors import named_tensors, plain_tensors
from metaprune.graph.term import Axis, Concat, Product, Term, fold
from metaprune.graph.unify import (
    UNIT,
    Factors,
    Irreconcilable,
    Parts,
    Shape,
    Variable,
    at,
    fix,
    measure,
    resolve,
    unify,
    variables,
)
from metaprune.graph.uses import Uses

__all__ = ["Inference", "Tie", "infer", "read"]

KERNEL = "it is a kernel's extent"
_FEW = 8  # operators of one call; a function of PyTorch's with more has numbers of its own, which may equal a given one
_OWN_NAMES = {"weight", "bias"}


@dataclass
class Inference:
    """One pass of a channel graph together with the program it was read from.

    Attributes:
        graph: The channel graph, of all passes.
        place: Which of its passes this is.
        program: The exported program.
        dims: For each node of the program its terms (a tuple per tensor).
        reads: For each node the dimensions that it reads across, per tensor argument.
        nodes: The nodes of the pass's operators, in the same order.
        owner: For each node that is a parameter or buffer, its qualified name.
        counts: For each output, whether it counts: "yes", "no", or "state".
        switched: Nodes whose arguments are others in this pass than in the program, with these arguments.
        unchecked: Whether, on other inputs, the code may decide otherwise without the program telling.
        records: The calls of the network's code that the program came from, where they were recorded.
    """

    graph: ChannelGraph
    place: int
    program: torch.export.ExportedProgram
    dims: dict[fx.Node, Any]
    reads: dict[fx.Node, dict[str, tuple[int, ...]]]
    nodes: list[fx.Node]
    owner: dict[fx.Node, str]
    counts: Sequence[str] = ()
    switched: Mapping[fx.Node, Mapping[str, Any]] = field(default_factory=dict)
    unchecked: bool = False
    records: Sequence[Record] = ()

    @property
    def call(self) -> Way:
        """How the network was called."""
        return self.graph.passes[self.place].call

    @property
    def operators(self) -> tuple[Operator, ...]:
        """The operators of the pass."""
        return self.graph.passes[self.place].operators

    @cached_property
    def made_at(self) -> dict[tuple[str, int], list[fx.Node]]:
        """A line of the network's code, and how many calls it made before -> the nodes that its next call made."""
        places = calls_by_place(self.records)
        found: dict[tuple[str, int], list[fx.Node]] = {}
        for node in self.nodes:
            if (index := call_of(node.meta.get("stack_trace"))) is not None and index in places:
                found.setdefault(places[index], []).append(node)
        return found


def infer(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    ties: Sequence[Sequence[Tie]] = (),
    recorded: bool = True,
    training: bool | None = None,
) -> Inference:
    """Infer the channel graph of `model` from one export.

    Args:
        model: Any module that `torch.export` can read; it may lie on the meta device. Left untouched.
        args: Example inputs; the first dimension of the first tensor is the batch.
        kwargs: Example keyword inputs.
        ties: As for `read`.
        recorded: As for `capture`.
        training: As for `capture`.

    Raises:
        TraceError: `torch.export` cannot capture the model with these inputs.
    """
    call = Way(args, kwargs or {}, training=model.training)
    return read(model, [capture(model, call, recorded, as_it_is=True)], ties)[0]


def read(
    model: nn.Module,
    captured: Sequence[Captured],
    ties: Sequence[Sequence[Tie]] = (),
    outputs: Outputs = None,
    further: Sequence[Captured] = (),
) -> tuple[Inference, ...]:
    """Infer the one channel graph of all the programs that were captured of a network.

    Args:
        model: The network that was captured.
        captured: From `capture`, one for each call; costs are those of the first.
        ties: Pairs of terms that become one, in stages: those of a stage are over the axes that there are after the
            stages before it. A pair that cannot be reconciled is fixed.
        outputs: Which outputs count.
        further: More of them, read when the pairs are one.

    Returns:
        The inference of each program, all with the same graph.
    """
    reading = _Reading(model, outputs)
    for one in captured:
        reading.walk(one)
    for stage in ties:
        reading.tie(stage)
    for one in further:
        reading.walk(one)
    return reading.freeze(tuple(map(tuple, ties)))


@dataclass
class _Walk:
    model: nn.Module
    captured: Captured
    shapes: dict[str, Dims]
    plain: dict[str, Dims]
    counts: Sequence[str]
    made: dict[int, fx.Node] = field(default_factory=dict)
    dims: dict[fx.Node, Any] = field(default_factory=dict)
    owner: dict[fx.Node, str] = field(default_factory=dict)
    calls: list[tuple[Call, list[Dims]]] = field(default_factory=list)
    given: dict[str, Dims] = field(default_factory=dict)
    tables: dict[fx.Node, str] = field(default_factory=dict)
    singles: dict[fx.Node, float] = field(default_factory=dict)
    inside: dict[fx.Node, fx.Node] = field(default_factory=dict)
    examples: list[fx.Node] = field(default_factory=list)
    states: list[fx.Node] = field(default_factory=list)
    returned: list[tuple[Dims, bool]] = field(default_factory=list)

    @property
    def program(self) -> torch.export.ExportedProgram:
        return self.captured.program

    @property
    def records(self) -> Sequence[Record]:
        return self.captured.records

    def inputs(self) -> list[Dims]:
        """The dimensions of the program's placeholders."""
        self.tables, self.singles = tables(self.model, self.program), single_values(self.program)
        result: list[Dims] = []
        is_made = made_by(self.model, self.captured.call, self.program.call_spec.out_spec)
        states = iter(state_leaves(self.captured.call, is_made))
        placeholders = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, self.program.graph_signature.input_specs, strict=True):
            value = node.meta.get("val")
            sizes = value.shape if isinstance(value, Tensor) else ()
            if spec.kind in {InputKind.PARAMETER, InputKind.BUFFER} and spec.target in self.shapes:
                self.owner[node] = str(spec.target)
                result.append(self.shapes[str(spec.target)])
            elif spec.kind == InputKind.USER_INPUT and next(states, False):
                self.states.append(node)
                result.append(tuple(UNIT if size == 1 else Variable(int(size)) for size in sizes))
            elif spec.kind == InputKind.USER_INPUT:
                self.examples.append(node)
                self.given[node.name] = constants(sizes, f"it is a size of the input {node.name!r}")
                result.append(self.given[node.name])
            elif node in self.tables:
                result.append(self.plain.setdefault(self.tables[node], tuple(Variable(size) for size in sizes)))
            else:
                result.append(constants(sizes, f"{self.place(node)}: it is a size of a constant that the code makes"))
        return result

    def place(self, node: fx.Node) -> str:
        """File and line of the code that first uses a constant, which is often the one that makes it."""
        user = next(iter(node.users), node)
        index = call_of(user.meta.get("stack_trace"))
        record = self.records[index] if index is not None and index < len(self.records) else None
        return where(user, record)

    def run(self, module: fx.GraphModule, inputs: Sequence[Any]) -> Any:
        """Walk one graph; returns the dimensions of what it returns."""
        pending = iter(inputs)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                self.dims[node] = next(pending)
            elif node.op == "get_attr":
                value = getattr(module, node.target, None)
                self.dims[node] = constants(value.shape) if isinstance(value, Tensor) else None
            elif node.op == "call_function":
                self.dims[node] = self.call(module, node)
            elif node.op == "output":
                result = pytree.tree_map(lambda value: self.dims.get(value), node.args[0])
                if module is self.program.graph_module:
                    self.returned = [
                        (dims, counts == "yes")
                        for value, counts in zip(node.args[0], self.counts, strict=True)
                        if isinstance(dims := self.dims.get(value), tuple)
                    ]
                    for value, counts in zip(node.args[0], self.counts, strict=True):
                        for dim in (self.dims.get(value) or ()) if counts == "yes" else ():
                            fix(dim, "it is a size of the output")
                return result
        return None

    def call(self, module: fx.GraphModule, node: fx.Node) -> Any:
        """Apply the rule of one operator; where there is none, or it does not hold, fix what it touches."""
        if node.target is operator.getitem:
            source = self.dims.get(node.args[0])  # type: ignore[arg-type]
            return source[node.args[1]] if source is not None else None
        if (body := wrapped(node)) is not None:
            given = [arg for arg in node.args[node.args.index(body) + 1 :] if isinstance(arg, fx.Node)]
            inner = getattr(module, str(body.target))
            placeholders = [step for step in inner.graph.nodes if step.op == "placeholder"]
            self.inside |= dict(zip(placeholders, given, strict=False))
            result = self.run(inner, [self.dims.get(arg) for arg in given])
            return list(result) if isinstance(node.meta.get("val"), list | tuple) else result
        if is_about_sizes(node):
            return None
        call = self.bind(node)
        if (index := call_of(node.meta.get("stack_trace"))) is not None and index < len(self.records):
            call.record = self.records[index]
            self.made[index] = node
        rule = RULES.get(call.name)
        if rule is None and is_pointwise(node.target):
            rule = pointwise
        line = at.set(lambda: call.where)
        try:
            result = rule(call) if rule else call.unknown(f"the operator {call.name} is not understood")
        except (Irreconcilable, LookupError, ValueError, TypeError) as error:
            result = call.unknown(f"{call.name} is not understood: {error}")
        finally:
            at.reset(line)
        if not _fits(*_used(node, result)):
            raise TraceError(f"trace: the rule of {call.name} does not fit its output at {call.where}; report this")
        self.calls.append((call, _tensors(result)))
        return result

    def bind(self, node: fx.Node) -> Call:
        """Name the arguments after the operator's schema."""
        given = named_arguments(node.target, node.args, node.kwargs)
        arguments = {name: settled(value) for name, value in given.items()}
        name = getattr(node.target, "overloadpacket", node.target)
        stack = node.meta.get("nn_module_stack") or {}
        path = next(reversed(stack.values()))[0] if stack else ""
        return Call(node, one_name(str(name).rstrip("_")), arguments, self.dims, path, self.owner, self.singles)

    def as_the_example(self, terms: tuple[Term, ...]) -> tuple[Term, ...]:
        """Terms whose sizes that depend on the data are what they were on the example inputs."""
        extents = self.captured.extents
        if not extents:
            return terms

        def leaf(axis: Axis) -> Term:
            return replace(axis, size=extents.get(axis.size, axis.size)) if axis.fixed else axis

        return tuple(fold(term, leaf, _product, _concat) for term in terms)

    def fix_beside_data(self) -> None:
        """Channels that lie in one dimension with a size that depends on the data cannot be picked by position."""
        extents = self.captured.extents
        for value in self.dims.values() if extents else ():
            for dims in value if isinstance(value, list) else [value]:
                for dim in dims or ():
                    inside = list(variables(dim))
                    if len(inside) > 1 and any(variable.size in extents for variable in inside):
                        fix(dim, "it lies in one dimension with a size that depends on the data")

    def constants(self) -> tuple[tuple[str, str], ...]:
        """The tensors that the code makes, each with its line."""
        return digests(self.program, {*self.tables, *self.singles}, self.place)

    def branches(self, frozen: _Frozen) -> tuple[Branch, ...]:
        """The comparisons of numbers whose sources are known."""
        found: dict[Branch, None] = {}
        for record in self.records:
            if isinstance(record, Comparison):
                left, right = (self.sourced(number, frozen.term) for number in record.sides)
                if left is not None and right is not None:
                    found.setdefault(Branch(record.where, record.sign, left, right))
        return tuple(found)

    def operators(
        self, modules: Mapping[str, nn.Module], frozen: _Frozen
    ) -> tuple[list[Operator], dict[tuple[str, str], Term]]:
        """The operators, without their operands, and the attributes whose size is known by their name."""
        term, terms = frozen.term, frozen.terms
        first: dict[nn.Module, str] = {}
        for path, module in modules.items():
            first.setdefault(module, path)
        steps = Counter(id(call.record) for call, _ in self.calls if call.record is not None)
        numbers: dict[tuple[str, str], Term] = {}
        result: list[Operator] = []
        read = self.uses(frozen)
        for call, outputs in self.calls:
            uses, unabsorbed = read.of(call)
            exact = {
                (first.get(modules[path], path), name): dim
                for (path, name), dim in call.numbers.items()
                if is_pytorchs(modules.get(path)) and held(modules, path, name) == measure(dim)
            }
            numbers |= {key: term(dim) for key, dim in exact.items()}
            result.append(
                Operator(
                    name=call.name,
                    path=call.path,
                    layer=self.layer(call),
                    where=call.where,
                    outputs=tuple(terms(dims) for dims in outputs),
                    macs=tuple(self.as_the_example(terms(dims)) for dims in call.macs),
                    scalars=self.scalars(call),
                    computed=any(self.is_computed(call, scalar) for scalar in self.scalars(call)),
                    literal=call.literal and not exact,
                    sizes=tuple(
                        Size(term(dim), self.sourced(number, term))
                        for dim, number in call.sizes
                        if not (isinstance(number, int) or steps[id(call.record)] > _FEW)
                        or not all(variable.fixed for variable in variables(dim))
                    ),
                    scale=None if call.scale is None else term(call.scale),
                    statistics=()
                    if call.macs
                    else terms(
                        (*(call.tensor(a)[i] for a, over in call.reads.items() for i in over), *call.normalised)
                    ),
                    uses=uses,
                    unabsorbed=unabsorbed,
                )
            )
        return result, numbers

    def uses(self, frozen: _Frozen) -> Uses:
        """What reads the uses of the calls."""
        named = named_tensors(self.model) | plain_tensors(self.model, self.plain)
        first: dict[int, str] = {}
        for name, tensor in named.items():
            first.setdefault(id(tensor), name)
        lies = over(named)
        specs = self.program.graph_signature.input_specs
        placeholders = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        known = {**self.tables, **self.owner}
        return Uses(
            owner={node: first.get(id(named.get(name)), name) for node, name in known.items()},
            shapes={name: frozen.terms(dims) for name, dims in {**self.plain, **self.shapes}.items()},
            shared=frozenset({*lies, *(below.name for below in lies.values())}),
            term=frozen.term,
            given=self.inside,
            inputs={n for n, s in zip(placeholders, specs, strict=True) if s.kind == InputKind.USER_INPUT},
        )

    def inference(self, graph: ChannelGraph, place: int, frozen: _Frozen) -> Inference:
        """What was read, in terms."""
        dims = {
            node: tuple(map(frozen.terms, value)) if isinstance(value, list) else frozen.terms(value)
            for node, value in self.dims.items()
            if value is not None
        }
        reads = {call.node: call.reads for call, _ in self.calls}
        nodes = [call.node for call, _ in self.calls]
        unchecked = self.captured.unchecked
        return Inference(
            *(graph, place, self.program, dims, reads, nodes, self.owner, self.counts),
            unchecked=unchecked,
            records=self.records,
        )

    def is_computed(self, call: Call, scalar: float) -> bool:
        """Whether the code may have computed a number from a size; what is held or written down was not."""
        if isinstance(scalar, int):
            given = call.record.numbers if call.record is not None else ()
            return call.record is None or any(isinstance(n, Tagged) for n in given if n == scalar)
        return scalar not in self.captured.floats and scalar not in _NO_SIZES

    def scalars(self, call: Call) -> tuple[float, ...]:
        """The numbers that a call computes with, and the values of tensors among its operands that are made of some."""
        if call.node in self.singles:
            return ()
        made = (self.singles[node] for node in call.node.all_input_nodes if node in self.singles)
        return (*_scalars(call), *made)

    def placeholders(self) -> dict[fx.Node, str]:
        """What the program is given, by name: parameters and buffers, inputs by their place, constants."""
        names: dict[fx.Node, str] = {}
        given = 0
        nodes = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(nodes, self.program.graph_signature.input_specs, strict=True):
            if spec.kind == InputKind.USER_INPUT:
                names[node], given = f"input {given}", given + 1
            else:
                names[node] = self.owner.get(node, "constant")
        return names

    def sourced(self, number: Number | None, term: Callable[[Shape], Term]) -> Number | None:
        """The expression with the sizes in it as terms; None where one of them is of a tensor that is not known."""
        if isinstance(number, Combined):
            left, right = self.sourced(number.left, term), self.sourced(number.right, term)
            return None if left is None or right is None else Combined(number.sign, left, right)
        if not isinstance(number, Extent):
            return number
        dims = self.shapes.get(number.source) if isinstance(number.source, str) else self.result(number)
        if number.source == "":
            return number.size
        return (
            None
            if dims is None or measure(dims[number.dim]) != number.size
            else Extent(number.source, number.output, number.dim, number.size, term(dims[number.dim]))
        )

    def result(self, extent: Extent) -> Dims | None:
        """The dimensions of a tensor that a recorded call made."""
        node = self.made.get(extent.source)  # type: ignore[arg-type]
        dims = None if node is None else self.dims.get(node)
        if isinstance(dims, list):
            dims = dims[extent.output] if extent.output < len(dims) else None
        return dims if isinstance(dims, tuple) and extent.dim < len(dims) else None

    def layer(self, call: Call) -> str:
        """The module that holds the weight of a call, or the caller."""
        for value in call.arguments.values():
            if isinstance(value, fx.Node) and value in self.owner:
                return _module(self.owner[value])
        return call.path


@dataclass
class _Reading:
    """All programs of a network, read together: its tensors have one dimension each in all of them."""

    model: nn.Module
    outputs: Outputs = None
    walks: list[_Walk] = field(default_factory=list)
    shapes: dict[str, Dims] = field(default_factory=dict)
    plain: dict[str, Dims] = field(default_factory=dict)

    def __post_init__(self) -> None:
        by_identity: dict[int, Dims] = {}  # tied tensors share theirs
        named = named_tensors(self.model)
        lies = over(named)
        for name, tensor in named.items():
            fresh: Dims = tuple(UNIT if size == 1 else Variable(size) for size in tensor.shape)
            if name in lies and (dims := lies[name].dims) is not None:
                fresh = tuple(self.shapes[lies[name].name][dim] for dim in dims)
            self.shapes[name] = by_identity.setdefault(id(tensor), fresh)
        for name, below in lies.items():
            for shape in (*self.shapes[name], *self.shapes[below.name]) if below.dims is None else ():
                fix(shape, f"{name} and {below.name} share some of their memory")

    def walk(self, captured: Captured) -> None:
        """Read one program more."""
        is_state = takes(self.model, captured.call.method)
        counts = counted(captured.program, self.outputs, not self.walks, is_state)
        walk = _Walk(self.model, captured, self.shapes, self.plain, counts)
        walk.run(captured.program.graph_module, walk.inputs())
        self.walks.append(walk)

    def tie(self, pairs: Sequence[Tie]) -> None:
        """Make the terms of each pair one."""
        named: dict[str, Shape] = {axis.name: variable for variable, axis in self.name().items()}
        for tie in pairs:

            def leaf(axis: Axis, tie: Tie = tie) -> Shape:
                return named[axis.name] if axis.name else Variable(axis.size, f"{tie.where}: {axis.fixed}")

            one, other = (fold(term, leaf, _factors, _parts) for term in (tie.one, tie.other))
            try:
                unify(one, other)
            except Irreconcilable as error:
                for shape in (one, other):
                    fix(shape, f"{tie.where}: one number there is the size of dimensions that differ ({error})")

    def hand_back(self) -> None:
        """Tie states to what the network returns."""
        given = [Given(walk.dims, walk.inside, walk.examples, walk.states, walk.returned) for walk in self.walks]
        tie_states(given, self.trained())

    def trained(self) -> set[Variable]:
        """What parameters hold, as far as it has been made one."""
        return {
            variable
            for name, _ in self.model.named_parameters()
            for dim in self.shapes[name]
            for variable in variables(dim)
        }

    def fix_unread(self) -> None:
        """What is only moved about, or held by buffers alone, was not read: cutting it could not be checked."""
        read: set[Variable] = set()
        for call, outputs in (one for walk in self.walks for one in walk.calls):
            if not is_layout(call.name):
                read |= {
                    variable for dims in (*outputs, *call.operands()) for dim in dims for variable in variables(dim)
                }
        trained = self.trained()
        for dims in self.shapes.values():
            for dim in dims:
                for variable in variables(dim):
                    if variable not in read:
                        variable.fixed = variable.fixed or "no traced call reads it"
                    elif variable not in trained:
                        variable.fixed = variable.fixed or "no parameter holds it"

    def name(self) -> dict[Variable, Axis]:
        """Name variables after the first tensor in order of execution that holds them; collect their members."""
        members: dict[Variable, list[str]] = {}
        for tensor, dims in self.shapes.items():
            for position, dim in enumerate(dims):
                for variable in dict.fromkeys(variables(dim)):
                    members.setdefault(variable, []).append(f"{tensor}:{position}")
        order = dict.fromkeys(
            walk.owner[node]
            for walk in self.walks
            for call, _ in walk.calls
            for node in call.node.all_input_nodes
            if node in walk.owner
        )
        axes: dict[Variable, Axis] = {}
        for place, walk in enumerate(self.walks):
            for given, dims in walk.given.items():
                for position, dim in enumerate(dims):
                    known = [variable for variable in dict.fromkeys(variables(dim)) if variable in members]
                    taken = {axis.name for axis in axes.values()}
                    for index, variable in enumerate(known):
                        name = f"{given}:{position}" if len(known) == 1 else f"{given}:{position}[{index}]"
                        name = f"{name} (call {place + 1})" if name in taken else name
                        axes.setdefault(variable, Axis(name, variable.size, variable.fixed, tuple(members[variable])))
        for tensor in order | dict.fromkeys(self.shapes):
            held = dict.fromkeys(v for dim in self.shapes[tensor] for v in variables(dim) if v.fixed != KERNEL)
            unnamed = [variable for variable in held if variable not in axes]
            taken = {axis.name for axis in axes.values()}
            for index, variable in enumerate(unnamed):
                name = _module(tensor) if len(unnamed) == 1 else f"{_module(tensor)}[{index}]"
                name = name if name not in taken else f"{tensor}[{index}]"
                axes[variable] = Axis(name, variable.size, variable.fixed, tuple(members[variable]))
        return axes

    def freeze(self, ties: tuple[tuple[Tie, ...], ...]) -> tuple[Inference, ...]:
        """Turn what is left of the variables into named axes, and shapes into terms."""
        self.hand_back()
        for walk in self.walks:
            walk.fix_beside_data()
        self.fix_unread()
        axes = self.name()
        frozen = _Frozen(axes | {})
        modules = modules_by_name(self.model)
        numbers: dict[tuple[str, str], Term] = {}
        passes = []
        for walk in self.walks:
            operators, exact = walk.operators(modules, frozen)
            numbers |= exact
            nodes = [call.node for call, _ in walk.calls]
            flows, returned = sources(walk.program.graph_module, walk.placeholders(), nodes)
            traced = tuple(replace(one, operands=flow) for one, flow in zip(operators, flows, strict=True))
            way = walk.captured
            made, branches = walk.constants(), walk.branches(frozen)
            passes.append(Pass(way.call, traced, returned, made, branches, seed=way.seed))
        graph = ChannelGraph(
            axes={axis.name: axis for axis in axes.values()},
            tensors={name: frozen.terms(dims) for name, dims in self.shapes.items()},
            parameters=tuple(dict(self.model.named_parameters())),
            passes=tuple(passes),
            numbers=numbers,
            ties=ties,
            tables={name: frozen.terms(dims) for name, dims in self.plain.items()},
            outputs=self.outputs,
        )
        return tuple(walk.inference(graph, place, frozen) for place, walk in enumerate(self.walks))


@dataclass
class _Frozen:
    """Shapes as terms, each made once: equal terms are one object."""

    leaves: dict[Variable, Axis]
    resolved: dict[int, tuple[Shape, Shape]] = field(default_factory=dict)
    known: dict[int, Term] = field(default_factory=dict)
    made: dict[tuple[type, tuple[int, ...]], Term] = field(default_factory=dict)

    def term(self, shape: Shape) -> Term:
        return self.written(resolve(shape, self.resolved))

    def written(self, shape: Shape) -> Term:
        """The term of a shape in normal form, which `resolved` keeps alive."""
        if isinstance(shape, Variable):
            return self.leaves.setdefault(shape, Axis("", shape.size, shape.fixed or "no tensor holds it"))
        if id(shape) not in self.known:
            inner = tuple(self.written(part) for part in shape.of)
            kind = Product if isinstance(shape, Factors) else Concat
            self.known[id(shape)] = self.made.setdefault((kind, tuple(map(id, inner))), kind(inner))
        return self.known[id(shape)]

    def terms(self, dims: Dims) -> tuple[Term, ...]:
        return tuple(self.term(dim) for dim in dims)


def _factors(of: Sequence[Shape]) -> Shape:
    return Factors(tuple(of))


def _product(of: Sequence[Term]) -> Term:
    return Product(tuple(of))


def _concat(of: Sequence[Term]) -> Term:
    return Concat(tuple(of))


def _parts(of: Sequence[Shape]) -> Shape:
    return Parts(tuple(of))


def _module(tensor: str) -> str:
    path, _, attribute = tensor.rpartition(".")
    return path if path and attribute in _OWN_NAMES else tensor


def _tensors(result: Any) -> list[Dims]:
    if isinstance(result, tuple):
        return [result]
    return [dims for dims in result if isinstance(dims, tuple)] if isinstance(result, list) else []


def _used(node: fx.Node, result: Any) -> tuple[Any, Any]:
    """What a rule gave, and the example; of several tensors those that are used: PyTorch 2.8 is wrong about states."""
    value = node.meta.get("val")
    if isinstance(value, list | tuple) and isinstance(result, list | tuple) and len(value) == len(result):
        taken = {one.args[1] for one in node.users if one.target is operator.getitem and one.users}
        whole = any(one.target is not operator.getitem for one in node.users)
        places = [place for place in range(len(value)) if whole or place in taken]
        return [result[place] for place in places], [value[place] for place in places]
    return result, value


def _fits(result: Any, value: Any) -> bool:
    """Whether the dimensions a rule gave have the sizes of the example."""
    if isinstance(value, Tensor):
        return isinstance(result, tuple) and [measure(dim) for dim in result] == [int(size) for size in value.shape]
    if isinstance(value, list | tuple):
        return isinstance(result, list | tuple) and all(map(_fits, result, value))
    return True


_TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_NO_SIZES = {0.0, math.inf, -math.inf, *(bound for t in _TYPES for bound in (torch.finfo(t).min, torch.finfo(t).max))}
"""Broken numbers that stand for nothing, or for as much as there can be."""


def _scalars(call: Call) -> tuple[float, ...]:
    """The numbers that an operator computes with or fills a tensor with; sizes and positions are not among them."""
    if torch.Tag.pointwise in getattr(call.node.target, "tags", ()):
        values = list(call.arguments.values())
    else:
        values = [call.arguments.get(name) for name in ("scale", "fill_value", "s", "value", "alpha", "beta")]
    return tuple(v for v in values if isinstance(v, int | float) and not isinstance(v, bool))
