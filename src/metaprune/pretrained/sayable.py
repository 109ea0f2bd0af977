"""Limits under which a configuration can say what a cut network is, found before anything is cut.

An entry of the configuration is made smaller, the network built from it without weights, and the widths read off its
sizes. Axes that one entry makes narrower by one share are tied: a trunk and the head sizes that are computed of it, the
hidden units of all blocks. Axes that no entry makes narrower stay whole. Nothing is known of any class.
"""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import nn

from metaprune.cost.lanes import lanes
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.limits import Limits
from metaprune.graph.plan import Plan
from metaprune.graph.quiet import quiet
from metaprune.graph.tensors import named_tensors
from metaprune.graph.term import Term, axes_of, width
from metaprune.pretrained.configuration import Facts, Key, Search, asked_for, entries
from metaprune.pretrained.folder import PretrainedError, is_pretrained, save_pretrained
from metaprune.surgery.slice import carve

__all__ = ["configuration_limits"]

_SHARES = (Fraction(1, 2), Fraction(3, 4), Fraction(2, 3))
"""What becomes of an entry: the first of these that the class takes and that says something."""

_PAIRS = 150
"""So many networks are built at most from two entries that change together."""

_DIMENSION = "size("


def configuration_limits(model: nn.Module, graph: ChannelGraph) -> Limits:
    """The limits under which the configuration of a network of transformers can say what becomes of it.

    What is pruned within them, by any method, `save_pretrained` writes as a folder of transformers' own: they tie what
    one entry of the configuration says, and keep what none does. A cut of each tie is tried, where there are weights.
    Other limits can be added with `dataclasses.replace`.

    Args:
        model: The dense network; left untouched.
        graph: From `mp.trace`.

    Raises:
        PretrainedError: It is no network of transformers, or its configuration does not build it.
    """
    if not is_pretrained(model):
        raise PretrainedError(
            f"configuration_limits: {type(model).__name__} is no network of transformers; say what is tied with "
            "mp.Limits(alike=…, together=…)"
        )
    search = Search(model, graph, Plan({}))
    with quiet():
        wrong = search.score({})
        if wrong is None or wrong:
            why = search.refusal if wrong is None else f"{'.'.join(min(wrong))} would be another"
            raise PretrainedError(
                f"configuration_limits: the configuration of this {type(model).__name__} does not build it ({why}); "
                "layers of your own are in no configuration"
            )
        groups: Sequence[tuple[str, ...]] = [tuple(move.axes) for move in _independent(_Reader(search, graph))]
        if not any(tensor.is_meta for tensor in named_tensors(model).values()):
            groups = _kept_promises(model, graph, groups)
    return _limits(graph, groups)


def _limits(graph: ChannelGraph, groups: Sequence[tuple[str, ...]]) -> Limits:
    told = {axis for group in groups for axis in group}
    return Limits(
        keep=[axis for axis in graph.free if axis not in told],
        together=[group for group in groups if len(group) > 1],
    )


@dataclass(frozen=True)
class _Move:
    """Axes that get narrower by one share where entries of a configuration change."""

    changes: Mapping[Key, Any]
    axes: frozenset[str] | tuple[str, ...]
    share: Fraction


def _independent(reader: _Reader) -> list[_Move]:
    """Moves that share no axis: those of few axes first, which leave the others more to themselves."""
    chosen: list[_Move] = []
    for move in sorted(reader.moves(), key=lambda move: len(move.axes)):
        known = {axis for other in chosen for axis in other.axes}
        if known & set(move.axes):
            inside = [other for other in chosen if set(other.axes) <= set(move.axes)]
            rest = reader.without(move, inside)
            if rest is None or known & set(rest.axes):
                continue
            move = rest
        chosen.append(move)
    order = {axis: place for place, axis in enumerate(reader.graph.free)}
    return [_Move(move.changes, tuple(sorted(move.axes, key=order.__getitem__)), move.share) for move in chosen]


