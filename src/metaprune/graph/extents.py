"""Sizes that depend on the data: how many boxes are left, how many tokens an expert gets.

They are nobody's channels. In an exported program they are symbols; the inference wants numbers. So each symbol gets
one of its own, a large prime, which no other size is or divides. What it was on the example inputs is found by running
the program on them, and counts in the cost.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import Tensor, fx
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from metaprune.graph.draws import checks_a_draw

__all__ = ["is_about_sizes", "settle", "settled"]

_FIRST = 100_003
_SIZES = {
    "aten.sym_size",
    "aten.sym_numel",
    "aten.sym_stride",
    "aten.sym_storage_offset",
    "aten.sym_constrain_range",
    "aten.sym_constrain_range_for_size",
    "aten._assert_scalar",
}


def is_about_sizes(node: fx.Node) -> bool:
    """Whether an operator reckons with sizes, or checks them: it touches no tensor's entries."""
    name = str(getattr(node.target, "overloadpacket", node.target))
    home = getattr(node.target, "__module__", None)
    return (
        name in _SIZES
        or home in (operator.__name__, "_operator", math.__name__, builtins.__name__)
        or (name.startswith("<function sym_"))
    )


def settled(argument: Any) -> Any:
    """An argument of an operator with the numbers of its symbolic sizes in their places."""
    if isinstance(argument, fx.Node):
        value = argument.meta.get("val")
        return value if isinstance(value, int) and not isinstance(value, bool) else argument
    if isinstance(argument, list | tuple):
        return type(argument)(settled(entry) for entry in argument)
    return argument


def settle(
    program: torch.export.ExportedProgram, tensors: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[int, int]:
    """Give every symbolic size of a program a number, in the notes on its nodes; what it computes stays the same.

    Args:
        program: The program.
        tensors: Parameters and buffers to run it with.
        args: Example inputs.
        kwargs: Example inputs by name.

    Returns:
        For each such number, what the size was on the example inputs; nothing where no size depends on the data.
    """
    nodes = [node for graph in _graphs(program.graph_module) for node in graph.nodes]
    expressions = {e: None for node in nodes for e in _expressions(node.meta.get("val"))}
    if not expressions:
        return {}
    numbers: dict[sympy.Symbol, int] = {}
    last = _FIRST
    for symbol in (s for expression in expressions for s in sorted(expression.free_symbols, key=str)):
        if symbol not in numbers:
            numbers[symbol], last = last, int(sympy.nextprime(last))
    found = _Observer(program.graph_module).of(program, tensors, args, kwargs)
    for node in nodes:
        if any(True for _ in _expressions(node.meta.get("val"))):
            node.meta["val"] = _numbered(node.meta["val"], numbers)
    return {int(e.subs(numbers)): found.get(e, 1) for e in expressions}


def _graphs(module: fx.GraphModule) -> Iterator[fx.Graph]:
    for inner in module.modules():
        if isinstance(inner, fx.GraphModule):
            yield inner.graph


def _expressions(value: Any) -> Iterator[sympy.Expr]:
    """The symbolic sizes in what a node returns."""
    for leaf in pytree.tree_leaves(value):
        for size in leaf.shape if isinstance(leaf, Tensor) else [leaf]:
            if isinstance(size, torch.SymInt):
                yield size.node.expr


def _numbered(value: Any, numbers: Mapping[sympy.Symbol, int]) -> Any:
    def number(size: Any) -> int:
        return int(size.node.expr.subs(numbers)) if isinstance(size, torch.SymInt) else int(size)

    def leaf(one: Any) -> Any:
        if isinstance(one, Tensor):
            return torch.empty([number(size) for size in one.shape], dtype=one.dtype, device="meta")
        return number(one) if isinstance(one, torch.SymInt) else one

    return pytree.tree_map(leaf, value)


class _Observer(fx.Interpreter):
    """Runs a program and notes the values of its symbolic sizes."""

    def of(
        self,
        program: torch.export.ExportedProgram,
        tensors: Mapping[str, Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> dict[sympy.Expr, int]:
        """What each was; nothing where the program holds no values."""
        self.found: dict[sympy.Expr, int] = {}
        given = iter(pytree.tree_leaves((args, kwargs)))
        inputs = []
        for spec in program.graph_signature.input_specs:
            target = str(spec.target)
            if spec.kind == InputKind.USER_INPUT:
                inputs.append(next(given))
            else:
                inputs.append(tensors[target] if target in tensors else program.constants[target])
        if not any(isinstance(value, Tensor) and value.is_meta for value in inputs):
            with torch.no_grad():
                self.run(*(value.clone() if isinstance(value, Tensor) else value for value in inputs))
        return self.found

    def run_node(self, n: fx.Node) -> Any:
        """Run one operator and compare what its note says with what it returns.

        What the code decided by a draw is not checked: another number is drawn here.
        """
        if checks_a_draw(n):
            return None
        result = super().run_node(n)
        for noted, real in zip(pytree.tree_leaves(n.meta.get("val")), pytree.tree_leaves(result), strict=False):
            pairs = zip(noted.shape, real.shape, strict=True) if isinstance(noted, Tensor) else [(noted, real)]
            for size, value in pairs:
                if isinstance(size, torch.SymInt) and isinstance(value, int):
                    self.found.setdefault(size.node.expr, value)
        return result
