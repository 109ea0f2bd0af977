"""Decisions of the code by values, which a program keeps as assertions, and those among them that hang on draws."""

from __future__ import annotations

import torch
from torch import fx

__all__ = ["checks_a_draw", "decides"]

_ASSERTIONS = ("aten._assert_scalar", "aten._assert_async")


def decides(node: fx.Node) -> bool:
    """Whether a node is a decision of the code by values, kept as an assertion."""
    return str(node.target).startswith(_ASSERTIONS)


def checks_a_draw(node: fx.Node) -> bool:
    """Whether a node is a decision that hangs on what an operator drew.

    Dropout and attention draw what decides nothing.
    """
    if not decides(node):
        return False
    waiting, seen = [node], set[fx.Node]()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        name = str(one.target)
        drawn = torch.Tag.nondeterministic_seeded in getattr(one.target, "tags", ())
        if drawn and "dropout" not in name and "attention" not in name:
            return True
        waiting += one.all_input_nodes
    return False
