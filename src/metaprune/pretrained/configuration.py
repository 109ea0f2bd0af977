"""Which numbers of a configuration say what a cut network is: found by building it from them, without weights.

A configuration is a tree of JSON. Its entries get the sizes that the cut made of theirs, until the network built from
it has the tensors of the cut one, and holds the numbers that were followed. Nothing is known of any class.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from metaprune.graph.attributes import held, modules_by_name, write_numbers
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.quiet import quiet
from metaprune.graph.term import axes_of, inside, size, width
from metaprune.train.checks import said

__all__ = [
    "Described",
    "Facts",
    "Key",
    "Pretrained",
    "Search",
    "asked_for",
    "dense_configuration",
    "described",
    "entries",
    "floats_of",
    "skeleton",
]

Pretrained = Any
"""A network of transformers; its library is imported by whoever has one."""

Key = tuple[str | int, ...]
Tree = dict[str, Any]
Place = tuple[str, str]
"""A tensor and one of its dimensions, or a module and one of its numbers."""

Facts = dict[Place, Any]

_BUILDS = {False: 400, True: 60}
"""How many networks are built at most; fewer where blocks differ that were equal, and no entry is a list."""

_DIGITS = re.compile(r"\d+")
_SILENT = ("_", "transformers_version", "architectures", "model_type", "id2label", "label2id", "dtype", "torch_dtype")
_ABSENT = object()


@dataclass(frozen=True)
class Described:
    """A configuration that says what a network is, as far as its shapes and whole numbers show.

    Attributes:
        configuration: Of the class of the network's own.
        changed: What is other than in the dense one, as "hidden_size" -> 20.
    """

    configuration: Any
    changed: Mapping[str, Any]


def dense_configuration(model: Pretrained, graph: ChannelGraph) -> Any:
    """The configuration of the network before the cut, which set those of its numbers that were followed."""

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = copy.deepcopy(model.config)

    holder = Holder()
    dense = {
        (path, name): size(term)
        for (path, name), term in graph.numbers.items()
        if path == "" and name.startswith("config.") and held({"": holder}, "", name) is not None
    }
    write_numbers(holder, dense)
    return holder.config


def skeleton(model: Pretrained, configuration: Any) -> nn.Module:
    """What the network's class builds from a configuration, without values.

    Raises:
        Exception: Whatever the class raises where it cannot.
    """
    with quiet(), torch.device("meta"):
        built: nn.Module = type(model)(configuration)
    return built


def floats_of(model: nn.Module) -> dict[tuple[str, str], float]:
    """(module, attribute) -> value, for every number with a fraction that modules hold."""
    return {
        (path, name): value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if type(value) is float and math.isfinite(value)
    }


def described(model: Pretrained, graph: ChannelGraph, plan: Plan) -> Described | str:
    """The configuration of a cut network, or in words why none says it.

    Args:
        model: The cut network.
        graph: Of the network before the cut.
        plan: What was cut.
    """
    search = Search(model, graph, plan)
    base = search.score({})
    if base is None:
        return f"its configuration alone does not build it ({search.refusal})"
    state: dict[Key, Any] = {}
    if base:
        found = search.found(base)
        if isinstance(found, str):
            return found
        state = search.fewest(found)
    state = search.with_floats(state)
    configuration = search.configuration(state)
    return Described(configuration, {".".join(map(str, key)): value for key, value in state.items()})


class Search:
    """Changes of a configuration, and how far the network built from it is from the cut one."""

    def __init__(self, model: Pretrained, graph: ChannelGraph, plan: Plan) -> None:
        self.model = model
        self.dense = dense_configuration(model, graph)
        self.tree: Tree = self.dense.to_dict()
        self.followed = [(path, name) for path, name in graph.numbers if not name.startswith("config.")]
        self.wanted = _facts(model, self.followed)
        self.renamed = _renamed(graph, plan.widths)
        self.seen: dict[tuple[Any, ...], Facts | None] = {}
        self.refusal = ""
        self.builds = 0
        self.uneven = self._uneven(model, graph)
        self.most = _BUILDS[bool(self.uneven) and not _has_lists(self.tree)]

    def _uneven(self, model: Pretrained, graph: ChannelGraph) -> str:
        """In words, how equal blocks of the dense network differ now; empty where they do not."""
        kinds: dict[tuple[Any, ...], tuple[str, tuple[int, ...]]] = {}
        for name, tensor in model.state_dict().items():
            if name in graph.tensors:
                shape = tuple(tensor.shape)
                kind = (_DIGITS.sub("*", name, count=1), *map(size, graph.tensors[name]))
                first, usual = kinds.setdefault(kind, (name, shape))
                if usual != shape:
                    return f"{first} is {usual} now and {name} {shape}"
        return ""

    def configuration(self, changes: Mapping[Key, Any]) -> Any:
        """The configuration with some entries changed, read as from a file."""
        tree = copy.deepcopy(self.tree)
        for key, value in changes.items():
            _put(tree, key, value)
        return type(self.dense).from_dict(tree)

    def facts(self, changes: Mapping[Key, Any]) -> Facts | None:
        """What is to be known of the network built from a configuration; None where nothing can be built."""
        known = tuple(sorted((*map(str, key), repr(value)) for key, value in changes.items()))
        if known not in self.seen:
            self.builds += 1
            try:
                built = skeleton(self.model, self.configuration(changes))
                self.seen[known] = _facts(built, self.followed)
            except Exception as error:  # a class may refuse any numbers, in any way
                self.seen[known], self.refusal = None, said(error)
        return self.seen[known]

    def score(self, changes: Mapping[Key, Any]) -> list[Place] | None:
        """Where the network built differs from the cut one; None where nothing can be built."""
        facts = self.facts(changes)
        if facts is None:
            return None
        return [place for place in facts.keys() | self.wanted.keys() if facts.get(place) != self.wanted.get(place)]

    @cached_property
    def choices(self) -> dict[Key, list[Any]]:
        """Entry -> what it may become, likeliest first; those that no shape and no number hangs on are left out."""
        made = sorted({one for some in self.renamed.values() for one in some})
        found: dict[Key, list[Any]] = {}
        for key, value in entries(self.tree):
            if value is None:
                found[key] = list(made)
            elif type(value) is int and value in self.renamed:
                found[key] = [one for one in self.renamed[value] if one != value]
            if type(value) in (int, float) and value > 0:
                found[key] = list(dict.fromkeys([*found.get(key, ()), *self._ratios(value)]))
        for name in asked_for(self):
            found[(name,)] = list(made)
        return {key: values for key, values in found.items() if values and self._matters(key, values)}

    def _matters(self, key: Key, values: Sequence[Any]) -> bool:
        """Whether another network is built, or none, where the entry is another."""
        seen = [self.facts({key: value}) for value in values[:3]]
        built = [facts for facts in seen if facts is not None]
        if not built:
            return type(_get(self.tree, key)) is int
        return any(facts != self.facts({}) for facts in built)

    def _ratios(self, value: float) -> list[Any]:
        """What a ratio of two sizes became."""
        found: dict[Any, None] = {}
        for small, large in itertools.permutations(self.renamed, 2):
            if small * value == large:
                for under, over in itertools.product(self.renamed[small], self.renamed[large]):
                    ratio = over / under
                    found.setdefault(int(ratio) if type(value) is int and ratio == int(ratio) else ratio)
        return [ratio for ratio in found if ratio != value]

    def found(self, base: Sequence[Place]) -> dict[Key, Any] | str:
        """Changes that leave no difference, or in words what is left by the best there are."""
        alone = {key: self.renamed[value][0] for key, value in entries(self.tree) if self._is_told(value)}
        state: dict[Key, Any] = {}
        left: Sequence[Place] = base
        for start in (lambda: alone, lambda: self.told):
            likely = start()
            if left and (first := self.score(likely)) is not None and len(first) < len(left):
                state, left = likely, first
        while left and self.builds < self.most:
            better = self._step(state, left, 1) or self._step(state, left, 2)
            if better is None:
                break
            state, left = better
        if not left:
            return state
        if self.uneven:
            return f"{self.uneven}, for which {type(self.dense).__name__} has one number; prune with mp.Limits(alike=…)"
        place = min(left)
        would, is_ = (facts.get(place, "missing") for facts in (self.facts(state) or {}, self.wanted))
        return (
            f"{type(self.dense).__name__} has no numbers for it: {'.'.join(place)} would be {would} in place of {is_}"
        )

    def _is_told(self, value: Any) -> bool:
        """Whether a size became one thing alone, and another."""
        return type(value) is int and len(became := self.renamed.get(value, [])) == 1 and became[0] != value

    @cached_property
    def told(self) -> dict[Key, Any]:
        """Entry -> what it must be, where sizes or numbers of the network are the entry itself."""
        base = self.facts({}) or {}
        found: dict[Key, Any] = {}
        for key, values in self.choices.items():
            became: Counter[int] = Counter()
            for value in values[:3]:
                facts = self.facts({key: value}) or {}
                became.update(
                    self.wanted[place]
                    for place, one in facts.items()
                    if one == value and base.get(place, one) != one and place in self.wanted
                )
            if became:
                found[key] = became.most_common(1)[0][0]
        return {key: value for key, value in found.items() if value != _get(self.tree, key)}

    def _step(
        self, state: Mapping[Key, Any], left: Sequence[Place], together: int
    ) -> tuple[dict[Key, Any], Sequence[Place]] | None:
        """The best of the states that differ from this one in so many entries, where it is better."""
        best: tuple[dict[Key, Any], Sequence[Place]] | None = None
        for keys in itertools.combinations(self.choices, together):
            options = [[*self.choices[key], _get(self.tree, key)] for key in keys]
            for values in itertools.product(*options):
                other = {**state, **dict(zip(keys, values, strict=True))}
                other = {key: value for key, value in other.items() if value is not _ABSENT}
                if other == state or self.builds >= self.most:
                    continue
                wrong = self.score(other)
                if wrong is not None and len(wrong) < len(left if best is None else best[1]):
                    best = other, wrong
                    if not wrong:
                        return best
        return best

    def fewest(self, state: Mapping[Key, Any]) -> dict[Key, Any]:
        """Without the changes that nothing hangs on."""
        kept = dict(state)
        for key in state:
            without = {name: value for name, value in kept.items() if name != key}
            if self.score(without) == []:
                kept = without
        return kept

    def with_floats(self, state: dict[Key, Any]) -> dict[Key, Any]:
        """With entries for those numbers that code made of sizes, where the configuration has any for them."""
        wanted = floats_of(self.model)

        def off(changes: Mapping[Key, Any]) -> dict[tuple[str, str], float]:
            got = floats_of(skeleton(self.model, self.configuration(changes)))
            return {key: value for key, value in wanted.items() if key in got and not math.isclose(got[key], value)}

        wrong = off(state)
        for key, value in entries(self.tree):
            if not wrong:
                break
            if value is None or type(value) is float:
                for one in dict.fromkeys(wrong.values()):
                    other = {**state, key: one}
                    if self.score(other) == [] and len(left := off(other)) < len(wrong):
                        state, wrong = other, left
                        break
        return state


def _facts(model: nn.Module, followed: Sequence[tuple[str, str]]) -> Facts:
    """Every size of every tensor that is saved, and the numbers that were followed."""
    modules = modules_by_name(model)
    facts: Facts = {}
    for name, tensor in model.state_dict().items():
        facts |= {(name, ""): tensor.dim(), **{(name, f"size({dim})"): count for dim, count in enumerate(tensor.shape)}}
    return facts | {(path, name): held(modules, path, name) for path, name in followed}


def _renamed(graph: ChannelGraph, widths: Mapping[str, int]) -> dict[int, list[int]]:
    """Size -> what became of the things of this size, those that were cut first."""
    found: dict[int, dict[int, int]] = {}
    terms = itertools.chain(
        (term for terms in graph.tensors.values() for term in terms),
        graph.numbers.values(),
        (one.term for operator in graph.operators for one in operator.sizes),
        (term for operator in graph.operators for output in operator.outputs for term in output),
    )
    for inner in dict.fromkeys(inner for term in terms for inner in inside(term)):
        if any(graph.is_free(axis) for axis in axes_of(inner)):
            counts = found.setdefault(size(inner), {})
            became = width(inner, widths)
            counts[became] = counts.get(became, 0) + 1
    return {was: sorted(counts, key=lambda one: (one == was, -counts[one])) for was, counts in found.items() if was > 1}


def entries(tree: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every entry of a tree of JSON that holds a number or nothing."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if isinstance(name, str) and not name.startswith(_SILENT):
                yield from entries(value, (*key, name))
    elif isinstance(tree, list | tuple):
        for place, value in enumerate(tree):
            yield from entries(value, (*key, place))
    elif tree is None or type(tree) in (int, float):
        yield key, tree


def _has_lists(tree: Any) -> bool:
    """Whether an entry is a list of several whole numbers."""
    if isinstance(tree, dict):
        return any(map(_has_lists, tree.values()))
    return isinstance(tree, list | tuple) and len(tree) > 1 and all(type(one) is int for one in tree)


def _get(tree: Any, key: Key) -> Any:
    for name in key:
        if isinstance(tree, dict) and name not in tree:
            return _ABSENT
        tree = tree[name]
    return tree


def _put(tree: Any, key: Key, value: Any) -> None:
    for name in key[:-1]:
        if isinstance(tree[name], tuple):
            tree[name] = list(tree[name])
        tree = tree[name]
    tree[key[-1]] = value


def asked_for(search: Search) -> list[str]:
    """What the code that builds the network asks its configuration for in vain: it has a default for that."""
    asked: dict[str, None] = {}
    kind = type(search.dense)

    def missing(self: Any, name: str) -> Any:
        if not name.startswith("_"):
            asked.setdefault(name)
        raise AttributeError(f"{kind.__name__} has no attribute {name!r}")

    listening = type(kind.__name__, (kind,), {"__getattr__": missing, "__module__": kind.__module__})
    try:
        skeleton(search.model, listening.from_dict(copy.deepcopy(search.tree)))  # type: ignore[attr-defined]
    except Exception:  # a class that minds; then nothing is known to be missing
        return []
    return [name for name in asked if not hasattr(nn.Module, name)]
