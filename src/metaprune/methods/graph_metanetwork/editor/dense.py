"""Message passing over the edges of tensors as dense blocks: no edge list, no gather, and no state kept per edge.

The edges of a tensor are all pairs of a row r and a column c, each with a vector of `h` numbers, laid out as `(h, rows,
columns)`. Tensors of one shape are computed together, their states one above the other: `(b h, rows, columns)` for b
of them. An edge's state is a product, e = e_0 * prod_l (1 + p_r q_c + q_r p_c), of a start that is linear in the
weights and of gates made of node states (Liu et al. 2025, the edge update of their message passing, both directions at
once). So nothing per edge is stored: each layer makes it again, a chunk of rows at a time, and so does the backward
pass.

What reaches a node is z * a * e, with z its own. z is the same for all of a node's edges, so that the four aggregates
follow from the sums of a e and (a e)^2 and from the extremes of a e: matrix products and reductions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "CHUNK",
    "KEPT",
    "PILED",
    "Decoder",
    "Gate",
    "Received",
    "Start",
    "decode",
    "decoded",
    "edge_states",
    "exchanged",
    "received",
    "through",
]

CHUNK = 2**17
"""Numbers of edge states that are made at a time."""


KEPT = 2**24
"""Numbers of edge states up to which all of them are kept from layer to layer, where no gradients are asked for."""

PILED = 2**19
"""Numbers of edge states that are computed together where all are kept."""


class Start(NamedTuple):
    """How edge states start: e_0 = kernel · w + offset.

    Attributes:
        kernel: Shape (b, h, taps).
        offset: Shape (b, h, 1).
    """

    kernel: Float[Tensor, " b h taps"]
    offset: Float[Tensor, " b h 1"]


class Gate(NamedTuple):
    """One layer's gates 1 + p_r q_c + q_r p_c, as a product: (p, q) at the rows and (q, p) at the columns.

    Attributes:
        rows: Shape (b h, rows, 2).
        columns: Shape (b h, 2, columns).
    """

    rows: Float[Tensor, " bh rows two"]
    columns: Float[Tensor, " bh two columns"]


class Received(NamedTuple):
    """What the positions of a dimension receive from across: the sum, sum of squares, maximum and minimum of a e."""

    sums: Float[Tensor, " bh positions"]
    squares: Float[Tensor, " bh positions"]
    most: Float[Tensor, " bh positions"]
    least: Float[Tensor, " bh positions"]


class Decoder(NamedTuple):
    """From an edge's state to the edit of its kernel: taps^T · outer · silu(inner · norm(e) + offset).

    Attributes:
        inner: Shape (h, h).
        offset: Shape (b, h, 1).
        outer: Shape (h, h).
        taps: Shape (b, h, taps).
    """

    inner: Float[Tensor, " h h"]
    offset: Float[Tensor, " b h 1"]
    outer: Float[Tensor, " h h"]
    taps: Float[Tensor, " b h taps"]


def received(
    matrix: Float[Tensor, " b taps rows columns"],
    start: Start,
    gates: Sequence[Gate],
    row_a: Float[Tensor, " bh rows"],
    column_a: Float[Tensor, " bh columns"],
) -> tuple[Received, Received]:
    """What rows receive from columns, and columns from rows.

    Args:
        matrix: The weights.
        start: How edge states start.
        gates: Those of the layers before.
        row_a: What each row sends.
        column_a: What each column sends.
    """
    by_row = [row_a, *(gate.rows for gate in gates)]
    shared = [column_a, *start, *(gate.columns for gate in gates)]
    values = _in_chunks(_messages, matrix, len(row_a), by_row, shared)
    sums, squares, most, most_below = values[4:]
    return Received(*values[:4]), Received(sums, squares, most, -most_below)


def exchanged(
    states: Float[Tensor, " bh rows columns"],
    row_a: Float[Tensor, " bh rows"],
    column_a: Float[Tensor, " bh columns"],
    scratch: Float[Tensor, " bh rows columns"] | None = None,
) -> tuple[Received, Received]:
    """As `received`, from the states themselves; without a tape it may be told where to work."""
    rows = _aggregates(states, column_a[:, None], 2, scratch)
    columns = _aggregates(states, row_a[:, :, None], 1, scratch)
    return Received(*rows), Received(*columns)


def through(
    states: Float[Tensor, " bh rows columns"], gate: Gate, scratch: Float[Tensor, " bh rows columns"] | None = None
) -> None:
    """Take states through a gate, in place."""
    states.addcmul_(states, torch.bmm(*gate, out=scratch))


def decoded(
    matrix: Float[Tensor, " b taps rows columns"], start: Start, gates: Sequence[Gate], decoder: Decoder
) -> Float[Tensor, " b taps rows columns"]:
    """The edits of tensors with two channel dimensions, in units of the decoder."""
    by_row = [gate.rows for gate in gates]
    shared = [*decoder, *start, *(gate.columns for gate in gates)]
    states = len(matrix) * start.kernel.shape[1]
    return _in_chunks(_edits, matrix, states, by_row, shared)[0].view(matrix.shape)


def edge_states(
    matrix: Float[Tensor, " b taps rows columns"], start: Start, gates: Sequence[Gate]
) -> Float[Tensor, " bh rows columns"]:
    """The states of all edges of tensors of one shape, after the layers whose gates are given."""
    return _states(matrix, start, [gate.rows for gate in gates], [gate.columns for gate in gates])


def decode(states: Float[Tensor, " b h count"], decoder: Decoder) -> Float[Tensor, " b taps count"]:
    """Edits of kernels from states, one column each."""
    centred = states - states.mean(1, keepdim=True)
    normal = centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + 1e-5)
    hidden = F.silu(torch.baddbmm(decoder.offset, decoder.inner.expand(len(states), -1, -1), normal))
    return torch.bmm(decoder.taps.transpose(1, 2) @ decoder.outer, hidden)


class Parts(NamedTuple):
    """What a chunk of rows gives.

    Attributes:
        rows: What belongs to its rows, along dimension 1.
        sums: What is added up over chunks.
        most: Of what the maximum over chunks is taken.
    """

    rows: tuple[Tensor, ...]
    sums: tuple[Tensor, ...] = ()
    most: tuple[Tensor, ...] = ()


ChunkFunction = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor]], Parts]


def _messages(matrix: Tensor, by_row: Sequence[Tensor], shared: Sequence[Tensor]) -> Parts:
    """What `received` takes from a chunk."""
    row_a, *row_gates = by_row
    column_a, kernel, offset, *column_gates = shared
    states = _states(matrix, Start(kernel, offset), row_gates, column_gates)
    rows, columns = exchanged(states, row_a, column_a)
    return Parts(rows, columns[:2], (columns.most, -columns.least))


def _edits(matrix: Tensor, by_row: Sequence[Tensor], shared: Sequence[Tensor]) -> Parts:
    """What `decoded` takes from a chunk."""
    decoder, (kernel, offset, *column_gates) = Decoder(*shared[:4]), shared[4:]
    states = _states(matrix, Start(kernel, offset), by_row, column_gates)
    found = decode(states.view(len(matrix), -1, states[0].numel()), decoder)
    return Parts((found.reshape(-1, *states.shape[1:]),))


def _states(matrix: Tensor, start: Start, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Tensor:
    """As `edge_states`; in place where no gradients are asked for."""
    if torch.is_grad_enabled():
        return _EdgeStates.apply(matrix, len(rows), *start, *rows, *columns)  # type: ignore[no-any-return, no-untyped-call]
    states = _first(matrix, *start)
    for left, right in zip(rows, columns, strict=True):
        through(states, Gate(left, right))
    return states


def _first(matrix: Tensor, kernel: Tensor, offset: Tensor) -> Tensor:
    weights = matrix.flatten(2).to(kernel)
    return torch.baddbmm(offset, kernel, weights).view(-1, *matrix.shape[2:])


def _aggregates(
    states: Tensor, a: Tensor, dim: int, scratch: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sum, sum of squares, maximum and minimum of a e along a dimension."""
    if torch.is_grad_enabled():
        return _Aggregates.apply(states, a, dim)  # type: ignore[no-any-return, no-untyped-call]
    sent = torch.mul(states, a, out=scratch)
    found = sent.sum(dim), sent.amax(dim), sent.amin(dim)
    return found[0], sent.mul_(sent).sum(dim), *found[1:]


