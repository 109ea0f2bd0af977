"""The channel graph in few words: the axes of equal blocks in one row, what they are for, and what they carry."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from metaprune.graph.graph import ChannelGraph, Operator
from metaprune.graph.term import Axis, Concat, Product, Term, axes_of, size
from metaprune.report.paths import like, spans, template

__all__ = ["Group", "Wire", "alike", "groups", "reasons", "roles", "wiring"]

TRUNK, JOINED, INNER = "trunk", "concatenated", "inner"
HEADS, HEAD_SIZE, VALUE_SIZE = "heads", "head size", "value size"
KEY_HEADS, QUERY_HEADS = "key heads", "queries per key"
_ATTENTION = "aten.scaled_dot_product_attention"
_LOOKUP = "aten.embedding"
_ADDITIONS = {"aten.add", "aten.add_", "aten.sub"}


@dataclass(frozen=True)
class Group:
    """Axes that play one part in equal blocks.

    Attributes:
        name: Their names written as one: `blocks.0–31.mlp.0`.
        axes: Their names, in order of execution.
        size: The size of each.
        role: What they are for, where the graph tells: heads, head size, trunk; else empty.
        fixed: Why they must keep their size.
        layers: The modules that hold them, those of equal blocks as one; inside the group's own blocks without their
            path (`.conv2`).
        macs: Share of the network's multiply-accumulates that at least one of them takes part in.
        params: Share of the parameters that lie on at least one of them.
    """

    name: str
    axes: tuple[str, ...]
    size: int
    role: str
    fixed: str | None
    layers: tuple[str, ...]
    macs: float
    params: float


@dataclass(frozen=True)
class Wire:
    """A layer (or an operator of two activations) that leads from some axes to others."""

    name: str
    operator: str
    reads: tuple[str, ...]
    """The axes that it sums over, or chooses from."""
    writes: tuple[str, ...]
    """The axes of its results that its own weights hold."""
    passes: tuple[str, ...] = ()
    """The free axes of its results that it takes over from its operands."""


def groups(graph: ChannelGraph, *, each: bool = False) -> list[Group]:
    """The axes, those of equal blocks as one group (see `alike`), in order of execution.

    Args:
        graph: From `mp.trace`.
        each: Every axis is a group of its own.
    """
    known = roles(graph)
    lots = [(name, (name,)) for name in graph.axes] if each else alike(graph.axes.values(), known)
    macs, params = _macs(graph), _params(graph)
    return [
        Group(
            name=name,
            axes=names,
            size=graph.axes[names[0]].size,
            role=known.get(names[0], ""),
            fixed=graph.axes[names[0]].fixed,
            layers=_layers(name, [graph.axes[axis] for axis in names]),
            macs=_share(macs, names),
            params=_share(params, names),
        )
        for name, names in lots
    ]


def alike(axes: Iterable[Axis], known: Mapping[str, str]) -> list[tuple[str, tuple[str, ...]]]:
    """Axes that play one part in equal blocks.

    Their names differ in numbers alone, and they agree in size, role, reason and in which dimensions of which tensors
    hold them, up to numbers again.

    Args:
        axes: In order of execution.
        known: The roles of some of them.

    Returns:
        Pairs of (their names written as one, their names), in order of execution.
    """
    ordered = list(axes)
    same: dict[object, list[str]] = {}
    for axis in ordered:
        parted = [member.rpartition(".") for member in axis.members]
        pattern = frozenset((like(module, axis.name), dimension) for module, _, dimension in parted)
        key = (template(axis.name), axis.size, known.get(axis.name), axis.fixed, pattern)
        same.setdefault(key, []).append(axis.name)
    place = {axis.name: index for index, axis in enumerate(ordered)}
    lots = [lot for names in same.values() for lot in spans(names)]
    return sorted(lots, key=lambda lot: place[lot[1][0]])


def reasons(found: Iterable[Group]) -> dict[str, list[Group]]:
    """The groups that are fixed, by reason, those that hold the most parameters first."""
    by_reason: dict[str, list[Group]] = {}
    for group in found:
        if group.fixed is not None:
            by_reason.setdefault(group.fixed, []).append(group)
    return dict(sorted(by_reason.items(), key=lambda pair: -sum(group.params for group in pair[1])))


def roles(graph: ChannelGraph) -> dict[str, str]:
    """What axes are for, as far as the operators tell.

    Attention knows its heads and its head sizes. A trunk is what layers that read different axes write, and add up.
    Concatenated axes are read together with others. All others that a layer writes are inner ones.
    """
    known: dict[str, str] = {}
    for operator in graph.operators:
        if operator.name == _ATTENTION and operator.macs:
            known |= {name: role for name, role in _attention(graph, operator).items() if name not in known}
    sources: dict[str, set[tuple[str, ...]]] = {}
    for operator, wire in _wired(graph):
        if wire is not None:
            for name in wire.reads:
                sources.setdefault(name, {("before any layer",)})
            for name in _entire(graph, operator) & set(wire.writes):
                sources.setdefault(name, set()).add(wire.reads)
        elif operator.name in _ADDITIONS and operator.layer == operator.path and len(operator.scalars) < 2:
            for name in _entire(graph, operator):
                if len(sources.get(name, ())) > 1:
                    known.setdefault(name, TRUNK)
    for operator in graph.operators:
        results = _names(graph, [term for dims in operator.outputs for term in dims])
        joined = [term for product in operator.macs for term in product if isinstance(term, Concat)]
        for names in map(list, (_names(graph, [term]) for term in joined)):
            for name in names:
                if len(names) > 1 and name not in results:
                    known.setdefault(name, JOINED)
    for wire in wiring(graph):
        for name in wire.writes:
            if graph.axes[name].fixed is None:
                known.setdefault(name, INNER)
    return known


def wiring(graph: ChannelGraph) -> tuple[Wire, ...]:
    """The layers that lead from axes to other axes, in order of execution; norms and activations are left out."""
    return tuple(wire for _, wire in _wired(graph) if wire is not None)


def _wired(graph: ChannelGraph) -> Iterator[tuple[Operator, Wire | None]]:
    """The operators, each with the wire that it is, if it is one."""
    held: dict[str, set[str]] = {}
    for tensor, terms in graph.tensors.items():
        for holder in (tensor, tensor.rpartition(".")[0]):
            held.setdefault(holder, set()).update(_names(graph, terms))
    for operator in graph.operators:
        results = _names(graph, [term for dims in operator.outputs for term in dims])
        own = held.get(operator.layer, set())
        if operator.macs:
            touched = set(_names(graph, [term for product in operator.macs for term in product]))
        elif operator.name == _LOOKUP:
            touched = own
        else:
            yield operator, None
            continue
        writes = tuple(name for name in results if name in own)
        passes = tuple(n for n in results if n in touched and n not in writes and graph.axes[n].fixed is None)
        yield (
            operator,
            Wire(
                name=operator.layer or operator.path,
                operator=operator.name.removeprefix("aten."),
                reads=tuple(name for name in graph.axes if name in touched and name not in results),
                writes=writes,
                passes=passes,
            ),
        )


def _entire(graph: ChannelGraph, operator: Operator) -> set[str]:
    """The axes that are dimensions of a result by themselves, or parts of a concatenation, and no factors."""
    dims = [term for dims in operator.outputs for term in dims]
    parts = [part for term in dims for part in (term.parts if isinstance(term, Concat) else (term,))]
    return {part.name for part in parts if isinstance(part, Axis) and part.name in graph.axes}


def _attention(graph: ChannelGraph, operator: Operator) -> dict[str, str]:
    """The roles of the axes of one attention, whose result is (…, heads, queries, values)."""
    *batch, _, values = operator.outputs[0]
    sizes = operator.scale or operator.macs[0][-1]
    known = dict.fromkeys(_names(graph, [sizes]), HEAD_SIZE)
    known |= {name: VALUE_SIZE for name in _names(graph, [values]) if name not in known}
    heads = next((term for term in reversed(batch) if _names(graph, [term])), None)
    if heads is not None:
        names = list(_names(graph, [heads]))
        shared = isinstance(heads, Product) and len(names) == 2
        known |= dict(zip(names, (KEY_HEADS, QUERY_HEADS), strict=True)) if shared else dict.fromkeys(names, HEADS)
    return known


def _names(graph: ChannelGraph, terms: Iterable[Term]) -> dict[str, bool]:
    """The axes of the graph in terms, in order."""
    return {axis.name: True for term in terms for axis in axes_of(term) if axis.name in graph.axes}


def _macs(graph: ChannelGraph) -> list[tuple[int, dict[str, bool]]]:
    products = [product for operator in graph.operators for product in operator.macs]
    return [(math.prod(map(size, product)), _names(graph, product)) for product in products]


def _params(graph: ChannelGraph) -> list[tuple[int, dict[str, bool]]]:
    tensors = [graph.tensors[name] for name in graph.parameters]
    return [(math.prod(map(size, tensor)), _names(graph, tensor)) for tensor in tensors]


def _share(amounts: Sequence[tuple[int, dict[str, bool]]], names: Sequence[str]) -> float:
    """The share of what at least one of the axes takes part in."""
    chosen = set(names)
    return sum(n for n, held in amounts if not chosen.isdisjoint(held)) / max(sum(n for n, _ in amounts), 1)


def _layers(name: str, axes: Sequence[Axis]) -> tuple[str, ...]:
    modules = [member.rpartition(":")[0].rpartition(".")[0] or member for axis in axes for member in axis.members]
    block = re.match(r".*\d[–,][\d–,]*\.", name) if len(axes) > 1 else None
    own = block[0] if block else ""
    return tuple(f".{path.removeprefix(own)}" if own and path.startswith(own) else path for path, _ in spans(modules))
