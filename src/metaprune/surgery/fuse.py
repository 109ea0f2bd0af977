"""Fuse: linear maps along axes, written into the channels that stay of a full-width copy, so that surgery only slices.

A map takes n channels to the k that stay. What writes an axis is combined row by row, what reads it column by column,
and what carries it entry by entry; what dimensions are made of (products, concatenations) says which entries those are.
Such a copy is no network: only what is sliced from it computes anything of use.

Rows are combined as a batch norm behind them sees them: in units of its scale g = weight / √(variance + eps), so that
the fused row, seen through the norm of the channel that stays, is the combination of what the rows were behind theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metaprune.graph.call import named_arguments
from metaprune.graph.errors import PlanError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.infer import Inference
from metaprune.graph.tensors import in_double, named_tensors, plain_tensors, with_tensors
from metaprune.graph.term import leaves
from metaprune.graph.uses import Role
from metaprune.surgery.attention import written_out

__all__ = ["Fusion", "Norm", "fused", "norms"]

_FLOOR = 1e-4
"""Scales of a norm smaller than this share of its largest are replaced by it: rows are divided by them."""


@dataclass(frozen=True)
class Fusion:
    """What becomes of an axis of n channels, of which k stay: matrices of shape (k, n), float64; None: as they are.

    Attributes:
        kept: The channels that stay, ascending.
        reads: How the columns that read the axis are combined.
        writes: How the rows that write it are.
        carries: How what is carried along is: slopes, depthwise filters, weights of norms.
    """

    kept: tuple[int, ...]
    reads: Tensor | None = None
    writes: Tensor | None = None
    carries: Tensor | None = None

    def of(self, role: Role) -> Tensor | None:
        """The matrix for a tensor that is used in this role."""
        return {"reads": self.reads, "writes": self.writes}.get(role, self.carries)


@dataclass(frozen=True)
class Norm:
    """A batch norm that alone reads what a contraction computes, by the names of its tensors.

    Attributes:
        rows: Tensors of the contraction whose dimension is the norm's channels, each with the dimension.
        mean: Its running mean.
        variance: Its running variance.
        weight: None where it has none.
        bias: None where it has none.
        eps: What is added to the variance.
    """

    rows: tuple[tuple[str, int], ...]
    mean: str
    variance: str
    weight: str | None
    bias: str | None
    eps: float

    def scale(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """What each channel is multiplied by: weight / √(variance + eps), float64, shape (channels,)."""
        spread = (in_double(tensors[self.variance]) + self.eps).rsqrt()
        return spread if self.weight is None else in_double(tensors[self.weight]).to(spread) * spread


def fused(model: nn.Module, graph: ChannelGraph, fusions: Mapping[str, Fusion]) -> nn.Module:
    """A copy of full width whose channels that stay hold the combinations: cut by the same channels, it is the result.

    Args:
        model: The network that `graph` was traced from; left untouched.
        graph: From `mp.trace`.
        fusions: Axis -> what becomes of it; others stay as they are.

    Raises:
        PlanError: Along one of the axes nothing can be handed on (`ChannelGraph.unabsorbed` says why).
    """
    model = written_out(model, graph.written_out)
    graph.check(model)
    for axis in fusions.keys() & graph.unabsorbed.keys():
        raise PlanError(f"fuse: axis {axis!r} cannot be fused: {graph.unabsorbed[axis]}; let its channels be dropped")
    tensors = plain_tensors(model, graph.tables) | named_tensors(model)
    terms = {**graph.tables, **graph.tensors}
    values: dict[str, Tensor] = {}
    written = {axis for axis, fusion in fusions.items() if fusion.writes is not None}
    rows = {(use.tensor, use.dim) for use in graph.uses if use.axis in written}
    behind = [norm for norm in norms(model, graph) if rows & {*norm.rows}]
    behind = [norm for norm in behind if norm.scale(tensors).abs().max() > 0]
    added = {name for norm in behind for name in (norm.mean, norm.bias)}
    scales = {name for norm in behind for name in (norm.weight, norm.variance)}
    for norm in behind:
        _in_units(values, tensors, norm)
    wanted = dict.fromkeys(use for use in graph.uses if use.axis in fusions and use.tensor not in scales)
    for tensor, dim, axis, role in wanted:
        matrix = fusions[axis].of("writes" if tensor in added else role)
        if matrix is None or not tensors[tensor].is_floating_point():
            continue
        value = values.get(tensor, in_double(tensors[tensor]))
        for positions in leaves(terms[tensor][dim], axis):
            value = _combined(value, dim, positions, fusions[axis].kept, matrix)
        values[tensor] = value
    for norm in behind:
        _out_of_units(values, tensors, norm)
    return with_tensors(model, {name: value.to(tensors[name]) for name, value in values.items()})


def norms(model: nn.Module, graph: ChannelGraph) -> list[Norm]:
    """The batch norms that alone read what a contraction computes, whose rows can be counted in units of their scale.

    Left out are rows that are computed, or used in several places that do not all lie before the same norm.
    """
    tensors = named_tensors(model)
    first: dict[int, str] = {}
    for name, tensor in tensors.items():
        first.setdefault(id(tensor), name)
    known = {name: first[id(tensor)] for name, tensor in tensors.items()}
    before: dict[str, set[Norm | None]] = {}
    used: Counter[str] = Counter()
    for inference in graph.inferences:
        if graph.passes[inference.place].like is None:
            for operator, norm in zip(inference.operators, _behind(inference, known), strict=True):
                used.update({use.tensor for use in operator.uses})
                used.subtract([] if norm is None else [norm.mean])
                for name in {use.tensor for use in operator.uses} if norm is None else {name for name, _ in norm.rows}:
                    before.setdefault(name, set()).add(norm)
    found = {norm: None for norms in before.values() for norm in norms if norm is not None}
    alone = Counter(norm.mean for norm in found)
    return [
        norm
        for norm in found
        if used[norm.mean] == 0 and alone[norm.mean] == 1 and all(before[name] == {norm} for name, _ in norm.rows)
    ]


def _behind(inference: Inference, known: Mapping[str, str]) -> list[Norm | None]:
    """For each operator of a pass the norm behind it, where it is a contraction."""
    readers: dict[object, list[int]] = {}
    for place, operator in enumerate(inference.operators):
        for source in operator.operands:
            readers.setdefault(source, []).append(place)
    returned = set(inference.graph.passes[inference.place].returned)
    found: list[Norm | None] = []
    for place, operator in enumerate(inference.operators):
        after = readers.get((place, 0), [])
        norm = None
        if operator.macs and len(after) == 1 and (place, 0) not in returned:
            norm = _norm(inference, place, after[0], known)
        found.append(norm)
    return found


def _norm(inference: Inference, place: int, after: int, known: Mapping[str, str]) -> Norm | None:
    node, operator = inference.nodes[after], inference.operators[after]
    if operator.name != "aten.batch_norm":
        return None
    given = named_arguments(node.target, node.args, node.kwargs)
    names = {
        name: known.get(inference.owner.get(given[name], ""))
        for name in ("weight", "bias", "running_mean", "running_var")
    }
    mean, variance = names["running_mean"], names["running_var"]
    if given["input"] is not inference.nodes[place] or mean is None or variance is None:
        return None
    if any(given[name] is not None and names[name] is None for name in ("weight", "bias")):
        return None
    [channels] = inference.graph.tensors[mean]
    rows = {
        (use.tensor, use.dim)
        for use in inference.operators[place].uses
        if use.role in {"writes", "carries"} and inference.graph.tensors[use.tensor][use.dim] == channels
    }
    return Norm(tuple(sorted(rows)), mean, variance, names["weight"], names["bias"], float(given["eps"]))


def _in_units(values: dict[str, Tensor], tensors: Mapping[str, Tensor], norm: Norm) -> None:
    """Count rows and the mean in units of the norm's scale."""
    scale = norm.scale(tensors)
    for name, dim in (*norm.rows, (norm.mean, 0)):
        value = values.get(name, in_double(tensors[name]))
        values[name] = value * _along(scale, dim, value)


