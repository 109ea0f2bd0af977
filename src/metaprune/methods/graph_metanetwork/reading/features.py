"""What the metanetwork is told of a tensor or an axis besides the weights: kind, depth, stride, sizes, share of cost.

Nothing here depends on the order of the channels of an axis that may be cut, nor on the network's name or layout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, fx

from metaprune.cost.closed_form import axis_shares
from metaprune.graph.call import is_layout
from metaprune.graph.graph import ChannelGraph, Operator
from metaprune.graph.infer import Inference
from metaprune.graph.term import Axis, Term, axes_of, size

__all__ = [
    "AXIS_FEATURES",
    "EVIDENCE_FEATURES",
    "IDENTITY_FEATURES",
    "TAP_FEATURES",
    "TENSOR_FEATURES",
    "Use",
    "axis_features",
    "identity_features",
    "tap_features",
    "tensor_features",
    "uses",
]

KINDS = ("transposed convolution", "convolution", "linear", "embedding", "norm", "recurrent", "product", "other")
ROLES = ("weight", "bias", "running_mean", "running_var", "other")
TENSOR_FEATURES = len(KINDS) + len(ROLES) + 9
AXIS_FEATURES = 7
EVIDENCE_FEATURES = 5
FREQUENCIES = 8
IDENTITY_FEATURES = 2 * FREQUENCIES
WAVES = 4
TAP_FEATURES = 3 * WAVES + 3

_PASSING = {"aten.to", "aten._to_copy", "aten._weight_norm", "aten._assert_tensor_metadata"}
_BEGINNINGS = {
    "aten.conv_transpose": "transposed convolution",
    "aten.conv": "convolution",
    "aten.linear": "linear",
    "aten.addmm": "linear",
    "aten.embedding": "embedding",
    "aten.lstm": "recurrent",
    "aten.gru": "recurrent",
    "aten.rnn": "recurrent",
}


@dataclass(frozen=True)
class Use:
    """How a network uses a tensor.

    Attributes:
        kind: One of `KINDS`.
        role: One of `ROLES`.
        depth: The place of the first operator that computes with it, from 0 (the first) to 1 (the last).
        stride: Of the convolution or its like; 1 elsewhere.
        count: How many operators compute with it.
        macs: Its operators' share of the network's multiply-accumulates.
        contracted: The dimensions of the tensor that they sum over.
    """

    kind: str = "other"
    role: str = "other"
    depth: float = 0.0
    stride: float = 1.0
    count: int = 0
    macs: float = 0.0
    contracted: frozenset[int] = frozenset()


def uses(graph: ChannelGraph, seen: Inference) -> dict[str, Use]:
    """How each tensor is used: name of a tensor -> its use; tensors that nothing computes with are left out."""
    readers: dict[int | str, list[int]] = {}
    for index, operator in enumerate(graph.operators):
        for source, _ in operator.operands:
            readers.setdefault(source, []).append(index)
    total = sum(map(_macs, graph.operators))
    found = {}
    for name, terms in graph.tensors.items():
        indices = _computing(name, readers, graph.operators)
        if indices:
            first = graph.operators[indices[0]]
            found[name] = Use(
                kind=_kind(first),
                role=_role(seen.nodes[indices[0]], name, seen),
                depth=indices[0] / max(len(graph.operators) - 1, 1),
                stride=_stride(seen.nodes[indices[0]]),
                count=len(indices),
                macs=sum(_macs(graph.operators[index]) for index in indices) / max(total, 1),
                contracted=_contracted(first, terms),
            )
    return found


def _computing(name: str, readers: Mapping[int | str, Sequence[int]], operators: Sequence[Operator]) -> list[int]:
    """The operators that compute with a tensor, also after it was moved about."""
    found: set[int] = set()
    todo: list[int | str] = [name]
    passed: set[int | str] = set()
    while todo:
        source = todo.pop()
        for index in readers.get(source, ()):
            if is_layout(operators[index].name) or operators[index].name in _PASSING:
                if index not in passed:
                    passed.add(index)
                    todo.append(index)
            else:
                found.add(index)
    return sorted(found)


def _macs(operator: Operator) -> int:
    return sum(math.prod(map(size, product)) for product in operator.macs)


def _kind(operator: Operator) -> str:
    if "norm" in operator.name:
        return "norm"
    for beginning, kind in _BEGINNINGS.items():
        if operator.name.startswith(beginning):
            return kind
    return "product" if operator.macs else "other"


def _schema(node: fx.Node) -> list[str]:
    schema = getattr(node.target, "_schema", None)
    return [argument.name for argument in schema.arguments] if schema else []


def _role(node: fx.Node, name: str, seen: Inference) -> str:
    """The argument of the operator that the tensor is, where it is one directly."""
    for argument, value in zip(_schema(node), node.args, strict=False):
        if isinstance(value, fx.Node) and seen.owner.get(value) == name:
            return argument if argument in ROLES else "other"
    return "other"


def _stride(node: fx.Node) -> float:
    """The mean stride."""
    for argument, value in zip(_schema(node), node.args, strict=False):
        if argument == "stride" and isinstance(value, list | tuple) and value:
            return float(sum(value)) / len(value)
    return 1.0


def _contracted(operator: Operator, terms: Sequence[Term]) -> frozenset[int]:
    """The dimensions that hold an axis which the operator's results have not."""
    if not operator.macs:
        return frozenset()
    left = {axis for output in operator.outputs for term in output for axis in axes_of(term)}
    return frozenset(place for place, term in enumerate(terms) if any(axis not in left for axis in axes_of(term)))


