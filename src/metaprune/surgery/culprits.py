"""Which axes of a plan cannot be cut: read from where the cut network failed, and tried.

A failure names a line of the network's code. What is laid out there is suspected, in all blocks at once, and left whole
until the rest can be cut; then the suspects are tried again beside it, those of equal blocks together. So the number of
attempts hangs on how many lines are at fault, not on how many axes there are. Where a number went wrong by a factor
that only one suspect's width changed by, that one is convicted at once.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from metaprune.graph.graph import ChannelGraph, Operator
from metaprune.graph.term import Term, axes_of, size
from metaprune.surgery.blame import Failure

__all__ = ["MOST_ATTEMPTS", "Culprits", "with_alike"]

MOST_ATTEMPTS = 48
"""After so many, whatever has not been cut stays whole."""

_LEAST_ATTEMPTS, _OPERATORS = 3, 10_000
"""Of large networks fewer are made: as many as verify so many operators together, but some to bring suspects back."""

_PLACE = re.compile(r"(?P<file>[^\s:'\"]+\.\w+):(?P<line>\d+)")
_TENSOR = re.compile(r"tensor (?P<name>\S+) is")
_FEW = 8  # of more axes alike, all are left whole where the first cannot be cut, and the others cannot together
_UPSTREAM = 4  # operators that a failure is followed back through, where what it names is whole already

Kept = Mapping[str, tuple[int, ...]]


@dataclass
class Culprits:
    """Sorts the axes of a plan that does not verify as a whole.

    Attributes:
        graph: The graph that the axes are of.
        wanted: The channels that should stay.
        attempt: The network cut and verified, or in words what went wrong, with the line of code where it did.
        undone: Axis -> why it is left whole.
        accepted: What can be cut, together.
        model: The network with that cut; None before anything was.
        attempts: How many were made.
        most: How many may be.
        reasons: Axis -> why it was left whole at first.
    """

    graph: ChannelGraph
    wanted: Kept
    attempt: Callable[[Kept], nn.Module | str]
    undone: dict[str, str] = field(default_factory=dict)
    accepted: dict[str, tuple[int, ...]] = field(default_factory=dict)
    model: nn.Module | None = None
    attempts: int = 0
    most: int = MOST_ATTEMPTS
    reasons: dict[str, str] = field(default_factory=dict)

    def sort(self, reason: str) -> None:
        """Sort all axes, where to cut all of them at once fails for `reason`."""
        suspects = self.without_suspects(reason)
        operators = sum(len(one.operators) for one in self.graph.passes if one.like is None)
        self.most = min(self.most, max(self.attempts + _LEAST_ATTEMPTS, _OPERATORS // max(operators, 1)))
        known = reason if len(suspects) == 1 and not self.undone else None  # with it all fails, without it all is well
        for kind in sorted(suspects, key=self.entries, reverse=True):
            self.try_again(kind, known)
        for name in self.wanted.keys() - self.accepted.keys() - self.undone.keys():
            self.undone[name] = self.reasons.get(name, reason)

    def without_suspects(self, reason: str) -> list[list[str]]:
        """Leave whole what is suspected, until the rest can be cut; returns the kinds that were left."""
        rest, suspects = _kinds(self.wanted), []
        while rest:
            among = [name for kind in rest for name in kind]
            told: dict[str, str] = {}
            convicted: dict[str, str] = {}
            for one in (reason, *_others(reason)):
                found = self.suspected(one, among)
                told |= {name: told.get(name, one) for name in found}
                convicted |= {name: str(one) for name in self.convicted(one, found)}
            if convicted:
                self.undone |= convicted
                rest = [left for kind in rest if (left := [name for name in kind if name not in convicted])]
            else:
                guilty = [kind for kind in rest if not told.keys().isdisjoint(kind)] or rest[: -(-len(rest) // 2)]
                suspects += guilty
                self.reasons |= {name: told.get(name, reason) for kind in guilty for name in kind}
                rest = [kind for kind in rest if kind not in guilty]
            outcome = self.cut([name for kind in rest for name in kind])
            if outcome is None:
                return suspects
            if self.attempts >= self.most:
                break
            reason = outcome
        return []  # not even a copy verifies, or too much is at fault

    def try_again(self, kind: Sequence[str], reason: str | None = None) -> None:
        """Cut axes that play one part beside what can be cut already: all of them, those of one size, or some.

        Args:
            kind: The axes.
            reason: Why all of them cannot be cut, where that is known.
        """
        reason = reason or self.cut([*self.accepted, *kind])
        if reason is None:
            return
        sizes = _grouped(kind, lambda name: self.graph.axes[name].size)
        if len(sizes) > 1:
            for part in sizes:
                self.try_again(part)
        elif len(kind) == 1:
            self.undone[kind[0]] = reason
        else:
            first, *rest = kind
            self.try_again([first])
            if first in self.undone and len(kind) > _FEW:
                if (again := self.cut([*self.accepted, *rest])) is not None:
                    self.undone |= dict.fromkeys(rest, again)
            elif first in self.undone:
                for name in rest:
                    self.try_again([name])
            else:
                half = len(rest) // 2
                for part in (rest[:half], rest[half:]):
                    if part:
                        self.try_again(part)

    def cut(self, names: Iterable[str]) -> str | None:
        """Cut some axes: None where that verifies, and they are accepted, else what went wrong."""
        names = list(names)
        if self.attempts >= self.most:
            left = (self.reasons[name] for name in reversed(names) if name in self.reasons)
            return next(left, f"it was not tried: the cut had failed {self.most} times by then")
        self.attempts += 1
        kept = {name: self.wanted[name] for name in names}
        outcome = self.attempt(kept)
        if isinstance(outcome, str):
            return outcome
        self.accepted, self.model = kept, outcome
        return None

    def suspected(self, reason: str, among: Sequence[str]) -> set[str]:
        """The axes, of some, that a reason speaks of: those whose size the line was given as a number that nobody knows
        where from; or else all that are laid out there; or else a little upstream.
        """
        free = set(among)

        def of(terms: Iterable[Term]) -> set[str]:
            return {axis.name for term in terms for axis in axes_of(term)} & free

        if (tensor := _TENSOR.search(reason)) is not None and tensor["name"] in self.graph.tensors:
            return of(self.graph.tensors[tensor["name"]])
        operators = [one.operators for one in self.graph.passes if one.like is None]
        return next((found for one in operators if (found := self.upstream(one, _at(one, reason), of))), set())

    def convicted(self, reason: str, found: Iterable[str]) -> set[str]:
        """Of suspects, those that the numbers convict: only their widths, of one part in equal blocks, changed as the
        numbers did that went wrong.
        """
        widths = {name: len(self.wanted[name]) / self.graph.axes[name].size for name in found}
        factors = Counter(reason.factors) if isinstance(reason, Failure) else Counter()
        convicted: set[str] = set()
        for factor, times in factors.items():
            match = [name for name, width in widths.items() if _is_power(factor, width)]
            convicted |= set(match) if len(_kinds(match)) == 1 and len(match) <= times else set()
        return convicted

    def upstream(
        self, operators: Sequence[Operator], here: set[int], of: Callable[[Iterable[Term]], set[str]]
    ) -> set[str]:
        """What is laid out at some operators of a pass, or else a little before them."""
        found = {name for place in here for name in of(_unknown(operators[place]))}
        for _ in range(_UPSTREAM):
            if found or not here:
                break
            above = {source for place in here for source, _ in operators[place].operands}
            laid_out = [term for place in here for terms in operators[place].outputs for term in terms]
            laid_out += [
                term for place in above if isinstance(place, str) for term in self.graph.tensors.get(place, ())
            ]
            laid_out += [
                term
                for place in above
                if isinstance(place, int)
                for terms in operators[place].outputs
                for term in terms
            ]
            found = of(laid_out)
            here = {place for place in above if isinstance(place, int)}
        return found

    def entries(self, kind: Iterable[str]) -> int:
        """The entries of the parameters that some axes take part in."""
        names = set(kind)
        return sum(
            math.prod(map(size, terms))
            for terms in (self.graph.tensors[name] for name in self.graph.parameters)
            if any(axis.name in names for term in terms for axis in axes_of(term))
        )


def with_alike(graph: ChannelGraph, undone: Mapping[str, str]) -> dict[str, str]:
    """What cannot be cut to one width, and those of its size in equal blocks, which were cut to others by luck."""
    kinds = [part for kind in _kinds(graph.free) for part in _grouped(kind, lambda name: graph.axes[name].size)]
    guilty = [(kind, next((undone[name] for name in kind if name in undone), None)) for kind in kinds]
    return {name: undone.get(name, reason) for kind, reason in guilty if reason is not None for name in kind}


def _at(operators: Sequence[Operator], reason: str) -> set[int]:
    """The operators of the line that a reason names, or of its modules, or of the last line before it that has any."""
    place = _PLACE.search(reason)
    lines: dict[int, set[int]] = {}
    for index, operator in enumerate(operators):
        file, _, line = operator.where.rpartition(":")
        if place is not None and file == place["file"]:
            lines.setdefault(int(line), set()).add(index)
    if place is not None and int(place["line"]) in lines:
        return lines[int(place["line"])]
    paths = reason.paths if isinstance(reason, Failure) else frozenset()
    if inside := {index for index, operator in enumerate(operators) if operator.path in paths}:
        return inside
    before = [line for line in lines if place is not None and line <= int(place["line"])]
    return lines[max(before)] if before else set()


def _is_power(factor: float, width: float) -> bool:
    """Whether a number changed as the size did, or its root or square, upwards or downwards."""
    power = abs(math.log(factor) / math.log(width))
    return any(math.isclose(power, one, rel_tol=1e-6) for one in (0.5, 1.0, 2.0))


def _others(reason: str) -> tuple[str, ...]:
    return reason.others if isinstance(reason, Failure) else ()


def _unknown(operator: Operator) -> list[Term]:
    """The sizes that an operator was given as numbers of which nobody knows where they come from."""
    return [given.term for given in operator.sizes if given.number is None or isinstance(given.number, int)]


def _kinds(names: Iterable[str]) -> list[list[str]]:
    """Axes whose names differ in numbers only, as those of equal blocks do."""
    return _grouped(names, lambda name: re.sub(r"\d+", "0", name))


def _grouped(names: Iterable[str], by: Callable[[str], object]) -> list[list[str]]:
    groups: dict[object, list[str]] = {}
    for name in names:
        groups.setdefault(by(name), []).append(name)
    return list(groups.values())
