"""A rehearsal on tensors that have no values: what a network's code does, in a fraction of the time of doing it.

Code that asks a tensor for a value cannot run so, and some that asks for its device goes another way: whoever is told
that something failed runs it again with values, or on PyTorch's fake tensors, which say what device they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaprune.graph.calling import Call
from metaprune.graph.objects import open_to_trees
from metaprune.graph.rehearsal import rehearsal
from metaprune.graph.tensors import named_tensors

__all__ = ["is_small", "valueless"]

_SMALL = 10**8  # entries of tensors times entries of inputs


@contextmanager
def valueless(model: nn.Module, call: Call, seed: int = 0) -> Iterator[tuple[nn.Module, Call]]:
    """A stand-in for `model` in the mode of a call, and the call, both on PyTorch's meta device.

    Args:
        model: Any network; left untouched.
        call: How it is to be called.
        seed: Where the random numbers of Python and NumPy start.
    """
    with rehearsal(model, call.training, writes=False, seed=seed) as actor, torch.device("meta"), torch.no_grad():
        actor._apply(_emptied)  # type: ignore[no-untyped-call]
        with open_to_trees(call.args, call.kwargs):
            args, kwargs = pytree.tree_map_only(Tensor, _emptied, (call.args, dict(call.kwargs)))
        yield actor, replace(call, args=args, kwargs=kwargs)


def is_small(model: nn.Module, call: Call) -> bool:
    """Whether a call takes no longer than to work out its shapes, as far as that can be told from outside.

    Shapes are worked out in Python, one operator after another. False for what holds no values.
    """
    held = list(named_tensors(model).values())
    with open_to_trees(call.args, call.kwargs):
        given = [leaf for leaf in pytree.tree_leaves((call.args, dict(call.kwargs))) if isinstance(leaf, Tensor)]
    work = sum(tensor.numel() for tensor in held) * sum(tensor.numel() for tensor in given)
    return work <= _SMALL and not any(tensor.is_meta for tensor in [*held, *given])


def _emptied(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")
