"""Shapes: whether a network's code runs at all, seen in a fraction of the time of an export.

A small network is simply called. Any other runs without values.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from metaprune.graph.calling import Call
from metaprune.graph.capture import raised
from metaprune.graph.objects import open_to_trees
from metaprune.graph.quiet import quiet
from metaprune.graph.rehearsal import rehearsal
from metaprune.graph.valueless import is_small, valueless

__all__ = ["failure"]


def failure(model: nn.Module, calls: Iterable[Call]) -> Exception | None:
    """What a network's code raises in the first of some calls that it cannot answer; None where it answers all.

    Code that asks a tensor for a value may raise too: what fails says something only of a network of which another form
    does not.
    """
    for call in calls:
        if is_small(model, call):
            if (error := raised(model, call, call.training)) is not None:
                return error
            continue
        try:
            with valueless(model, call) as (actor, empty), quiet():
                empty.of(actor)
            continue
        except Exception:  # what fails is run once more, on tensors that say a device
            pass
        try:
            with (
                rehearsal(model, call.training) as actor,
                quiet(),
                open_to_trees(call.args, call.kwargs),
                FakeTensorMode(allow_non_fake_inputs=True),
                torch.no_grad(),
            ):
                call.of(actor)
        except Exception as error:
            return error
    return None
