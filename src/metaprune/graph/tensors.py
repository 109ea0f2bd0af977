"""Every tensor of a network by name."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ["clone", "named_tensors", "with_tensors"]


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by qualified name, tied ones under every name they have."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def with_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `model` with other tensors in the place of its own: ties stay tied, frozen parameters frozen.

    Args:
        model: Any network; left untouched.
        tensors: Qualified name -> what takes its place; one name is enough for a tied tensor.
    """
    known = named_tensors(model)
    memo: dict[int, object] = {}
    for name, tensor in tensors.items():
        before = known[name]
        parameter = isinstance(before, nn.Parameter)
        memo[id(before)] = nn.Parameter(tensor, before.requires_grad) if parameter else tensor
    return clone(model, memo)


def clone(model: nn.Module, memo: dict[int, object] | None = None) -> nn.Module:
    """A deep copy, also of a network whose modules hold tensors that were computed (old-style weight norm).

    Args:
        model: Any network; left untouched.
        memo: Identity of an object -> what takes its place in the copy.
    """
    memo = dict(memo or {})
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo.setdefault(id(value), value.detach().clone())
    return copy.deepcopy(model, memo)
