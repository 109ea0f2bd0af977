"""Signatures: what the time of an operator depends on, with the sizes that pruning changes left open.

Two calls with one signature take the same time at the same sizes, wherever in a network (or in which one) they stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from metaprune.graph.call import named_arguments
from metaprune.graph.draws import decides
from metaprune.graph.flow import wrapped
from metaprune.graph.graph import ChannelGraph, Operator
from metaprune.graph.infer import Inference
from metaprune.graph.tensors import channels_last as in_channels_last
from metaprune.graph.term import Axis, Concat, Product, Term, axes_of
from metaprune.graph.term import size as entries

__all__ = ["Operand", "Piece", "Signature", "Size", "pieces", "sized"]

Size = int | tuple[Any, ...]
"""A number, ("s", i) for the i-th open size, or ("*" | "+" | "/" | "-", size, size …) of sizes."""

_MOST_OPEN = 3
"""An operator with more open sizes is priced by what it moves: a table over them would take too long to measure."""

_MOST_MULTIPLIED = 4
"""The same of one that multiplies, whose time is in no proportion to what it moves."""

_DEPENDS_ON_DATA = 100_003
"""Sizes from here on stand for one that depends on the data (`graph.extents`): what it takes is not known."""

_COPIES = {"aten.reshape", "aten.flatten", "aten.unflatten", "aten.contiguous", "aten.view_as"}


@dataclass(frozen=True)
class Operand:
    """A tensor that an operator is given.

    Attributes:
        dims: Its sizes.
        dtype: As `float32`.
        order: Its dimensions as they lie in memory, the slowest first.
        learned: Whether it is a parameter or buffer of the network.
    """

    dims: tuple[Size, ...]
    dtype: str
    order: tuple[int, ...]
    learned: bool = False

    def make(self, sizes: Sequence[int], device: torch.device) -> Tensor:
        """A tensor like it, at these open sizes."""
        shape = [sized(dim, sizes) for dim in self.dims]
        dtype = getattr(torch, self.dtype)
        value = 0.5 if dtype.is_floating_point or dtype.is_complex else int(dtype == torch.bool)
        lying = torch.full([shape[dim] for dim in self.order], value, dtype=dtype, device=device)
        return lying.permute([self.order.index(dim) for dim in range(len(shape))])


@dataclass(frozen=True)
class _Number:
    """A size among the arguments."""

    size: Size


@dataclass(frozen=True)
class Signature:
    """A call with its sizes left open.

    Attributes:
        name: The operator, as `aten.conv2d.default`.
        target: What is called.
        arguments: By name, in the order of the schema; tensors are `Operand`s.
        full: Each open size in the whole network.
        quanta: Each open size is a multiple of this.
        smooth: Whether its time has no steps in the sizes: it only moves entries.
    """

    name: str
    target: Callable[..., Any]
    arguments: tuple[tuple[str, Any], ...]
    full: tuple[int, ...]
    quanta: tuple[int, ...]
    smooth: bool = False

    @property
    def key(self) -> str:
        """The same for the same call in any process."""
        return f"{self.name} {self.arguments!r} {self.full} {self.quanta}".replace("\n", " ")

    @property
    def operands(self) -> list[Operand]:
        """The tensors among the arguments."""
        return [leaf for leaf in pytree.tree_leaves([a for _, a in self.arguments]) if isinstance(leaf, Operand)]

    @property
    def copied(self) -> Signature:
        """A copy of all its operands in its place."""
        return replace(self, name="copies", target=_copies, arguments=(("tensors", self.operands),), smooth=True)

    def call(self, sizes: Sequence[int], device: torch.device) -> Callable[[], Any]:
        """The call at these open sizes, with tensors of its own."""

        def made(leaf: Any) -> Any:
            if isinstance(leaf, Operand):
                return leaf.make(sizes, device)
            return sized(leaf.size, sizes) if isinstance(leaf, _Number) else leaf

        given = {name: pytree.tree_map(made, argument) for name, argument in self.arguments}
        schema = getattr(self.target, "_schema", None)
        keywords = {a.name for a in schema.arguments if a.kwarg_only} if schema is not None else set()
        args = [value for name, value in given.items() if name not in keywords]
        named = {name: value for name, value in given.items() if name in keywords}
        return lambda: self.target(*args, **named)


@dataclass(frozen=True)
class Piece:
    """An operator of a network that takes time.

    Attributes:
        operator: Which.
        signature: What its time depends on.
        terms: What each open size of the signature is in this network.
    """

    operator: Operator
    signature: Signature
    terms: tuple[Term, ...]


def sized(size: Size, sizes: Sequence[int]) -> int:
    """A size in numbers, given the open ones."""
    if isinstance(size, int):
        return size
    sign, *of = size
    if sign == "s":
        return sizes[of[0]]
    numbers = [sized(inner, sizes) for inner in of]
    if sign == "*":
        return math.prod(numbers)
    if sign == "+":
        return sum(numbers)
    return numbers[0] // numbers[1] if sign == "/" else numbers[0] - numbers[1]


def pieces(
    graph: ChannelGraph, inference: Inference, *, device: torch.device, precision: str, channels_last: bool
) -> list[Piece]:
    """The operators of a pass that take time, in order of execution.

    Args:
        graph: Which axes are free.
        inference: Of the pass.
        device: Where the network runs.
        precision: "32-true" or "bf16-mixed".
        channels_last: Whether images and filters lie as (N, H, W, C).
    """
    learned = set(inference.owner)
    values = _Rehearsal(inference, device, precision, channels_last).run()
    found = []
    for operator, node in zip(inference.operators, inference.nodes, strict=True):
        piece = _Reading(graph, inference, values, learned, operator, node).piece()
        if piece is not None:
            found.append(piece)
    return found


class _Rehearsal:
    """Runs a program on tensors without values, to learn in which types and layouts the operators meet them."""

    def __init__(self, inference: Inference, device: torch.device, precision: str, channels_last: bool) -> None:
        self.inference = inference
        self.device = device
        self.half = precision == "bf16-mixed"
        self.channels_last = channels_last
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.values: dict[fx.Node, Any] = {}

    def run(self) -> dict[fx.Node, Any]:
        """For each node the tensor without values that it returns."""
        with self.mode, torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            module = self.inference.program.graph_module
            given = [node for node in module.graph.nodes if node.op == "placeholder"]
            self.walk(module, [self.fresh(node.meta.get("val")) for node in given])
        return self.values

    def fresh(self, value: Any) -> Any:
        """The like of what a program was given or noted."""

        def leaf(tensor: Tensor) -> Tensor:
            empty = torch.empty([int(size) for size in tensor.shape], dtype=tensor.dtype, device=self.device)
            return in_channels_last(empty) if self.channels_last else empty

        return pytree.tree_map_only(Tensor, leaf, value)

    def walk(self, module: fx.GraphModule, inputs: Sequence[Any]) -> Any:
        pending = iter(inputs)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = next(pending)
            elif node.op == "get_attr":
                held = getattr(module, str(node.target), None)
                self.values[node] = self.fresh(held) if isinstance(held, Tensor) else held
            elif node.op == "output":
                return fx.map_arg(node.args[0], lambda inner: self.values.get(inner))
            elif decides(node):  # by values, which there are none of
                self.values[node] = None
            elif (body := wrapped(node)) is not None:
                given = node.args[node.args.index(body) + 1 :]
                inner = fx.map_arg(given, lambda inner: self.values.get(inner))
                self.values[node] = self.walk(getattr(module, str(body.target)), list(inner))
            else:
                self.values[node] = self.call(node)
        return None

    def call(self, node: fx.Node) -> Any:
        args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), lambda inner: self.values.get(inner))
        try:
            return node.target(*args, **kwargs)  # type: ignore[operator]
        except Exception:  # what it returns hangs on values, or on another device: as it was when it was exported
            return self.fresh(node.meta.get("val"))


@dataclass
class _Reading:
    """One operator being read."""

    graph: ChannelGraph
    inference: Inference
    values: Mapping[fx.Node, Any]
    learned: set[fx.Node]
    operator: Operator
    node: fx.Node

    def piece(self) -> Piece | None:
        """What it is; None where it takes no time, or nobody knows what it takes."""
        given = [node for node in self.node.all_input_nodes if isinstance(self.values.get(node), Tensor)]
        if not given or self.is_a_view(given) or any(self.depends_on_data(node) for node in [*given, self.node]):
            return None
        terms = self.open_terms(given)
        if self.operator.name == "aten.cat" and len(terms) > 1:
            return self.joined(given)
        symbols = terms if _disjoint(self.free(term) for term in terms) else self.factors(terms)
        if len(symbols) > (_MOST_MULTIPLIED if self.operator.macs else _MOST_OPEN):
            return self.moved()
        return self.called(symbols)

    def is_a_view(self, given: Sequence[fx.Node]) -> bool:
        """Whether it only looks at one of its operands."""
        schema = getattr(self.node.target, "_schema", None)
        if schema is not None and schema.is_mutable:
            return False
        outputs = [leaf for leaf in pytree.tree_leaves(self.values.get(self.node)) if isinstance(leaf, Tensor)]
        memory = {_memory(self.values[node]) for node in given}
        return all(_memory(output) in memory for output in outputs)

    def depends_on_data(self, node: fx.Node) -> bool:
        leaves = pytree.tree_leaves(self.values.get(node))
        return any(size >= _DEPENDS_ON_DATA and self.is_nobodys(node, dim) for dim, size in _sizes(leaves))

    def is_nobodys(self, node: fx.Node, dim: int) -> bool:
        terms = self.terms(node)
        return dim >= len(terms) or not any(axis.name for axis in axes_of(terms[dim]))

    def terms(self, node: fx.Node) -> tuple[Term, ...]:
        dims = self.inference.dims.get(node, ())
        return dims if not dims or not isinstance(dims[0], tuple) else ()

    def free(self, term: Term) -> frozenset[str]:
        return frozenset(axis.name for axis in axes_of(term) if self.graph.is_free(axis))

    def open_terms(self, given: Sequence[fx.Node]) -> list[Term]:
        """The dimensions of the operands that a cut may change."""
        return list(dict.fromkeys(term for node in given for term in self.terms(node) if self.free(term)))

    def factors(self, terms: Sequence[Term]) -> list[Term]:
        """What dimensions that share axes are made of: products of axes that always come together."""
        axes = dict.fromkeys(axis for term in terms for axis in axes_of(term) if self.graph.is_free(axis))
        inside = {axis: frozenset(i for i, term in enumerate(terms) if axis in set(axes_of(term))) for axis in axes}
        if any(not isinstance(part, Axis) for term in terms for part in _flat(term)):
            return list(axes)
        together: dict[frozenset[int], list[Term]] = {}
        for axis, places in inside.items():
            together.setdefault(places, []).append(axis)
        return [several[0] if len(several) == 1 else Product(tuple(several)) for several in together.values()]

    def size(self, term: Term, symbols: Sequence[Term]) -> Size:
        """A dimension in terms of the open sizes."""
        if term in symbols:
            return ("s", symbols.index(term))
        if not self.free(term):
            return entries(term)
        if isinstance(term, Axis):
            raise LookupError(f"{term.name} is no open size")
        if isinstance(term, Product) and (factored := self.factored(term, symbols)) is not None:
            return factored
        of = term.factors if isinstance(term, Product) else term.parts
        return ("*" if isinstance(term, Product) else "+", *[self.size(inner, symbols) for inner in of])

    def factored(self, term: Product, symbols: Sequence[Term]) -> Size | None:
        """A product in terms of products of axes that always come together."""
        factors = list(_flat(term))
        found: list[Size] = []
        for place, symbol in enumerate(symbols):
            several = list(_flat(symbol))
            if all(factor in factors for factor in several):
                found.append(("s", place))
                factors = [factor for factor in factors if factor not in several]
        if any(self.free(factor) for factor in factors):
            return None
        return ("*", math.prod(int(entries(factor)) for factor in factors), *found)

    def operand(self, node: fx.Node, symbols: Sequence[Term]) -> Operand:
        value = self.values[node]
        terms = self.terms(node)
        dims: list[Size] = [int(size) for size in value.shape]
        if len(terms) == len(dims):
            dims = [self.size(term, symbols) for term in terms]
        order = sorted(range(len(dims)), key=lambda dim: (-int(value.stride()[dim]), dim))
        return Operand(tuple(dims), str(value.dtype)[6:], tuple(order), node in self.learned)

    def called(self, symbols: Sequence[Term]) -> Piece | None:
        """The call itself, or where it copies only to have another shape, that copy."""
        target = self.node.target
        assert callable(target)
        arguments = named_arguments(target, self.node.args, self.node.kwargs)
        if self.operator.name in _COPIES or not arguments:
            target = torch.ops.aten.clone.default
            arguments = {"self": self.node.all_input_nodes[0], "memory_format": torch.contiguous_format}
        try:
            said = self.numbers(arguments, symbols)
            read = tuple((name, said.get(name, self.read(value, symbols))) for name, value in arguments.items())
        except LookupError:
            return self.moved()
        return self.written(f"{target}", target, read, symbols, smooth=not self.has_steps)

    @property
    def has_steps(self) -> bool:
        return bool(self.operator.macs or self.operator.statistics) or "norm" in self.operator.name

    def written(
        self,
        name: str,
        target: Callable[..., Any],
        arguments: tuple[tuple[str, Any], ...],
        symbols: Sequence[Term],
        smooth: bool,
    ) -> Piece:
        full = tuple(entries(term) for term in symbols)
        quanta = tuple(_quantum(term, self.graph) for term in symbols)
        return Piece(self.operator, Signature(name, target, arguments, full, quanta, smooth), tuple(symbols))

    def read(self, argument: Any, symbols: Sequence[Term]) -> Any:
        """An argument with operands in the place of nodes."""
        if isinstance(argument, fx.Node):
            value = self.values.get(argument)
            return self.operand(argument, symbols) if isinstance(value, Tensor) else value
        if isinstance(argument, list | tuple):
            return [self.read(entry, symbols) for entry in argument]
        return argument

    def numbers(self, arguments: Mapping[str, Any], symbols: Sequence[Term]) -> dict[str, Any]:
        """The arguments that are sizes, and so follow a cut."""
        found: dict[str, Any] = {}
        if arguments.get("groups", 1) not in (1, None):
            weight = self.terms(arguments["weight"])
            transposed = "transpose" in self.operator.name
            whole = self.operator.outputs[0][1] if transposed else self.terms(arguments["input"])[1]
            found["groups"] = _Number(("/", self.size(whole, symbols), self.size(weight[1], symbols)))
        if (shape := arguments.get("normalized_shape")) is not None:
            found["normalized_shape"] = [
                _Number(self.size(term, symbols)) for term in self.terms(arguments["input"])[-len(shape) :]
            ]
        return found

    def joined(self, given: Sequence[fx.Node]) -> Piece | None:
        """A concatenation of any number of tensors: its time is that of two halves as large together."""
        whole = self.operator.outputs[0]
        values = (self.values[node] for node in given)
        value = next((value for value in values if value.dim() == len(whole)), None)  # caches begin with a tensor of 0
        if value is None:
            return self.moved()
        along = int(named_arguments(self.node.target, self.node.args, self.node.kwargs).get("dim") or 0) % len(whole)
        symbols = list(dict.fromkeys(term for term in whole if self.free(term)))
        if len(symbols) > _MOST_OPEN or not _disjoint(self.free(term) for term in symbols):
            return self.moved()
        dims = [self.size(term, symbols) for term in whole]
        half: Size = ("/", dims[along], 2)
        rest: Size = ("-", dims[along], half)
        order = tuple(sorted(range(len(dims)), key=lambda dim: (-int(value.stride()[dim]), dim)))
        parts = [
            Operand((*dims[:along], part, *dims[along + 1 :]), str(value.dtype)[6:], order) for part in (half, rest)
        ]
        target = torch.ops.aten.cat.default
        return self.written(f"{target}", target, (("tensors", parts), ("dim", along)), symbols, smooth=True)

    def moved(self) -> Piece | None:
        """What is too involved to be measured takes as long as a copy of what it returns."""
        whole = max(self.operator.outputs, key=len, default=())
        values = [leaf for leaf in pytree.tree_leaves(self.values.get(self.node)) if isinstance(leaf, Tensor)]
        if not whole or not values:
            return None
        free = [term for term in whole if self.free(term)]
        symbols: list[Term] = [Product(tuple(free))] if len(free) > 1 else free
        fixed = math.prod(entries(term) for term in whole if not self.free(term))
        dims: tuple[Size, ...] = (fixed, ("s", 0)) if symbols else (fixed,)
        operand = Operand(dims, str(values[0].dtype)[6:], tuple(range(len(dims))))
        target = torch.ops.aten.clone.default
        return self.written(f"{target}", target, (("self", operand),), symbols, smooth=True)


def _flat(term: Term) -> Iterator[Term]:
    """The factors of a product, and of products inside it."""
    if isinstance(term, Product):
        for factor in term.factors:
            yield from _flat(factor)
    else:
        yield term


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


def _memory(value: Tensor) -> int:
    return int(value.untyped_storage()._cdata)


def _sizes(values: Sequence[Any]) -> Iterator[tuple[int, int]]:
    for value in values:
        if isinstance(value, FakeTensor):
            yield from ((dim, int(size)) for dim, size in enumerate(value.shape))


def _disjoint(sets: Iterator[frozenset[str]]) -> bool:
    several = list(sets)
    return sum(map(len, several)) == len(frozenset().union(*several))


def _quantum(term: Term, graph: ChannelGraph) -> int:
    """What every size that a cut can give a dimension is a multiple of."""
    if isinstance(term, Product):
        return math.prod(_quantum(factor, graph) for factor in term.factors)
    if isinstance(term, Concat):
        return math.gcd(*(_quantum(part, graph) for part in term.parts))
    return 1 if graph.is_free(term) else term.size
