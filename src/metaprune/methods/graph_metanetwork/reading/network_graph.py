"""A network as the graph that a metanetwork reads (Liu et al. 2025, section 4; departures in the method's README).

Nodes are the channels of axes. A tensor is a matrix of kernels: one row per position of its first channel dimension,
one column per position of its last. Those with both are edges; those with one dimension at most (biases, norms,
statistics, depthwise kernels, tokens) are attributes, matrices of one column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.infer import Inference
from metaprune.graph.rehearsal import on_the_cpu
from metaprune.graph.tensors import named_tensors
from metaprune.graph.term import Product, Term, axes_of, size
from metaprune.methods.graph_metanetwork.reading.features import (
    EVIDENCE_FEATURES,
    IDENTITY_FEATURES,
    Use,
    axis_features,
    identity_features,
    tap_features,
    tensor_features,
    uses,
)
from metaprune.methods.graph_metanetwork.reading.incidence import Incidence, incidence
from metaprune.surgery.attention import written_out

__all__ = ["Block", "NetworkGraph", "graph_of"]


@dataclass(frozen=True)
class Block:
    """A tensor as a matrix of kernels.

    Attributes:
        name: Of the parameter or buffer.
        matrix: Its entries; where PyTorch allows it, a view of the tensor.
        shape: Taps, rows and columns, and then the extents of the kernel.
        order: The tensor's dimensions in the order taps, rows, columns.
        sizes: The sizes of the dimensions in that order.
        rows: The first and the last but one of its rows' positions in the graph's rows (attributes: in its attributes).
        columns: The same of its columns; (0, 0) for attributes.
        scale: The root mean square of its entries, 1 where they are all zero.
        role: What its operator calls it (weight, bias, running_mean …).
        learned: Whether it is a parameter that trains, and so is edited.
        features: What is told of it, see `tensor_features`.
        taps: Where the entries of a kernel lie, see `tap_features`.
    """

    name: str
    matrix: Float[Tensor, " taps rows columns"]
    shape: tuple[int, ...]
    order: tuple[int, ...]
    sizes: tuple[int, ...]
    rows: tuple[int, int]
    columns: tuple[int, int]
    scale: float
    role: str
    learned: bool
    features: Float[Tensor, " features"]
    taps: Float[Tensor, " taps tap_features"]

    def tensor(self, matrix: Float[Tensor, " taps rows columns"]) -> Tensor:
        """A matrix like this one's as a tensor of the shape that the network holds."""
        inverse = [self.order.index(dim) for dim in range(len(self.order))]
        return matrix.reshape(self.sizes).permute(inverse)


