"""The plan: per axis, the channels that stay. The narrow waist between methods and surgery."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from metaprune.graph.errors import PlanError
from metaprune.graph.graph import ChannelGraph

__all__ = ["Plan", "ratios_of"]


@dataclass(frozen=True, init=False)
class Plan:
    """For each axis named, the channels that stay, ascending; axes that are not named stay whole.

    Example:
        >>> Plan({"layer1": [0, 2, 5]}).widths
        {'layer1': 3}
    """

    kept: Mapping[str, tuple[int, ...]]

    def __init__(self, kept: Mapping[str, Sequence[int]]) -> None:
        if not isinstance(kept, Mapping):
            raise PlanError(f"plan: expected a mapping from axis names to kept channels, got {type(kept).__name__}")
        object.__setattr__(self, "kept", {name: _channels(name, stays) for name, stays in kept.items()})

    @property
    def widths(self) -> dict[str, int]:
        """Number of channels that stay, per axis named."""
        return {name: len(stays) for name, stays in self.kept.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __hash__(self) -> int:
        return hash(self.to_json())

    def check(self, graph: ChannelGraph) -> None:
        """Check that every axis exists, is free (or stays whole), and holds the channels.

        Raises:
            PlanError: It names the axis, what was expected and what came.
        """
        for name, stays in self.kept.items():
            axis = graph.axes.get(name)
            if axis is None:
                known = ", ".join(list(graph.free)[:6])
                raise PlanError(f"plan: the graph has no axis {name!r}; free axes are {known} … (print the graph)")
            if not stays or stays[0] < 0 or stays[-1] >= axis.size:
                raise PlanError(
                    f"axis {name!r}: expected at least one kept channel, all inside [0, {axis.size}), "
                    f"got {_some(stays)}"
                )
            if axis.fixed is not None and len(stays) < axis.size:
                raise PlanError(f"axis {name!r} must keep its {axis.size} channels ({axis.fixed}), got {len(stays)}")

    def then(self, other: Plan) -> Plan:
        """The plan that cuts by this one and then by `other`, whose channels count in what this one left."""
        kept = dict(self.kept)
        for name, stays in other.kept.items():
            before = kept.get(name)
            kept[name] = stays if before is None else tuple(before[channel] for channel in stays)
        return Plan(kept)

    def to_json(self) -> str:
        """As JSON: axis name -> list of kept channels."""
        return json.dumps({name: list(stays) for name, stays in self.kept.items()}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what `to_json` wrote.

        Raises:
            PlanError: The text is no plan.
        """
        try:
            return cls(json.loads(text))
        except (json.JSONDecodeError, RecursionError) as error:
            raise PlanError(
                f"plan: expected JSON of axis names and kept channels, got {text[:40]!r} ({error})"
            ) from error


def ratios_of(graph: ChannelGraph, plan: Plan) -> dict[str, float]:
    """For each free axis the share of its channels that a plan leaves."""
    widths = plan.widths
    return {name: widths.get(name, axis.size) / axis.size for name, axis in graph.free.items()}


def _channels(name: str, stays: Sequence[int]) -> tuple[int, ...]:
    try:
        channels = tuple(int(channel) for channel in stays)
        whole = all(channel == given for channel, given in zip(channels, stays, strict=True))
    except (TypeError, ValueError, OverflowError):
        channels, whole = (), False
    if not whole:
        raise PlanError(f"axis {name!r}: expected a sequence of whole numbers, the channels that stay, got {stays!r}")
    if any(after <= before for before, after in itertools.pairwise(channels)):
        raise PlanError(f"axis {name!r}: kept channels must be ascending and different, got {_some(channels)}")
    return channels


def _some(channels: Sequence[int]) -> str:
    return f"({', '.join(map(str, channels[:6]))}{', …' if len(channels) > 6 else ''})"
