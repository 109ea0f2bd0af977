"""One call of an operator, as its rule sees it: arguments by name, dimensions as shapes, and what may be said."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import fx

from metaprune.graph.provenance import Combined, Number, Record
from metaprune.graph.unify import UNIT, Shape, Variable, fix, measure, unify

__all__ = ["MADE", "RULES", "Call", "Dims", "constants", "is_layout", "rule", "where"]

Dims = tuple[Shape, ...]
"""One shape per dimension of a tensor."""

Rule = Callable[["Call"], Any]
Kind = TypeVar("Kind", bound=Callable[["Call"], Any])

RULES: dict[str, Rule] = {}
"""Operator name (as `aten.conv2d`, without overload or trailing underscore) -> its rule."""

_MOST_DEEP = 4  # operators in a row whose results nobody reads
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')

MADE = "its size is made by the code or by the example inputs"


def rule(*operators: str) -> Callable[[Kind], Kind]:
    """Register the rule of one or several operators of the `aten` namespace."""

    def register(function: Kind) -> Kind:
        for operator in operators:
            if operator in RULES:
                raise KeyError(f"operator {operator} has two rules")
            RULES[operator] = function
        return function

    return register


def is_layout(operator: str) -> bool:
    """Whether an operator only moves, splits, joins and picks."""
    return getattr(RULES.get(operator), "__module__", "").endswith((".layout", ".picking"))


def _unused(node: fx.Node, deep: int) -> bool:
    if node.op != "call_function" or getattr(getattr(node.target, "_schema", None), "is_mutable", False):
        return False
    return all(deep > 0 and _unused(user, deep - 1) for user in node.users)


def constants(sizes: Sequence[int], reason: str = MADE) -> Dims:
    """Dimensions that are nobody's channels."""
    return tuple(UNIT if size == 1 else Variable(int(size), reason) for size in sizes)


def where(node: fx.Node, record: Record | None) -> str:
    """File and line of the innermost code that made a node and is not PyTorch's own."""
    if record is not None:
        return record.where
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    return f"{frames[-1]['file']}:{frames[-1]['line']}" if frames else node.name


