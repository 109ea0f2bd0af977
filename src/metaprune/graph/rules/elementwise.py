"""Elementwise operators: the operands' dimensions are equal; a broadcast dimension of size 1 says nothing."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from metaprune.graph.call import Call, Dims, constants, rule
from metaprune.graph.unify import UNIT, Shape, Variable, measure, resolve, unify

__all__ = ["broadcast", "pointwise"]


def broadcast(operands: Sequence[Dims], rank: int | None = None) -> Dims:
    """Line dimensions up from the right and make them equal."""
    rank = max((len(dims) for dims in operands), default=0) if rank is None else rank
    result: list[Shape] = []
    for position in range(-rank, 0):
        seen = [dims[position] for dims in operands if len(dims) >= -position and measure(dims[position]) != 1]
        for other in seen[1:]:
            unify(seen[0], other)
        result.append(resolve(seen[0]) if seen else UNIT)
    return tuple(result)


@rule(
    *("aten.dropout", "aten.feature_dropout", "aten.alpha_dropout", "aten.native_dropout", "aten.rrelu"),
    *("aten.contiguous", "aten.clone", "aten.detach", "aten.alias", "aten._to_copy", "aten.lift_fresh_copy"),
    *("aten.expand_as", "aten.masked_fill", "aten.softplus"),
    *(
        "aten.hardswish",
        "aten.hardsigmoid",
        "aten.hardtanh",
        "aten.relu6",
        "aten.leaky_relu",
        "aten.elu",
        "aten.selu",
    ),
    *("aten.celu", "aten.mish", "aten.silu", "aten.log_sigmoid", "aten.threshold", "aten.real", "aten.imag"),
    *("aten.complex", "aten.polar", "aten._conj", "aten.conj", "aten.resolve_conj", "aten.resolve_neg"),
    *("aten.lift_fresh", "aten._assert_tensor_metadata", "aten.bernoulli", "aten.detach_"),
    *("aten.rsub", "aten.floor_divide", "aten.isclose", "aten.isreal", "aten.poisson", "aten.binomial", "aten.data"),
    *(
        f"aten.special_{name}"
        for name in ("ndtr", "log1p", "erfc", "erfinv", "digamma", "psi", "gammaln", "i0", "xlogy", "logit", "sinc")
    ),
)
def pointwise(call: Call) -> Dims | None:
    """Also the rule of every operator that carries PyTorch's `pointwise` tag."""
    return broadcast(call.operands()) if call.node.meta.get("val") is not None else None


@rule(
    *("aten.to", "aten.type_as", "aten.zeros_like", "aten.ones_like", "aten.full_like", "aten.empty_like"),
    *("aten.rand_like", "aten.randn_like", "aten.randint_like", "aten.exponential", "aten.uniform"),
    *("aten.random", "aten.cauchy", "aten.geometric", "aten.log_normal", "aten.fill", "aten.zero", "aten.pin_memory"),
)
def like_the_first(call: Call) -> Dims:
    """The dimensions of the first operand; a second one only lends its type, or a number to fill with."""
    return call.tensor("self")


@rule("aten.broadcast_tensors")
def broadcast_tensors(call: Call) -> list[Dims]:
    """All of one shape."""
    operands = [call.of(node) for node in call["tensors"]]
    return [broadcast(operands)] * len(operands)


@rule("aten.__and", "aten.__or", "aten.__xor")
def bitwise(call: Call) -> object:
    """Of two tensors, as `pointwise`; a plain number may be made of a size, and would not be compared after a cut."""
    if isinstance(call.get("other"), int):
        return call.unknown(f"{call.name} with a number is not understood")
    return pointwise(call)


@rule("aten.prelu")
def prelu(call: Call) -> Dims:
    """One slope, or one per channel (dimension 1)."""
    dims, slopes = call.tensor("self"), call.tensor("weight")
    if measure(slopes[0]) > 1:
        unify(slopes[0], dims[1])
        call.number("weight", num_parameters=slopes[0])
    return dims


@rule(
    *("aten.zeros", "aten.ones", "aten.full", "aten.empty", "aten.scalar_tensor"),
    *("aten.new_zeros", "aten.new_ones", "aten.new_full", "aten.new_empty"),
)
def factory(call: Call) -> Dims:
    """Tensors filled with one number: any channel is like any other, but their sizes are in the code."""
    dims = tuple(UNIT if size == 1 else Variable(size) for size in call.shape)
    for place, dim in enumerate(dims):
        call.size(dim, "size", place)
    return dims


@rule(
    *("aten.arange", "aten.linspace", "aten.logspace", "aten.rand", "aten.randn", "aten.randint", "aten.randperm"),
    *("aten.normal", "aten.hann_window", "aten.hamming_window", "aten.tril_indices", "aten.triu_indices"),
)
def factory_ordered(call: Call) -> Dims:
    """Tensors made by the code whose entries differ: their sizes are fixed. What is filled in place is like itself."""
    if call.name == "aten.normal" and isinstance(call.get("self"), fx.Node):
        return call.tensor("self")
    return constants(call.shape, f"{call.where}: the code makes a table of this size ({call.name})")


@rule("aten.eye")
def identity(call: Call) -> Dims:
    """A square one stays one where both its dimensions lose the same entries."""
    rows, columns = call.shape
    if rows != columns:
        return factory_ordered(call)
    dim = UNIT if rows == 1 else Variable(rows)
    for argument in ("n", "m"):
        call.size(dim, argument)
    return (dim, dim)
