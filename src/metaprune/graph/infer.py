"""Dimension inference: walk the exported program once and unify what the operators say must be equal."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from metaprune.graph.aliases import is_pointwise, one_name
from metaprune.graph.attributes import held, is_pytorchs, modules_by_name
from metaprune.graph.call import Call, Dims, constants, is_layout, named_arguments, where
from metaprune.graph.capture import Captured, capture
from metaprune.graph.errors import TraceError
from metaprune.graph.flow import sources, wrapped
from metaprune.graph.graph import ChannelGraph, Operator, Size, Tie
from metaprune.graph.literals import digests, single_values, tables
from metaprune.graph.provenance import Combined, Extent, Number, Record, Tagged, call_of
from metaprune.graph.rules import RULES
from metaprune.graph.rules.elementwise import pointwise
from metaprune.graph.tensors import named_tensors
from metaprune.graph.term import Axis, Concat, Product, Term, fold
from metaprune.graph.unify import (
    UNIT,
    Factors,
    Irreconcilable,
    Parts,
    Shape,
    Variable,
    fix,
    measure,
    resolve,
    unify,
    variables,
)

__all__ = ["Inference", "Tie", "infer", "read"]

KERNEL = "it is a kernel's extent"
_OWN_NAMES = {"weight", "bias"}


@dataclass
class Inference:
    """A channel graph together with the program it was read from.

    Attributes:
        graph: The channel graph.
        program: The exported program.
        dims: For each node of the program its terms (a tuple per tensor).
        reads: For each node the dimensions that it reads across, per tensor argument.
        nodes: The nodes of the graph's operators, in the same order.
        owner: For each node that is a parameter or buffer, its qualified name.
    """

    graph: ChannelGraph
    program: torch.export.ExportedProgram
    dims: dict[fx.Node, Any]
    reads: dict[fx.Node, dict[str, tuple[int, ...]]]
    nodes: list[fx.Node]
    owner: dict[fx.Node, str]


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
    return read(model, capture(model, args, kwargs, recorded, training), ties)


def read(model: nn.Module, captured: Captured, ties: Sequence[Sequence[Tie]] = ()) -> Inference:
    """Infer the channel graph from a captured program.

    Args:
        model: The network that was captured.
        captured: From `capture`.
        ties: Pairs of terms that become one, in stages: those of a stage are over the axes that there are after the
            stages before it. A pair that cannot be reconciled is fixed.
    """
    walk = _Walk(model, captured.program, captured.records, captured.floats)
    walk.run(captured.program.graph_module, walk.inputs())
    for stage in ties:
        walk.tie(stage)
    return walk.freeze(captured.args, captured.kwargs, tuple(map(tuple, ties)))


@dataclass
class _Walk:
    model: nn.Module
    program: torch.export.ExportedProgram
    records: Sequence[Record]
    floats: Set[float]
    made: dict[int, fx.Node] = field(default_factory=dict)
    dims: dict[fx.Node, Any] = field(default_factory=dict)
    owner: dict[fx.Node, str] = field(default_factory=dict)
    calls: list[tuple[Call, list[Dims]]] = field(default_factory=list)
    given: dict[str, Dims] = field(default_factory=dict)
    shapes: dict[str, Dims] = field(default_factory=dict)
    tables: dict[fx.Node, str] = field(default_factory=dict)
    singles: dict[fx.Node, float] = field(default_factory=dict)

    def inputs(self) -> list[Dims]:
        """The dimensions of the program's placeholders; tied tensors share theirs."""
        by_identity: dict[int, Dims] = {}
        for name, tensor in named_tensors(self.model).items():
            fresh = tuple(UNIT if size == 1 else Variable(size) for size in tensor.shape)
            self.shapes[name] = by_identity.setdefault(id(tensor), fresh)
        self.tables, self.singles = tables(self.model, self.program), single_values(self.program)
        result: list[Dims] = []
        placeholders = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, self.program.graph_signature.input_specs, strict=True):
            value = node.meta.get("val")
            sizes = value.shape if isinstance(value, Tensor) else ()
            if spec.kind in {InputKind.PARAMETER, InputKind.BUFFER} and spec.target in self.shapes:
                self.owner[node] = str(spec.target)
                result.append(self.shapes[str(spec.target)])
            elif spec.kind == InputKind.USER_INPUT:
                self.given[node.name] = constants(sizes, f"it is a size of the input {node.name!r}")
                result.append(self.given[node.name])
            elif node in self.tables:
                result.append(tuple(Variable(size) for size in sizes))
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
                    for value in node.all_input_nodes:
                        for dim in self.dims.get(value) or ():
                            fix(dim, "it is a size of the output")
                return result
        return None

    def call(self, module: fx.GraphModule, node: fx.Node) -> Any:
        """Apply the rule of one operator; where there is none, or it does not hold, fix what it touches."""
        if node.target is operator.getitem:
            source = self.dims.get(node.args[0])  # type: ignore[arg-type]
            return source[node.args[1]] if source is not None else None
        if (body := wrapped(node)) is not None:
            operands = [self.dims.get(a) for a in node.args[node.args.index(body) + 1 :] if isinstance(a, fx.Node)]
            result = self.run(getattr(module, str(body.target)), operands)
            return list(result) if isinstance(node.meta.get("val"), list | tuple) else result
        call = self.bind(node)
        if (index := call_of(node.meta.get("stack_trace"))) is not None and index < len(self.records):
            call.record = self.records[index]
            self.made[index] = node
        for value in pytree.tree_leaves(node.meta.get("val")):
            if isinstance(value, Tensor) and not all(isinstance(size, int) for size in value.shape):
                raise TraceError(f"trace: at {call.where} ({call.name}) a size depends on the data; it must not")
        rule = RULES.get(call.name)
        if rule is None and is_pointwise(node.target):
            rule = pointwise
        try:
            result = rule(call) if rule else call.unknown(f"the operator {call.name} is not understood")
        except (Irreconcilable, LookupError, ValueError, TypeError) as error:
            result = call.unknown(f"{call.name} is not understood: {error}")
        if not _fits(result, node.meta.get("val")):
            raise TraceError(f"trace: the rule of {call.name} does not fit its output at {call.where}; report this")
        self.calls.append((call, _tensors(result)))
        return result

    def bind(self, node: fx.Node) -> Call:
        """Name the arguments after the operator's schema."""
        arguments = named_arguments(node.target, node.args, node.kwargs)
        name = getattr(node.target, "overloadpacket", node.target)
        stack = node.meta.get("nn_module_stack") or {}
        path = next(reversed(stack.values()))[0] if stack else ""
        return Call(node, one_name(str(name).rstrip("_")), arguments, self.dims, path, self.owner)

    def freeze(self, args: tuple[Any, ...], kwargs: dict[str, Any], ties: tuple[tuple[Tie, ...], ...]) -> Inference:
        """Turn what is left of the variables into named axes, and shapes into terms."""
        self.fix_unread()
        axes = self.name()
        leaves: dict[Variable, Axis] = axes | {}

        known: dict[int, tuple[Shape, Term]] = {}

        def term(shape: Shape) -> Term:
            if id(shape) not in known:
                known[id(shape)] = shape, written(resolve(shape))
            return known[id(shape)][1]

        def written(shape: Shape) -> Term:
            if isinstance(shape, Variable):
                return leaves.setdefault(shape, Axis("", shape.size, shape.fixed or "no tensor holds it"))
            inner = tuple(written(part) for part in shape.of)
            return Product(inner) if isinstance(shape, Factors) else Concat(inner)

        def terms(dims: Dims) -> tuple[Term, ...]:
            return tuple(term(dim) for dim in dims)

        modules = modules_by_name(self.model)
        first = {module: path for path, module in self.model.named_modules()}
        numbers: dict[tuple[str, str], Term] = {}
        operators: list[Operator] = []
        nodes = [call.node for call, _ in self.calls]
        flows, returned = sources(self.program.graph_module, self.placeholders(), nodes)
        for (call, outputs), flow in zip(self.calls, flows, strict=True):
            exact = {
                (first.get(modules[path], path), name): dim
                for (path, name), dim in call.numbers.items()
                if is_pytorchs(modules.get(path)) and held(modules, path, name) == measure(dim)
            }
            numbers |= {key: term(dim) for key, dim in exact.items()}
            operators.append(
                Operator(
                    name=call.name,
                    path=call.path,
                    layer=self.layer(call),
                    where=call.where,
                    outputs=tuple(terms(dims) for dims in outputs),
                    operands=flow,
                    macs=tuple(terms(dims) for dims in call.macs),
                    scalars=self.scalars(call),
                    computed=any(self.is_computed(call, scalar) for scalar in self.scalars(call)),
                    literal=call.literal and not exact,
                    sizes=tuple(
                        Size(term(dim), self.sourced(number, term))
                        for dim, number in call.sizes
                        if not isinstance(number, int) or not all(variable.fixed for variable in variables(dim))
                    ),
                    scale=None if call.scale is None else term(call.scale),
                    statistics=()
                    if call.macs
                    else terms(
                        (*(call.tensor(a)[i] for a, over in call.reads.items() for i in over), *call.normalised)
                    ),
                )
            )
        parameters = dict(self.model.named_parameters())
        inputs = [value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        graph = ChannelGraph(
            axes={axis.name: axis for axis in axes.values()},
            tensors={name: terms(dims) for name, dims in self.shapes.items()},
            parameters=tuple(parameters),
            operators=tuple(operators),
            numbers=numbers,
            args=args,
            kwargs=kwargs,
            batch=inputs[0].shape[0] if inputs and inputs[0].ndim else 1,
            ties=ties,
            tables={name: terms(self.dims[node]) for node, name in self.tables.items()},
            constants=digests(self.program, {*self.tables, *self.singles}, self.place),
            returned=returned,
        )
        dims = {
            node: tuple(map(terms, value)) if isinstance(value, list) else terms(value)
            for node, value in self.dims.items()
            if value is not None
        }
        reads = {call.node: call.reads for call, _ in self.calls}
        return Inference(graph, self.program, dims, reads, nodes, self.owner)

    def is_computed(self, call: Call, scalar: float) -> bool:
        """Whether the code may have computed a number from a size; what is held or written down was not."""
        if isinstance(scalar, int):
            given = call.record.numbers if call.record is not None else ()
            return call.record is None or any(isinstance(n, Tagged) for n in given if n == scalar)
        return scalar not in self.floats and scalar not in _NO_SIZES

    def scalars(self, call: Call) -> tuple[float, ...]:
        """The numbers that a call computes with, and the values of tensors among its operands that are made of some."""
        if call.node in self.singles:
            return ()
        made = (self.singles[node] for node in call.node.all_input_nodes if node in self.singles)
        return (*_scalars(call), *made)

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

    def fix_unread(self) -> None:
        """What is only moved about, or held by buffers alone, was not read: cutting it could not be checked."""
        read: set[Variable] = set()
        for call, outputs in self.calls:
            if not is_layout(call.name):
                read |= {
                    variable for dims in (*outputs, *call.operands()) for dim in dims for variable in variables(dim)
                }
        trained = {
            variable
            for name, _ in self.model.named_parameters()
            for dim in self.shapes[name]
            for variable in variables(dim)
        }
        for dims in self.shapes.values():
            for dim in dims:
                for variable in variables(dim):
                    if variable not in read:
                        variable.fixed = variable.fixed or "the traced forward pass does not read it"
                    elif variable not in trained:
                        variable.fixed = variable.fixed or "no parameter holds it"

    def layer(self, call: Call) -> str:
        """The module that holds the weight of a call, or the caller."""
        for value in call.arguments.values():
            if isinstance(value, fx.Node) and value in self.owner:
                return _module(self.owner[value])
        return call.path

    def name(self) -> dict[Variable, Axis]:
        """Name variables after the first tensor in order of execution that holds them; collect their members."""
        members: dict[Variable, list[str]] = {}
        for tensor, dims in self.shapes.items():
            for position, dim in enumerate(dims):
                for variable in dict.fromkeys(variables(dim)):
                    members.setdefault(variable, []).append(f"{tensor}:{position}")
        order = dict.fromkeys(
            self.owner[node] for call, _ in self.calls for node in call.node.all_input_nodes if node in self.owner
        )
        axes: dict[Variable, Axis] = {}
        for given, dims in self.given.items():
            for position, dim in enumerate(dims):
                for variable in members.keys() & set(variables(dim)):
                    axes[variable] = Axis(
                        f"{given}:{position}", variable.size, variable.fixed, tuple(members[variable])
                    )
        for tensor in order | dict.fromkeys(self.shapes):
            held = dict.fromkeys(v for dim in self.shapes[tensor] for v in variables(dim) if v.fixed != KERNEL)
            unnamed = [variable for variable in held if variable not in axes]
            taken = {axis.name for axis in axes.values()}
            for index, variable in enumerate(unnamed):
                name = _module(tensor) if len(unnamed) == 1 else f"{_module(tensor)}[{index}]"
                name = name if name not in taken else f"{tensor}[{index}]"
                axes[variable] = Axis(name, variable.size, variable.fixed, tuple(members[variable]))
        return axes


def _factors(of: Sequence[Shape]) -> Shape:
    return Factors(tuple(of))


def _parts(of: Sequence[Shape]) -> Shape:
    return Parts(tuple(of))


def _module(tensor: str) -> str:
    path, _, attribute = tensor.rpartition(".")
    return path if path and attribute in _OWN_NAMES else tensor


def _tensors(result: Any) -> list[Dims]:
    if isinstance(result, tuple):
        return [result]
    return [dims for dims in result if isinstance(dims, tuple)] if isinstance(result, list) else []


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
