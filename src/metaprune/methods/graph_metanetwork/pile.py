"""Piles: small tensors of one shape are computed together, because calls of many small operators take longer."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from metaprune.methods.graph_metanetwork.dense import (
    Decoder,
    Gate,
    Received,
    Start,
    decode,
    decoded,
    exchanged,
    received,
    through,
)
from metaprune.methods.graph_metanetwork.network_graph import Block

__all__ = ["Pile", "unpiled"]


class Pile(NamedTuple):
    """Tensors of one shape that are computed together: how their edges start, and their gates, layer by layer.

    Few edges without a tape are kept as they are after the last gate, shape (b h, rows, columns).
    """

    blocks: tuple[Block, ...]
    matrix: Float[Tensor, " b taps rows columns"]
    start: Start
    gates: list[Gate]
    kept: Tensor | None = None

    def at_rows(self, values: Float[Tensor, " h positions"]) -> Float[Tensor, " bh rows"]:
        """What the rows of the tensors have of something known at all rows."""
        return _piled(values[:, self.blocks[0].rows[0] : self.blocks[-1].rows[1]], len(self.blocks))

    def at_columns(self, values: Float[Tensor, " h positions"]) -> Float[Tensor, " bh columns"]:
        """The same of columns."""
        return _piled(values[:, self.blocks[0].columns[0] : self.blocks[-1].columns[1]], len(self.blocks))

    def received(self, row_a: Tensor, column_a: Tensor) -> tuple[Received, Received]:
        """What rows and columns receive."""
        if self.kept is not None:
            return exchanged(self.kept, row_a, column_a)
        return received(self.matrix, self.start, self.gates, row_a, column_a)

    def pass_through(self, gate: Gate) -> None:
        """Add a gate."""
        self.gates.append(gate)
        if self.kept is not None:
            through(self.kept, gate)

    def decoded(self, decoder: Decoder) -> Float[Tensor, " b taps rows columns"]:
        """The edits of its tensors."""
        if self.kept is None:
            return decoded(self.matrix, self.start, self.gates, decoder)
        return decode(self.kept.view(len(self.matrix), -1, self.matrix[0, 0].numel()), decoder).view(self.matrix.shape)

    def laid_out(self, values: Received) -> Received:
        """The other way round: positions one after the other."""
        return Received(*(unpiled(part, len(self.blocks)) for part in values))


def _piled(values: Tensor, count: int) -> Tensor:
    return values.view(len(values), count, -1).transpose(0, 1).reshape(count * len(values), -1)


def unpiled(values: Float[Tensor, " bh positions"], count: int) -> Float[Tensor, " h all_positions"]:
    """What is known of the positions of so many tensors, one tensor above the other, with positions in one row."""
    return values.view(count, -1, values.shape[1]).transpose(0, 1).flatten(1)