class _Reader:
    """What changes of a configuration do to the axes of a graph."""

    def __init__(self, search: Search, graph: ChannelGraph) -> None:
        self.search = search
        self.graph = graph
        self.terms: dict[tuple[str, str], Term] = {
            (name, f"{_DIMENSION}{dim})"): term
            for name, terms in graph.tensors.items()
            for dim, term in enumerate(terms)
        } | dict(graph.numbers)
        self.whole = {name: axis.size for name, axis in graph.axes.items()}
        self.base: dict[Key, Any] = {}
        """Entries that were computed of others, as they are: so that the others can change by themselves."""
        self.entries: dict[Key, Any] = dict(entries(search.tree)) | {(name,): None for name in asked_for(search)}

    def moves(self) -> Iterator[_Move]:
        """Of each entry that says axes alone, then of pairs of entries for the axes that are left."""
        counts, told = list[Key](), set[str]()
        for key, value in sorted(self.entries.items(), key=lambda entry: entry[1] is not None):
            move = self._of_one(key, value)
            if move is not None:
                if value is None:
                    self._say(key, move)
                told |= set(move.axes)
                yield move
            if type(value) is int and value > 1:
                counts.append(key)
        tried = 0
        for keys in itertools.combinations(counts, 2):
            if tried >= _PAIRS or told >= self.graph.free.keys():
                return
            values = [self.entries[key] for key in keys]
            if any(value % 2 for value in values):
                continue
            tried += 1
            move = self.read({key: value // 2 for key, value in zip(keys, values, strict=True)})
            if move is not None and not told & set(move.axes):
                told |= set(move.axes)
                yield move

    def _say(self, key: Key, move: _Move) -> None:
        """Write an entry that had a default, where the network then is the same."""
        whole = move.changes[key] / move.share
        if whole == int(whole) and self.search.facts({**self.base, key: int(whole)}) == self.search.facts({}):
            self.base[key] = int(whole)

    def _of_one(self, key: Key, value: Any) -> _Move | None:
        """What an entry says by itself."""
        if value is None:
            sizes = {axis.size for axis in self.graph.free.values()}
            options: list[Any] = [one // 2 for one in sorted(sizes) if one % 2 == 0]
        elif type(value) is int:
            options = [int(value * share) for share in _SHARES if value * share == int(value * share)]
        else:
            options = [value / 2]
        for option in options:
            if option and (move := self.read({key: option})) is not None:
                return move
        return None

    def without(self, move: _Move, others: Sequence[_Move]) -> _Move | None:
        """The same change, but that the entries of others keep their axes whole; None where they cannot."""
        changes = dict(move.changes)
        for other in others:
            for key in other.changes:
                given, whole = self.entries[key], other.changes[key] / other.share
                whole = int(whole) if type(other.changes[key]) is int else float(whole)
                for option in (given, whole, None if given is None else float(given / move.share)):
                    tried = self.read({**changes, key: option}) if option is not None else None
                    if tried is not None and not set(tried.axes) & set(other.axes):
                        changes[key] = option
                        break
                else:
                    return None
        return self.read(changes)

    def read(self, changes: Mapping[Key, Any]) -> _Move | None:
        """The axes that are narrower in the network built; None where none is, or something else changes too."""
        facts, base = self.search.facts({**self.base, **changes}), self.search.facts({})
        if facts is None or base is None or facts == base or facts.keys() != base.keys():
            return None
        if any(facts[place] != base[place] for place in facts if place not in self.terms):
            return None
        for backwards in (False, True):
            widths = self._widths(facts, backwards)
            if widths is not None:
                narrower = {axis: Fraction(got, self.whole[axis]) for axis, got in widths.items()}
                narrower = {axis: share for axis, share in narrower.items() if share != 1}
                if narrower and len(set(narrower.values())) == 1 and narrower.keys() <= self.graph.free.keys():
                    return _Move(dict(changes), frozenset(narrower), next(iter(narrower.values())))
        return None

    def _widths(self, facts: Facts, backwards: bool) -> dict[str, int] | None:
        """The widths that explain all sizes and numbers, none larger than it was; None where there are none.

        What is not decided by them is taken to be whole, one after the other, from the first axis or from the last.
        """
        left = {place: term for place, term in self.terms.items() if place in facts}
        known = {name: axis.size for name, axis in self.graph.axes.items() if axis.fixed is not None}
        while left:
            undone: dict[tuple[str, str], Term] = {}
            before = len(known)
            for place, term in left.items():
                unknown = {axis.name for axis in axes_of(term) if axis.name in self.whole} - known.keys()
                if len(unknown) > 1:
                    undone[place] = term
                    continue
                found = self._solved(term, next(iter(unknown), None), known, facts[place])
                if found is None:
                    return None
                known |= found
            if len(undone) == len(left) and len(known) == before:
                open_axes = [name for name in self.graph.free if name not in known]
                name = open_axes[-1 if backwards else 0]
                known[name] = self.whole[name]
            left = undone
        return known

    def _solved(self, term: Term, axis: str | None, known: Mapping[str, int], value: Any) -> dict[str, int] | None:
        """The width of the one axis that is not known, such that a term is of a size; None where there is none."""
        if axis is None:
            return {} if width(term, known) == value else None
        low, high = 1, self.whole[axis]
        while low < high:
            middle = (low + high) // 2
            if width(term, {**known, axis: middle}) < value:
                low = middle + 1
            else:
                high = middle
        return {axis: low} if width(term, {**known, axis: low}) == value else None


def _kept_promises(
    model: nn.Module, graph: ChannelGraph, groups: Sequence[tuple[str, ...]]
) -> Sequence[tuple[str, ...]]:
    """The groups of which a cut is written and loaded again as it is; mostly all, and then one cut is tried."""
    if not groups or _is_said(model, graph, groups):
        return groups
    good: list[tuple[str, ...]] = []
    for group in groups:
        if _is_said(model, graph, [*good, group]):
            good.append(group)
    return good


def _is_said(model: nn.Module, graph: ChannelGraph, groups: Sequence[tuple[str, ...]]) -> bool:
    """Whether a cut of about a half of each group, of channels drawn, can be written as transformers' own."""
    numbers, kept = random.Random(0), dict[str, list[int]]()
    for lane in lanes(_limits(graph, groups).on(graph), 1).values():
        for axis, count in lane.channels(lane.nearest(0.5)).items():
            kept[axis] = sorted(numbers.sample(range(graph.axes[axis].size), count))
    done = carve(model, graph, Plan(kept))
    with tempfile.TemporaryDirectory() as folder:
        return not done.undone and save_pretrained(Path(folder), done.model, done.plan, graph) is None
