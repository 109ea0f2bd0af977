"""Piles: small tensors of one shape are computed together, because calls of many small operators take longer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune.methods.graph_metanetwork.editor.dense import (
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
from metaprune.methods.graph_metanetwork.reading.network_graph import Block

__all__ = ["Pile"]


class Pile(NamedTuple):
    """Tensors of one shape that are computed together.

    Attributes:
        blocks: The tensors, b of them.
        matrix: Their entries.
        start: How their edges start.
        inner: What their decoder is told of them.
        gates: Those of their edges, layer by layer.
        kept: Few edges without a tape, as they are after the last gate; shape (b h, rows, columns).
        scratch: Of the same shape, to work in.
    """

    blocks: tuple[Block, ...]
    matrix: Float[Tensor, " b taps rows columns"]
    start: Start
    inner: Float[Tensor, " b h 1"]
    gates: list[Gate]
    kept: Tensor | None = None
    scratch: Tensor | None = None

    @property
    def rows(self) -> slice:
        """Their positions among the rows of all."""
        return slice(self.blocks[0].rows[0], self.blocks[-1].rows[1])

    @property
    def columns(self) -> slice:
        """Their positions among the columns of all."""
        return slice(self.blocks[0].columns[0], self.blocks[-1].columns[1])

    def of_positions(self, values: Float[Tensor, " positions kh"]) -> Float[Tensor, " k bh along"]:
        """What is known of its own positions, k things of h numbers, as one row for each edge state."""
        b, h = self.start.offset.shape[:2]
        return values.view(b, len(values) // b, -1, h).permute(2, 0, 3, 1).flatten(1, 2).contiguous()

    def to_positions(self, received: Received) -> Float[Tensor, " positions four h"]:
        """The other way round: what its positions receive."""
        b, h = self.start.offset.shape[:2]
        return torch.stack(received).view(4, b, h, -1).permute(1, 3, 0, 2).flatten(0, 1)

    def received(self, row_a: Tensor, column_a: Tensor) -> tuple[Received, Received]:
        """What rows and columns receive."""
        if self.kept is not None:
            return exchanged(self.kept, row_a, column_a, self.scratch)
        return received(self.matrix, self.start, self.gates, row_a, column_a)

    def pass_through(self, gate: Gate) -> None:
        """Add a gate."""
        self.gates.append(gate)
        if self.kept is not None:
            through(self.kept, gate, self.scratch)

    def decoded(self, decoder: Decoder) -> Float[Tensor, " b taps rows columns"]:
        """The edits of its tensors."""
        if self.kept is None:
            return decoded(self.matrix, self.start, self.gates, decoder)
        return decode(self.kept.view(len(self.matrix), -1, self.matrix[0, 0].numel()), decoder).view(self.matrix.shape)
