"""The numbers that modules keep about themselves: `num_heads`, `head_dim`, `split_sizes`, `out_channels` …

The rules of the operators know the numbers of PyTorch's own modules. For any other module, a whole-number attribute
that equals the size of a dimension the module holds is taken for that size; verification tells whether it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from metaprune.graph.graph import ChannelGraph
from metaprune.graph.term import Axis, Product, Term, axes_of, size, width

__all__ = ["guesses", "readings", "set_numbers", "write_numbers"]

Numbers = dict[tuple[str, str], Term]

_MOST_READINGS = 96


def set_numbers(model: nn.Module, numbers: Mapping[tuple[str, str], Term], widths: Mapping[str, int]) -> None:
    """Bring the attributes of `model` into line with the new widths, in place."""
    write_numbers(model, {key: width(term, widths) for key, term in numbers.items()})


def write_numbers(model: nn.Module, values: Mapping[tuple[str, str], int]) -> None:
    """Set attributes, in place: (module, attribute) -> value; `sizes.1` is the second entry of a tuple or list."""
    modules = dict(model.named_modules())
    for (path, attribute), number in values.items():
        name, _, index = attribute.partition(".")
        value: Any = number
        if index:
            whole = list(getattr(modules[path], name))
            whole[int(index)] = number
            value = type(getattr(modules[path], name))(whole)
        setattr(modules[path], name, value)


def guesses(model: nn.Module, graph: ChannelGraph) -> dict[tuple[str, str], list[Term]]:
    """For each attribute no rule knows, the terms it may stand for, the likeliest first."""
    result: dict[tuple[str, str], list[Term]] = {}
    for path, module in model.named_modules():
        numbers = {key: value for key, value in _whole_numbers(module) if (path, key) not in graph.numbers}
        if not numbers:
            continue
        terms = list(dict.fromkeys(_terms_held(path, module, graph)))
        for attribute, value in numbers.items():
            if found := [term for term in terms if size(term) == value]:
                result[path, attribute] = found
    return result


def readings(model: nn.Module, found: Mapping[tuple[str, str], list[Term]]) -> Iterator[Numbers]:
    """Ways to read all guesses at once: the likeliest, then those that differ for one attribute of a class, two, …

    Attributes of the same name in modules of the same class are read alike; any may also be left as it is.
    """
    modules = dict(model.named_modules())
    groups: dict[tuple[type[nn.Module], str], list[tuple[str, str]]] = {}
    for path, attribute in found:
        groups.setdefault((type(modules[path]), attribute), []).append((path, attribute))
    choices = {group: 1 + max(len(found[key]) for key in keys) for group, keys in groups.items()}
    others = [(group, choice) for group, count in choices.items() for choice in range(1, count)]
    deviations = itertools.chain.from_iterable(itertools.combinations(others, r) for r in range(3))
    single = (deviation for deviation in deviations if len(dict(deviation)) == len(deviation))
    for deviation in itertools.islice(single, _MOST_READINGS):
        chosen = dict(deviation)
        yield {
            key: found[key][choice]
            for group, keys in groups.items()
            for key in keys
            if (choice := chosen.get(group, 0)) < len(found[key])
        }


def _whole_numbers(module: nn.Module) -> Iterator[tuple[str, int]]:
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        if type(value) is int and value > 1:
            yield name, value
        elif isinstance(value, list | tuple) and value and all(type(entry) is int for entry in value):
            yield from ((f"{name}.{index}", entry) for index, entry in enumerate(value) if entry > 1)


def _terms_held(path: str, module: nn.Module, graph: ChannelGraph) -> Iterator[Term]:
    """Dimensions that the module's own code lays out, then those of its tensors and of its children's."""
    inside = f"{path}." if path else ""
    for operator in graph.operators:
        if operator.literal and operator.path == path:
            for dims in operator.outputs:
                for term in dims:
                    yield from _inner(term, graph)
    for depth in (0, 1):
        for name in (name for name in graph.tensors if name.startswith(inside)):
            if name.removeprefix(inside).count(".") == depth:
                for term in graph.tensors[name]:
                    yield from _inner(term, graph)


def _inner(term: Term, graph: ChannelGraph) -> Iterator[Term]:
    """A term and everything inside it that has free axes, runs of neighbouring factors included."""
    if any(graph.is_free(axis) for axis in axes_of(term)):
        yield term
        if isinstance(term, Product):
            count = len(term.factors)
            for start, stop in itertools.combinations(range(count + 1), 2):
                if stop - start < count:
                    run = term.factors[start:stop]
                    yield from _inner(run[0] if len(run) == 1 else Product(run), graph)
        elif not isinstance(term, Axis):
            for part in term.parts:
                yield from _inner(part, graph)
