"""Limits: what the user wants of widths, in patterns over the names of axes and modules."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph, WidthLimits
from metaprune.graph.term import axes_of

__all__ = ["Limits", "LimitsError", "limited"]

_DIGITS = re.compile(r"\d+")


class LimitsError(MetapruneError):
    """Limits that fit no axis, or that contradict one another."""


@dataclass(frozen=True)
class Limits:
    """What every method must leave, whatever it decides.

    A pattern (as `stem.*`, `layers.*.mlp` or `head`; `*` is anything) is over the names of axes, as the graph prints
    them, and over the names of modules: a module stands for the channels that it and what is inside it put out.

    Attributes:
        keep: Patterns of what stays whole.
        least: Pattern -> the smallest width: a share up to 1 of the channels, or a whole number of them above 1. Of
            several patterns that fit an axis, the last one counts. Without one, a tenth stays.
        most: Pattern -> the largest width, in the same way.
        alike: Patterns of axes of equal blocks that get one width: those whose names differ in numbers only and that
            have one size, as `layers.0.mlp` and `layers.1.mlp`.
        alike_channels: The same, and they keep the same channels.
        together: Groups of patterns; of all axes that fit one in a group the same share stays, whatever their names and
            sizes, as of a trunk of heads times head size and of its head sizes: `together=(("embed", "*attn*[1]"),)`.

    Raises:
        LimitsError: A value is no share and no number of channels.
    """

    keep: Sequence[str] = ()
    least: Mapping[str, float] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)
    alike: Sequence[str] = ()
    alike_channels: Sequence[str] = ()
    together: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        groups = self.together
        good = not isinstance(groups, str) and all(
            isinstance(group, Sequence) and not isinstance(group, str) and all(isinstance(one, str) for one in group)
            for group in groups
        )
        if not good:
            raise LimitsError(
                f"limits: expected together as groups of patterns, got {groups!r}; write "
                "together=(('embed', '*attn*'),)"
            )
        object.__setattr__(self, "together", tuple(map(tuple, groups)))
        for name in ("keep", "alike", "alike_channels"):
            given = getattr(self, name)
            if isinstance(given, str) or not all(isinstance(pattern, str) for pattern in given):
                raise LimitsError(f"limits: expected {name} as patterns, got {given!r}; write {name}=('stem.*',)")
            object.__setattr__(self, name, tuple(given))
        for name in ("least", "most"):
            given = getattr(self, name)
            if not isinstance(given, Mapping):
                raise LimitsError(f"limits: expected {name} by pattern, got {given!r}; write {name}={{'*': 0.5}}")
            for pattern, value in given.items():
                number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
                if not number or value <= 0 or (value > 1 and value != int(value)):
                    raise LimitsError(
                        f"limits: expected {name} of {pattern!r} as a share up to 1 or a whole number of channels, "
                        f"got {value!r}"
                    )

    def on(self, graph: ChannelGraph) -> ChannelGraph:
        """The graph with these limits in it: whoever decides by it obeys them.

        Raises:
            LimitsError: A pattern fits nothing, or least is above most.
        """
        known = _Names(graph)
        reasons = {
            axis: f"limits: {pattern!r} is kept" for pattern in self.keep for axis in known.fitting(pattern, "keep")
        }
        groups = {name: list(self._groups(graph, known, name)) for name in ("alike", "alike_channels")}
        together = tuple(
            tuple(dict.fromkeys(axis for pattern in group for axis in known.fitting(pattern, "together")))
            for group in self.together
        )
        tied = [(group, "has the width of") for kind in groups.values() for group in kind]
        reasons = _spread(graph, reasons, tied + [(group, "keeps the share of") for group in together])
        said: dict[str, str] = {}
        bounds: dict[str, dict[str, int]] = {"least": {}, "most": {}}
        for name, found in bounds.items():
            for pattern, value in getattr(self, name).items():
                fitting = known.fitting(pattern, name)
                stuck = {axis: reasons.get(axis) or graph.axes[axis].fixed for axis in fitting}
                if name == "most" and all(stuck.values()):
                    axis, cause = next(iter(stuck.items()))
                    raise LimitsError(f"limits: most of {pattern!r} is {value:g}, and {axis} cannot be cut ({cause})")
                for axis in (axis for axis in fitting if not stuck[axis]):
                    size = graph.axes[axis].size
                    width = math.ceil(value * size - 1e-9) if name == "least" else math.floor(value * size + 1e-9)
                    found[axis] = min(size, max(1, width if value <= 1 else int(value)))
                    said[axis] = f"{name} {pattern!r} {value:g}"
        least, most = bounds["least"], bounds["most"]
        for axis, width in most.items():
            if least.get(axis, 0) > width:
                raise LimitsError(f"limits: {axis} shall have at least {least[axis]} channels and at most {width}")
        limits = WidthLimits(
            least=least,
            most={axis: width for axis, width in most.items() if width < graph.axes[axis].size},
            alike=tuple(groups["alike"]),
            alike_channels=tuple(groups["alike_channels"]),
            together=together,
            said=said,
        )
        free = {axis: why for axis, why in reasons.items() if graph.axes[axis].fixed is None}
        return replace(graph.fixing(free), limits=limits)

    def _groups(self, graph: ChannelGraph, known: _Names, name: str) -> Iterator[tuple[str, ...]]:
        """Axes of one kind and size, two or more together."""
        for pattern in getattr(self, name):
            kinds: dict[tuple[str, int], list[str]] = {}
            for axis in known.fitting(pattern, name):
                kinds.setdefault((_DIGITS.sub("*", axis), graph.axes[axis].size), []).append(axis)
            yield from (tuple(group) for group in kinds.values() if len(group) > 1)


def _spread(
    graph: ChannelGraph, reasons: Mapping[str, str], tied: Sequence[tuple[Sequence[str], str]]
) -> dict[str, str]:
    """The reasons of axes that stay whole, with those of axes that are tied to one that does."""
    found = dict(reasons)
    before = -1
    while len(found) != before:
        before = len(found)
        for group, how in tied:
            whole = next((axis for axis in group if axis in found or graph.axes[axis].fixed is not None), None)
            if whole is not None:
                why = f"limits: it {how} {whole}, which must stay whole"
                found |= {axis: why for axis in group if axis not in found and axis != whole}
    return found


def limited(graph: ChannelGraph, limits: Limits | None) -> ChannelGraph:
    """The graph with limits in it, where any are given; else as it is.

    Raises:
        LimitsError: As `Limits.on`.
    """
    return graph if limits is None else limits.on(graph)


class _Names:
    """Which axes a pattern means."""

    def __init__(self, graph: ChannelGraph) -> None:
        self.axes = graph.axes
        self.modules: dict[str, dict[str, None]] = {}
        for operator in graph.operators:
            made = dict.fromkeys(axis.name for dims in operator.outputs for term in dims for axis in axes_of(term))
            for module in {operator.layer, operator.path}:
                self.modules.setdefault(module, {}).update(made)

    def fitting(self, pattern: str, who: str) -> list[str]:
        """The axes, in the graph's order.

        Raises:
            LimitsError: There is none.
        """
        if pattern in self.axes:
            return [pattern]
        literal = pattern.replace("[", "[[]")  # names of axes have brackets
        found = {axis for axis in self.axes if fnmatchcase(axis, literal)}
        for module, made in self.modules.items():
            parts = module.split(".")
            if any(fnmatchcase(".".join(parts[:count]), literal) for count in range(1, len(parts) + 1)):
                found |= made.keys() & self.axes.keys()
        if not found:
            raise LimitsError(
                f"limits: {pattern!r} in {who} fits no axis and no module; axes are named as in print(mp.trace(...)), "
                f"for example {next(iter(self.axes), '')!r}"
            )
        return [axis for axis in self.axes if axis in found]