@dataclass(frozen=True)
class NetworkGraph:
    """A network as nodes, edges and attributes. Made by `graph_of`; it holds the network's tensors, no copies.

    Attributes:
        edges: The tensors with two channel dimensions or more.
        attributes: The tensors with one, or none.
        rows: What the rows of all edges are made of.
        columns: What the columns of all edges are made of.
        held: What the positions of all attributes are made of.
        names: The axes, in the order of their nodes.
        axis: For each node, which of them it belongs to.
        axes: What is told of each axis, see `axis_features`.
        identity: Which channel a node is, where its axis is fixed; see `identity_features`.
        evidence: What data say of each channel, zeros where none were asked; see `evidence.informed`.
        survey: What else is told of each axis, nothing by default; see `survey.surveyed`.
        left: What a criterion leaves of each axis at the share that it is aimed at; nothing until it is told (`aimed`).
    """

    edges: tuple[Block, ...]
    attributes: tuple[Block, ...]
    rows: Incidence
    columns: Incidence
    held: Incidence
    names: tuple[str, ...]
    axis: Int[Tensor, " nodes"]
    axes: Float[Tensor, " axes axis_features"]
    identity: Float[Tensor, " nodes identity_features"]
    evidence: Float[Tensor, " nodes evidence_features"]
    survey: Float[Tensor, " axes survey_features"]
    left: Float[Tensor, " axes left_features"]

    @property
    def learned(self) -> tuple[Block, ...]:
        """The tensors that are edited."""
        return tuple(block for block in (*self.edges, *self.attributes) if block.learned)

    @property
    def free(self) -> dict[str, slice]:
        """The nodes of each axis that may be cut."""
        stops = torch.bincount(self.axis, minlength=len(self.names)).cumsum(0).tolist()
        spans = zip(self.names, [0, *stops], stops, self.axes.tolist(), strict=False)
        return {name: slice(start, stop) for name, start, stop, told in spans if told[0] == 1}

    def aimed(self, share: float, left: Sequence[Sequence[float]] | None = None) -> NetworkGraph:
        """The same, told that it will be cut to a share of its cost; until then it is told that it stays whole.

        Args:
            share: Of the cost, that will stay.
            left: What a criterion would leave of each axis (`survey.left.left`), for metanetworks that are told of it.
        """
        axes = self.axes.clone()
        axes[:, -1] = math.log2(share)
        told = self.left if left is None else self.axes.new_tensor(left).reshape(len(axes), -1)
        return replace(self, axes=axes, left=told)

    def sides(self) -> tuple[tuple[Incidence, tuple[Block, ...], Literal["rows", "columns"]], ...]:
        """What the dimensions of tensors are made of, with the tensors, and which of their dimensions it is."""
        return (
            (self.rows, self.edges, "rows"),
            (self.columns, self.edges, "columns"),
            (self.held, self.attributes, "rows"),
        )

    def to(self, device: torch.device) -> NetworkGraph:
        """The same with all but the network's own tensors on another device."""
        if self.axis.device == device:
            return self
        names = ("rows", "columns", "held", "axis", "axes", "identity", "evidence", "survey", "left")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


@on_the_cpu()
def graph_of(model: nn.Module, graph: ChannelGraph) -> NetworkGraph:
    """The graph that a metanetwork reads of a network.

    Parameters that train are read and edited. Frozen parameters, and buffers of floating-point numbers with one entry
    per channel (running statistics), are only read. Tied tensors are one.

    Args:
        model: The network; left untouched. Its attention modules are written out where the graph says so.
        graph: From `mp.trace(model, …)`.

    Raises:
        PlanError: The graph is of another network.
        MetapruneError: The network has no values (meta device), or values that are not finite.
    """
    model = written_out(model, graph.written_out)
    graph.check(model)
    if not isinstance(graph.inference, Inference):
        raise MetapruneError("graph_of: expected a graph from mp.trace, got one without its program; trace again")
    tensors = named_tensors(model)
    read = _read(model, graph, tensors)
    _check(read, tensors)
    used = uses(graph, graph.inference)
    whole = sum(tensors[name].numel() for name in graph.parameters)
    names = list(
        dict.fromkeys(a.name for name in read for term in graph.tensors[name] for a in axes_of(term) if a.name)
    )
    offsets, nodes = {}, 0
    for name in names:
        offsets[name], nodes = nodes, nodes + graph.axes[name].size
    rows, columns, held = _Side(), _Side(), _Side()
    blocks = []
    for name in read:
        use = used.get(name, Use())
        layout = _layout(graph.tensors[name], use)
        blocks.append((_block(name, tensors[name], layout, use, name in graph.parameters, whole), layout))
    edges, attributes = list[Block](), list[Block]()
    for block, (_, *dims) in sorted(blocks, key=lambda pair: pair[0].shape):  # those of one shape together
        row, column = (Product(tuple(graph.tensors[block.name][dim] for dim in group)) for group in dims)
        if dims[1]:
            edges.append(replace(block, rows=rows.add(row), columns=columns.add(column)))
        else:
            attributes.append(replace(block, rows=held.add(row)))
    axes = [graph.axes[name] for name in names]
    return NetworkGraph(
        tuple(edges),
        tuple(attributes),
        incidence(rows.terms, offsets, nodes),
        incidence(columns.terms, offsets, nodes),
        incidence(held.terms, offsets, nodes),
        tuple(names),
        torch.repeat_interleave(torch.arange(len(axes)), torch.tensor([axis.size for axis in axes], dtype=torch.int64)),
        axis_features(graph, names, used),
        torch.cat([torch.zeros(0, IDENTITY_FEATURES), *(identity_features(axis) for axis in axes)]),
        torch.zeros(nodes, EVIDENCE_FEATURES),
        torch.zeros(len(names), 0),
        torch.zeros(len(names), 0),
    )


