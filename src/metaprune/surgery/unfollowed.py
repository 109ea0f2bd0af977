"""Numbers that equal a size which may be cut, and were not followed to it: nobody changes them, everybody is told."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping

from torch import nn

from metaprune.graph.attributes import modules_by_name, whole_numbers
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.term import Axis, Product, Term, axes_of, size

__all__ = ["unfollowed"]


def unfollowed(
    model: nn.Module, graph: ChannelGraph, followed: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Term]:
    """(module, attribute) -> the nearest dimension of its size that may be cut, among those that the module holds.

    Such a number may be that size, kept for code that no traced call ran, or equal it by chance.

    Args:
        model: The network.
        graph: Its channel graph, with the reasons of all axes.
        followed: The numbers that code computed a size from, whatever they turned out to hold.
    """
    by_tensor = {name: list(_cuttable(terms, graph)) for name, terms in graph.tensors.items()}
    sizes = {size(term) for terms in by_tensor.values() for term in terms}
    modules = modules_by_name(model)
    found: dict[tuple[str, str], Term] = {}
    near: dict[str, dict[int, Term]] = {}
    for key, value in whole_numbers(model).items():
        path = key[0]
        if value not in sizes or key in graph.numbers or key in followed or _is_pytorchs(modules[path]):
            continue
        if path not in near:
            near[path] = _by_size(path, by_tensor)
        if value in near[path]:
            found[key] = near[path][value]
    return found


def _is_pytorchs(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] == "torch"


def _by_size(path: str, by_tensor: Mapping[str, list[Term]]) -> dict[int, Term]:
    """What the tensors of a module and of its children are made of, by size, the nearest first."""
    inside = f"{path}." if path else ""
    names = sorted((name for name in by_tensor if name.startswith(inside)), key=lambda name: name.count("."))
    result: dict[int, Term] = {}
    for term in (term for name in names for term in by_tensor[name]):
        result.setdefault(size(term), term)
    return result


def _cuttable(terms: tuple[Term, ...], graph: ChannelGraph) -> Iterator[Term]:
    """Each of the terms and everything inside it that has free axes, runs of neighbouring factors included."""
    for term in terms:
        if not any(graph.is_free(axis) for axis in axes_of(term)):
            continue
        yield term
        if isinstance(term, Product):
            count = len(term.factors)
            for start, stop in itertools.combinations(range(count + 1), 2):
                run = term.factors[start:stop]
                if len(run) < count:
                    yield from _cuttable(run if len(run) == 1 else (Product(run),), graph)
        elif not isinstance(term, Axis):
            yield from _cuttable(term.parts, graph)