def tensor_features(
    use: Use, rows: int, columns: int, taps: int, scale: float, learned: bool, params: float
) -> Float[Tensor, " features"]:
    """What is told of a tensor.

    Args:
        use: How it is used.
        rows: Its rows as a matrix of kernels.
        columns: Its columns.
        taps: The entries of a kernel.
        scale: The root mean square of its entries.
        learned: Whether it is to be edited.
        params: Its share of the network's parameters.
    """
    kinds = [float(kind == use.kind) for kind in KINDS]
    roles = [float(role == use.role) for role in ROLES]
    sizes = [math.log2(rows) / 10, math.log2(columns) / 10, math.log2(taps) / 10]
    shares = [use.macs**0.5, params**0.5]
    told = [use.depth, math.log2(max(use.stride, 1)), math.log10(scale), float(learned)]
    return torch.tensor([*kinds, *roles, *sizes, *shares, *told])


def axis_features(
    graph: ChannelGraph, names: Sequence[str], used: Mapping[str, Use]
) -> Float[Tensor, " axes features"]:
    """What is told of each axis.

    Whether it may be cut; its size; from where to where it reaches; its share of the cost; how many dimensions hold it;
    and, to be filled in, at what budget the network is aimed.
    """
    shares = axis_shares(graph)
    rows = []
    for name in names:
        axis = graph.axes[name]
        depths = [used[t].depth for t in (_tensor(member) for member in axis.members) if t in used] or [0.0]
        rows.append(
            [
                float(axis.fixed is None),
                math.log2(axis.size) / 10,
                min(depths),
                max(depths),
                shares[name] ** 0.5,
                math.log2(1 + len(axis.members)) / 10,
                0.0,
            ]
        )
    return torch.tensor(rows).reshape(-1, AXIS_FEATURES)


def _tensor(member: str) -> str:
    return member.rpartition(":")[0]


def identity_features(axis: Axis) -> Float[Tensor, " channels features"]:
    """Which channel is which: sines and cosines of the index where an axis is fixed, zeros where it may be cut.

    The channels of an axis that may be cut are interchangeable; inputs, classes and positions are not (the reference
    has no such feature).
    """
    if axis.fixed is None:
        return torch.zeros(axis.size, IDENTITY_FEATURES)
    angles = torch.arange(axis.size)[:, None] * torch.logspace(0, -4, FREQUENCIES)
    return torch.cat([angles.sin(), angles.cos()], 1)


def tap_features(kernel: Sequence[int]) -> Float[Tensor, " taps features"]:
    """Where each entry of a kernel lies: the first waves of the cosine transform along each dimension, and the extents.

    Three dimensions are told apart, counted from the last; those before are taken as one with the third.

    Args:
        kernel: The extents; none for a tensor without a kernel, which has one tap.
    """
    extents = [1, 1, 1, *kernel]
    extents = [math.prod(extents[:-2]), *extents[-2:]]
    grids = torch.meshgrid(*((torch.arange(extent) + 0.5) / extent for extent in extents), indexing="ij")
    waves = torch.arange(1, WAVES + 1) * torch.pi
    told = [(grid.reshape(-1, 1) * waves).cos() for grid in grids]
    sizes = torch.tensor([math.log2(extent) / 4 for extent in extents])
    return torch.cat([*told, sizes.expand(len(told[0]), 3)], 1)