@dataclass
class _Side:
    """Dimensions whose positions follow one another."""

    terms: list[Term] = field(default_factory=list)
    end: int = 0

    def add(self, term: Term) -> tuple[int, int]:
        """Where the positions of one more dimension begin and end."""
        self.terms.append(term)
        first, self.end = self.end, self.end + size(term)
        return first, self.end


Layout = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""The dimensions of a tensor that are its kernel, its rows and its columns."""


def _read(model: nn.Module, graph: ChannelGraph, tensors: Mapping[str, Tensor]) -> list[str]:
    """The parameters, and the buffers that hold a number per channel of something trained."""
    parameters = [name for name in graph.parameters if tensors[name].is_floating_point() and tensors[name].numel()]
    trained = {axis for name in parameters for term in graph.tensors[name] for axis in axes_of(term) if axis.name}
    buffers = []
    for name, buffer in model.named_buffers():
        dims = [term for term in graph.tensors.get(name, ()) if _is_channel(term)]
        if buffer.is_floating_point() and len(dims) == 1 and all(axis in trained for axis in axes_of(dims[0])):
            buffers.append(name)
    return parameters + buffers


def _check(read: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
    for name in read:
        if tensors[name].is_meta:
            raise MetapruneError(f"graph_of: expected values, got {name!r} on the meta device; load the weights first")
        if not tensors[name].isfinite().all():
            raise MetapruneError(f"graph_of: expected finite values, got infinite or missing ones in {name!r}")


def _is_channel(term: Term) -> bool:
    return any(axis.name for axis in axes_of(term))


def _layout(terms: Sequence[Term], use: Use) -> Layout:
    """Rows are what a tensor gives (of more than two dimensions, all but the last), columns what it sums over."""
    channel = [dim for dim, term in enumerate(terms) if _is_channel(term)]
    kernel = tuple(dim for dim in range(len(terms)) if dim not in channel)
    if len(channel) < 2:
        return kernel, tuple(channel), ()
    if len(channel) == 2 and channel[0] in use.contracted and channel[1] not in use.contracted:
        channel.reverse()
    return kernel, tuple(channel[:-1]), (channel[-1],)


def _block(name: str, tensor: Tensor, layout: Layout, use: Use, parameter: bool, whole: int) -> Block:
    order = tuple(dim for dims in layout for dim in dims)
    taps, rows, columns = (math.prod(tensor.shape[dim] for dim in dims) for dims in layout)
    values = tensor.detach()
    square = float(torch.linalg.vector_norm(values, dtype=torch.promote_types(values.dtype, torch.float32)))
    scale = square / math.sqrt(max(values.numel(), 1)) or 1.0
    learned = parameter and tensor.requires_grad
    share = values.numel() / max(whole, 1) if parameter else 0.0
    return Block(
        name=name,
        matrix=values.permute(order).reshape(taps, rows, columns),
        shape=(taps, rows, columns, *(tensor.shape[dim] for dim in layout[0])),
        order=order,
        sizes=tuple(tensor.shape[dim] for dim in order),
        rows=(0, 0),
        columns=(0, 0),
        scale=scale,
        role=use.role,
        learned=learned,
        features=tensor_features(use, rows, columns, taps, scale, learned, share),
        taps=tap_features([tensor.shape[dim] for dim in layout[0]]),
    )