def _out_of_units(values: dict[str, Tensor], tensors: Mapping[str, Tensor], norm: Norm) -> None:
    """Back from the units: the norm keeps the scale of each channel, where rows can be divided by it."""
    scale = norm.scale(tensors)
    least = _FLOOR * scale.abs().max()
    if norm.weight is not None and least > 0:
        floored = torch.where(scale < 0, -1.0, 1.0) * scale.abs().clamp(min=least)
        spread = (in_double(tensors[norm.variance]) + norm.eps).sqrt()
        values[norm.weight] = floored * spread.to(floored)
        scale = floored
    for name, dim in (*norm.rows, (norm.mean, 0)):
        values[name] = values[name] / _along(scale, dim, values[name])


def _along(scale: Tensor, dim: int, like: Tensor) -> Tensor:
    return scale.to(like).reshape(-1, *[1] * (like.ndim - 1 - dim))


def _combined(value: Tensor, dim: int, positions: Tensor, kept: tuple[int, ...], matrix: Tensor) -> Tensor:
    """The tensor with the combinations in the places of the channels that stay.

    Args:
        value: Any tensor.
        dim: The dimension that holds the axis.
        positions: Where each of the axis's n channels lies along it, shape (n, repeats).
        kept: The channels that stay.
        matrix: Shape (k, n).
    """
    positions = positions.to(value.device)
    entries = value.index_select(dim, positions.flatten())
    entries = entries.reshape(*value.shape[:dim], *positions.shape, *value.shape[dim + 1 :])
    mixed = torch.tensordot(matrix.to(value), entries, dims=([1], [dim])).movedim(0, dim)
    places = positions[list(kept)].flatten()
    return value.index_copy(dim, places, mixed.flatten(dim, dim + 1))
