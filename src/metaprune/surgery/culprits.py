"""Which axes of a plan cannot be cut: found by trying parts of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from metaprune.graph.graph import ChannelGraph

__all__ = ["Culprits"]

_FEW = 8  # of more axes alike, all are left whole where the first cannot be cut

Kept = Mapping[str, tuple[int, ...]]


@dataclass
class Culprits:
    """Sorts the axes of a plan that does not verify as a whole.

    Attributes:
        graph: The graph that the axes are of.
        wanted: The channels that should stay.
        attempt: The network cut and verified, or in words what went wrong.
        accepted: What can be cut, together.
        undone: Axis -> why it is left whole.
    """

    graph: ChannelGraph
    wanted: Kept
    attempt: Callable[[Kept], nn.Module | str]
    accepted: dict[str, tuple[int, ...]] = field(default_factory=dict)
    undone: dict[str, str] = field(default_factory=dict)

    def sort(self, known: str) -> None:
        """Sort all axes, where to cut all of them at once fails for the reason `known`."""
        self.accept(_kinds(self.graph, self.wanted), known)

    def accept(self, kinds: Sequence[Sequence[str]], known: str | None = None) -> None:
        """Cut as many as can be verified beside what was accepted already, halving where they cannot."""
        names = [name for kind in kinds for name in kind]
        more = {name: self.wanted[name] for name in names}
        outcome = known or self.attempt(self.accepted | more)
        if isinstance(outcome, nn.Module):
            self.accepted |= more
        elif len(kinds) > 1:
            self.accept(kinds[: len(kinds) // 2])
            self.accept(kinds[len(kinds) // 2 :])
        elif len(names) > 1:
            self.accept([names[:1]])
            if names[0] in self.undone and len(names) > _FEW:
                self.undone |= dict.fromkeys(names[1:], self.undone[names[0]])
            else:
                self.accept([[name] for name in names[1:]])
        else:
            self.undone[names[0]] = outcome


def _kinds(graph: ChannelGraph, names: Iterable[str]) -> list[list[str]]:
    """Axes of one size whose names differ in numbers only, as those of equal blocks do."""
    kinds: dict[tuple[str, int], list[str]] = {}
    for name in names:
        kinds.setdefault((re.sub(r"\d+", "0", name), graph.axes[name].size), []).append(name)
    return list(kinds.values())