def named_arguments(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What an operator is given, by the names of its schema, defaults included; nothing where it has no schema."""
    schema = getattr(target, "_schema", None)
    named: dict[str, Any] = {}
    for place, argument in enumerate(schema.arguments if schema is not None else ()):
        default = argument.default_value if argument.has_default_value() else None
        named[argument.name] = kwargs.get(argument.name, args[place] if place < len(args) else default)
    return named


@dataclass
class Call:
    """A node of the exported program with its arguments bound to the operator's schema.

    Attributes:
        name: The operator, as `aten.conv2d`.
        arguments: Every argument by its schema name, defaults filled in; tensors are `fx.Node`s.
        dims: The dimensions of every value so far.
        path: The module that called, as `layer1.0`.
        owner: For each parameter or buffer node, its qualified name.
        values: For each node that is a tensor of one entry made of constants alone, that entry.
        macs: Products of dimensions whose sizes, multiplied and summed, are its multiply-accumulates.
        reads: For each tensor argument, the dimensions read across channels (summed or normalised over).
        numbers: (qualified name of the tensor's module or the caller's, attribute) -> the dimension it must equal.
        normalised: Dimensions, besides those in `reads`, in which zeros are not as good as nothing (0 / 0).
        literal: Whether sizes of axes stand in its arguments as numbers, and the rule cannot say which is which.
        sizes: Dimensions whose size stood in the call as a number, with where that number comes from (None: unknown).
        record: The call of the network's code that it is part of.
        scale: The dimension whose size the operator turns into a scale, 1 / sqrt(size), on its first argument.
        sums: For each factor of its products, beyond what `reads` says, the dimensions that are summed over, with what
            is summed of each: the columns of a weight; of the channels of a grouped convolution not its groups.
        apart: Whether each of its weights has a product of its own, with what the call itself computes or is given.
    """

    node: fx.Node
    name: str
    arguments: dict[str, Any]
    dims: dict[fx.Node, Any]
    path: str
    owner: dict[fx.Node, str]
    values: Mapping[fx.Node, float] = field(default_factory=dict)
    macs: list[Dims] = field(default_factory=list)
    reads: dict[str, tuple[int, ...]] = field(default_factory=dict)
    numbers: dict[tuple[str, str], Shape] = field(default_factory=dict)
    normalised: list[Shape] = field(default_factory=list)
    literal: bool = False
    sizes: list[tuple[Shape, Number | None]] = field(default_factory=list)
    record: Record | None = None
    scale: Shape | None = None
    sums: dict[str, dict[int, Shape]] = field(default_factory=dict)
    apart: bool = False

    def __getitem__(self, argument: str) -> Any:
        return self.arguments[argument]

    def get(self, argument: str, default: Any = None) -> Any:
        """The argument, or `default` where this overload has none or it is None."""
        value = self.arguments.get(argument)
        return default if value is None else value

    def tensor(self, argument: str) -> Dims:
        """The dimensions of a tensor argument.

        Raises:
            LookupError: The argument is not a tensor that was seen before.
        """
        return self.of(self.arguments[argument])

    def of(self, value: Any) -> Dims:
        """The dimensions of a value that stands among the arguments."""
        dims = self.dims.get(value) if isinstance(value, fx.Node) else None
        if not isinstance(dims, tuple):
            raise LookupError(f"{value!r} is no tensor")
        return dims

    def optional(self, argument: str) -> Dims | None:
        """As `tensor`, or None where the argument was not given."""
        return None if self.arguments.get(argument) is None else self.tensor(argument)

    @property
    def where(self) -> str:
        """File and line of the code that made it."""
        return where(self.node, self.record)

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the (only) output, in the example."""
        return tuple(int(size) for size in self.node.meta["val"].shape)

    @property
    def unused(self) -> bool:
        """Whether nobody reads its result but for its shape, and it writes to no operand: then it says nothing."""
        return _unused(self.node, _MOST_DEEP)

    def fix(self, dim: Shape, reason: str) -> None:
        """Forbid to cut a dimension, for a reason that is told with the line of code."""
        if not self.unused:
            fix(dim, f"{self.where}: {reason}")

    def operands(self) -> list[Dims]:
        """The dimensions of every tensor argument, lists of tensors included."""
        return [dims for node in self.node.all_input_nodes if isinstance(dims := self.dims.get(node), tuple)]

    def dim(self, argument: str, rank: int, default: int | None = None) -> int:
        """An argument that names a dimension, counted from the left."""
        return int(self.get(argument, default)) % rank

    def affine(self, channel: Shape, *arguments: str) -> None:
        """Parameters or statistics with one entry per channel."""
        for argument in arguments:
            if (dims := self.optional(argument)) is not None and measure(dims[0]) == measure(channel):
                unify(dims[0], channel)

    @property
    def summed(self) -> dict[str, dict[int, Shape]]:
        """For each factor of its products the dimensions that are summed over, with what is summed of each."""
        if not self.macs:
            return {}
        read = {name: {dim: self.argument(name)[dim] for dim in over} for name, over in self.reads.items() if over}
        return {name: read.get(name, {}) | self.sums.get(name, {}) for name in {**read, **self.sums}}

    def argument(self, name: str) -> Dims:
        """The dimensions of a tensor argument, or of one in a list of tensors, as `params.2`."""
        return self.of(self.given(name))

    def given(self, name: str) -> Any:
        """The value at an argument, or at a place of a list, as `params.2`."""
        top, _, inner = name.partition(".")
        return self.arguments[top][int(inner)] if inner else self.arguments[top]

    def number(self, argument: str | None, **attributes: Shape) -> None:
        """Attributes of the module that holds the tensor `argument` (or of the caller) that equal a dimension."""
        node = self.arguments.get(argument) if argument else None
        if node is not None and node not in self.owner:
            return
        path = self.owner[node].rpartition(".")[0] if node is not None else self.path
        for attribute, shape in attributes.items():
            self.numbers[path, attribute] = shape

    def size(self, dim: Shape, argument: str, place: int | None = None) -> None:
        """The number at an argument (or at `place` in its list) is the size of a dimension; -1 leaves it open.

        A negative number is the size counted from the end.
        """
        given = self.arguments.get(argument)
        value = given if place is None else given[place]  # type: ignore[index]
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) != measure(dim) or value in (-1, 1):
            return
        number = self.number_at(argument, place, value)
        if value < 0 and number is not None:
            number = -number if isinstance(number, int) else Combined("-", 0, number)
        self.sizes.append((dim, number))

    def number_at(self, argument: str, place: int | None, value: int) -> Number | None:
        """Where the number at an argument comes from, or None where that cannot be told."""
        if self.record is None:
            return None
        others: list[int] = []
        position = 0
        for name, given in self.arguments.items():
            for index, entry in enumerate(given if isinstance(given, list | tuple) else [given]):
                if name == argument and index == (place or 0):
                    position = len(others)
                if isinstance(entry, int) and not isinstance(entry, bool):
                    others.append(entry)
        return self.record.number(value, position, others)

    def unknown(self, reason: str) -> Any:
        """Fix every axis that the call touches; outputs are nobody's channels. Never a guess."""
        reason = f"{self.where}: {reason}"
        for dims in [] if self.unused else self.operands():
            for dim in dims:
                fix(dim, reason)
        values = self.node.meta.get("val")
        several = values if isinstance(values, list | tuple) else [values]
        result = [constants(value.shape, reason) if isinstance(value, torch.Tensor) else None for value in several]
        return result if several is values else result[0]
