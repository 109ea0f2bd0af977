"""The oracle: the same message passing over an explicit list of edges, with PyTorch Geometric's gather and scatter.

It shares the encoders and the linear maps with the metanetwork, and nothing of how messages, aggregates and gates are
computed. Positions are expanded to channels edge by edge.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from metaprune.methods.graph_metanetwork import Metanetwork, NetworkGraph
from metaprune.methods.graph_metanetwork.reading.incidence import Incidence
from metaprune.methods.graph_metanetwork.reading.network_graph import Block

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyTorch Geometric scripts classes as it is imported
    from torch_geometric.nn import MessagePassing
    from torch_geometric.utils import scatter

__all__ = ["Lists", "edited", "listed", "passed"]


class Messages(MessagePassing):
    """m = z_i a_j e, with the mean, variance, maximum and minimum of what reaches a node."""

    def __init__(self) -> None:
        super().__init__(aggr=["mean", "var", "max", "min"])

    def forward(self, index: Tensor, a: Tensor, z: Tensor, e: Tensor) -> Tensor:
        mean, variance, most, least = self.propagate(index, a=(a, None), z=(None, z), e=e, size=(len(a), len(z))).chunk(
            4, dim=-1
        )
        deviation = (variance.clamp(min=0) + 1e-5).sqrt() - 1e-5**0.5
        return torch.cat([mean, deviation, most, least], -1)

    def message(self, a_j: Tensor, z_i: Tensor, e: Tensor) -> Tensor:
        return z_i * a_j * e


@dataclass(frozen=True)
class Lists:
    """The edges of a graph: their positions, and for each direction (source, channel) and the number of the edge."""

    row: Tensor
    column: Tensor
    to_columns: tuple[Tensor, Tensor]
    to_rows: tuple[Tensor, Tensor]


def listed(graph: NetworkGraph) -> Lists:
    row, column = edges(graph)
    return Lists(row, column, expanded(row, column, graph.columns), expanded(column, row, graph.rows))


def passed(metanetwork: Metanetwork, graph: NetworkGraph, lists: Lists) -> tuple[Tensor, dict[str, Tensor]]:
    """Node states (nodes, h) after all layers, and the states of each tensor's edges (h, rows, columns)."""
    h = metanetwork.hidden
    states = metanetwork.first_states(graph)
    row, column = lists.row, lists.column
    e = torch.cat([first(metanetwork, block) for block in graph.edges])
    (to_columns, edge_of_column), (to_rows, edge_of_row) = lists.to_columns, lists.to_rows
    sign = torch.ones(h, dtype=e.dtype)
    sign[h // 2 :] = -1
    messages = Messages()
    for layer in metanetwork.layers:
        a, z, p, q = F.silu(layer.maps(F.layer_norm(states, (h,)))).chunk(4, -1)
        places = metanetwork.places.T
        sent = [[of(side, values, places) for values in (a, p, q)] for side in (graph.rows, graph.columns)]
        (row_a, row_p, row_q), (column_a, column_p, column_q) = sent
        forwards = messages(to_columns, row_a, z, e[edge_of_column])
        backwards = messages(to_rows, column_a, z, (sign * e)[edge_of_row])
        states = states + layer.join(forwards) + layer.join(backwards)
        e = e + row_p[row] * column_q[column] * e + sign * (column_p[column] * row_q[row] * (sign * e))
    sizes = [block.matrix[0].shape for block in graph.edges]
    pieces = e.split([rows * columns for rows, columns in sizes])
    shaped = [piece.T.reshape(h, *size) for piece, size in zip(pieces, sizes, strict=True)]
    return states, {block.name: piece for block, piece in zip(graph.edges, shaped, strict=True)}


def edited(metanetwork: Metanetwork, graph: NetworkGraph, lists: Lists) -> dict[str, Tensor]:
    """The tensors with two channel dimensions that are learned, with their edits, and the scores of the nodes."""
    states, of_edges = passed(metanetwork, graph, lists)
    h, writer = metanetwork.hidden, metanetwork.write_edges
    found = {"": metanetwork.write_scores(F.layer_norm(states, (h,)))[:, 0]}
    for block in graph.edges:
        if block.learned:
            told = metanetwork.told([block])[2][0, :, 0]
            e = of_edges[block.name].reshape(h, -1).T
            hidden = F.silu(F.linear(F.layer_norm(e, (h,)), writer.inner.weight, writer.inner.bias) + told)
            written = metanetwork.write_taps(block.taps.to(e)) / h**0.5
            edit = (F.linear(hidden, writer.outer) @ written.T).T.reshape(block.matrix.shape)
            found[block.name] = metanetwork.add(block, edit)
    return found


def edges(graph: NetworkGraph) -> tuple[Tensor, Tensor]:
    """The row's and the column's position of every edge."""
    pairs = [torch.cartesian_prod(torch.arange(*b.rows), torch.arange(*b.columns)) for b in graph.edges]
    row, column = torch.cat(pairs).T
    return row, column


def first(metanetwork: Metanetwork, block: Block) -> Tensor:
    """The states of a tensor's edges at the start, tap by tap."""
    gain, offset, _ = (part[0, :, 0] for part in metanetwork.told([block]))
    e = torch.zeros(block.matrix[0].numel(), metanetwork.hidden, dtype=offset.dtype)
    for tap, told in zip(block.matrix, block.taps, strict=True):
        kernel = metanetwork.read_taps(told.to(offset))
        e = e + tap.reshape(-1, 1).to(kernel) / metanetwork.scale(block) * kernel
    return e / len(block.taps) ** 0.5 * (1 + gain) + offset


def of(side: Incidence, values: Tensor, places: Tensor) -> Tensor:
    """What every position sends, shape (positions, h)."""
    sent = values[side.node] * places[side.place]
    return scatter(sent, side.position, dim_size=side.positions, reduce="mean")


def expanded(source: Tensor, target: Tensor, side: Incidence) -> tuple[Tensor, Tensor]:
    """Every edge once for each channel of its target: (source position, channel), and the number of the edge."""
    starts, nodes, numbers = [], [], []
    for position, node in zip(side.position.tolist(), side.node.tolist(), strict=True):
        found = (target == position).nonzero().flatten()
        starts.append(source[found])
        nodes.append(torch.full_like(found, node))
        numbers.append(found)
    return torch.stack([torch.cat(starts), torch.cat(nodes)]), torch.cat(numbers)
