"""What public functions are given, looked at before it is used."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from torch import nn

from metaprune.graph.errors import MetapruneError, PlanError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan

__all__ = ["brief", "check_switch", "is_finite", "is_number", "is_whole", "wanted", "wanted_cut"]


def wanted(who: str, what: str, value: object, kind: Any, example: str, error: type[MetapruneError]) -> None:
    """Refuse what is of another kind, such as a class in the place of one of its objects.

    Args:
        who: The function, for the error.
        what: The argument.
        value: What was given.
        kind: The class, or several.
        example: What it is like.
        error: What to raise.
    """
    if isinstance(value, type) or not isinstance(value, kind):
        raise error(f"{who}: expected the {what} as {example}, got {brief(value)}")


def check_switch(who: str, name: str, value: object) -> None:
    """Refuse what is neither on nor off.

    Raises:
        MetapruneError: It is no truth value.
    """
    if not isinstance(value, bool):
        raise MetapruneError(f"{who}: expected {name} as True or False, got {value!r}")


def brief(value: object) -> str:
    """A value in a few words."""
    words = " ".join(repr(value).split())
    return words if len(words) <= 60 else f"a {type(value).__name__}"


def is_number(value: object) -> bool:
    """Whether it is a number, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """Whether it is a whole number, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """Whether it is a finite number, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def wanted_cut(who: str, model: object, graph: object, plan: object) -> None:
    """Refuse what is no network, no graph or no plan."""
    wanted(who, "network", model, nn.Module, "an nn.Module", PlanError)
    wanted(who, "graph", graph, ChannelGraph, "mp.trace(model, args) returns it", PlanError)
    wanted(who, "plan", plan, Plan, "mp.Plan({'conv1': [0, 1]})", PlanError)
