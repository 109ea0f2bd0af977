"""Shapes: a network run without values, to see in a fraction of the time of an export whether its code runs at all."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from metaprune.graph.calling import Call
from metaprune.graph.objects import open_to_trees
from metaprune.graph.quiet import quiet
from metaprune.graph.rehearsal import rehearsal
from metaprune.graph.valueless import valueless

__all__ = ["failure"]


def failure(model: nn.Module, calls: Iterable[Call]) -> Exception | None:
    """What a network's code raises in the first of some calls that it cannot answer; None where it answers all.

    Code that asks a tensor for a value raises too: what fails says something only of a network of which another form
    does not.
    """
    for call in calls:
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