def _in_chunks(
    function: ChunkFunction, matrix: Tensor, states: int, by_row: Sequence[Tensor], shared: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Call a function of a matrix with some of its rows at a time, and again in the backward pass.

    Args:
        function: Of the matrix, the tensors in `by_row` and those in `shared`.
        matrix: Shape (b, taps, rows, columns); no gradient reaches it.
        states: b h, how many numbers the function makes of a row and a column.
        by_row: Tensors of shape (…, rows).
        shared: Tensors of which each chunk needs all.
    """
    step = max(1, CHUNK // (states * matrix.shape[3]))
    return _InChunks.apply(function, matrix, step, len(by_row), *by_row, *shared)  # type: ignore[no-any-return, no-untyped-call]


class _InChunks(torch.autograd.Function):
    """See `_in_chunks`."""

    @staticmethod
    def forward(
        ctx: Any, function: ChunkFunction, matrix: Tensor, step: int, split: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """Chunk after chunk, keeping what `Parts` says."""
        rows: list[tuple[Tensor, ...]] = []
        sums: list[Tensor] = []
        most: list[Tensor] = []
        ties: list[Tensor] = []
        for first, last in _chunks(matrix, step):
            part = function(matrix[:, :, first:last], [t[:, first:last] for t in tensors[:split]], tensors[split:])
            rows.append(part.rows)
            if first == 0:
                sums, most = list(part.sums), list(part.most)
                ties = [torch.ones_like(values) for values in most] if last < matrix.shape[2] else []
                continue
            sums = [total.add_(more) for total, more in zip(sums, part.sums, strict=True)]
            ties = [
                torch.where(new > old, 1, tie + (new == old))
                for tie, old, new in zip(ties, most, part.most, strict=True)
            ]
            most = [torch.maximum(old, new) for old, new in zip(most, part.most, strict=True)]
        joined = tuple(pieces[0] if len(rows) == 1 else torch.cat(pieces, 1) for pieces in zip(*rows, strict=True))
        ctx.function, ctx.step, ctx.split, ctx.counts = function, step, split, (len(joined), len(sums))
        ctx.save_for_backward(matrix, *tensors, *(most if ties else ()), *ties)
        ctx.given = len(tensors)
        return (*joined, *sums, *most)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Make each chunk again, with a tape of its own."""
        matrix, *saved = ctx.saved_tensors
        tensors, extremes = saved[: ctx.given], saved[ctx.given :]
        most, ties = extremes[: len(extremes) // 2], extremes[len(extremes) // 2 :]
        of_rows, of_sums = gradients[: ctx.counts[0]], gradients[ctx.counts[0] : sum(ctx.counts)]
        of_most = gradients[sum(ctx.counts) :]
        results = [torch.zeros_like(tensor) for tensor in tensors]
        for first, last in _chunks(matrix, ctx.step):
            pieces = [t[:, first:last] if place < ctx.split else t for place, t in enumerate(tensors)]
            inputs = [piece.detach().requires_grad_() for piece in pieces]
            with torch.enable_grad():
                part = ctx.function(matrix[:, :, first:last], inputs[: ctx.split], inputs[ctx.split :])
            here = [
                *(gradient[:, first:last] for gradient in of_rows),
                *of_sums,
                *(_where_most(part.most, most, ties, of_most) if ties else of_most),
            ]
            found = torch.autograd.grad([*part.rows, *part.sums, *part.most], inputs, here)
            for place, (result, gradient) in enumerate(zip(results, found, strict=True)):
                (result[:, first:last] if place < ctx.split else result).add_(gradient)
        return None, None, None, None, *results


def _where_most(
    here: Sequence[Tensor], most: Sequence[Tensor], ties: Sequence[Tensor], gradients: Sequence[Tensor]
) -> list[Tensor]:
    """What of the gradients of maxima over chunks reaches the maxima of one chunk."""
    return [
        torch.where(found == whole, gradient / tie, 0)
        for found, whole, tie, gradient in zip(here, most, ties, gradients, strict=True)
    ]


def _chunks(matrix: Tensor, step: int) -> Iterator[tuple[int, int]]:
    rows = matrix.shape[2]
    return ((first, min(first + step, rows)) for first in range(0, rows, step))


class _EdgeStates(torch.autograd.Function):
    """e_0 = kernel · w + offset, times 1 + rows_l · columns_l for each layer l; see `edge_states`."""

    @staticmethod
    def forward(
        ctx: Any, matrix: Tensor, count: int, kernel: Tensor, offset: Tensor, *sides: Tensor
    ) -> Float[Tensor, " bh rows columns"]:
        """Keep the states before each gate."""
        states = _first(matrix, kernel, offset)
        before = []
        for left, right in zip(sides[:count], sides[count:], strict=True):
            before.append(states)
            states = torch.addcmul(states, states, torch.bmm(left, right))
        ctx.save_for_backward(matrix, *sides, *before)
        ctx.count = count
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Layer by layer, last first."""
        [gradient] = gradients
        matrix, *saved = ctx.saved_tensors
        lefts, rights, before = (saved[ctx.count * place : ctx.count * (place + 1)] for place in range(3))
        of_lefts, of_rights = [], []
        for left, right, states in zip(lefts[::-1], rights[::-1], before[::-1], strict=True):
            bent = gradient * states
            of_lefts.append(torch.bmm(bent, right.transpose(1, 2)))
            of_rights.append(torch.bmm(left.transpose(1, 2), bent))
            gradient = torch.addcmul(gradient, gradient, torch.bmm(left, right))
        flat = gradient.view(len(matrix), -1, matrix[0, 0].numel())
        weights = matrix.flatten(2).to(flat)
        of_kernel, of_offset = torch.bmm(flat, weights.transpose(1, 2)), flat.sum(2, keepdim=True)
        return None, None, of_kernel, of_offset, *of_lefts[::-1], *of_rights[::-1]


class _Aggregates(torch.autograd.Function):
    """Sum, sum of squares, maximum and minimum of a e along a dimension.

    The gradient of an extreme is shared out evenly among the entries that are equal to it.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, a: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Each without the dimension."""
        sent = states * a
        most, least = sent.amax(dim), sent.amin(dim)
        ctx.save_for_backward(states, a, most, least)
        ctx.dim = dim
        return sent.sum(dim), (sent * sent).sum(dim), most, least

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """From all four at once."""
        states, a, *extremes = ctx.saved_tensors
        of_sums, of_squares, *of_extremes = (gradient.unsqueeze(ctx.dim) for gradient in gradients)
        sent = states * a
        total = torch.addcmul(of_sums, sent, 2 * of_squares)
        hit = torch.empty_like(sent)
        for extreme, gradient in zip(extremes, of_extremes, strict=True):
            torch.eq(sent, extreme.unsqueeze(ctx.dim), out=hit)  # as numbers, which are many times faster than booleans
            total.addcmul_(hit, gradient / hit.sum(ctx.dim, keepdim=True))
        return total * a, (total * states).sum(3 - ctx.dim, keepdim=True), None
