"""Frequencies of rotary positions in a configuration: a cut keeps some of them, which are no longer a power series.

Networks of transformers make them from their configuration by one of a few named rules. The rule "longrope" multiplies
each period by a factor of its own, and so it can say any frequencies; its other numbers are set to change nothing.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["frequencies_of", "is_spare", "same_frequencies", "with_frequencies"]

_NAME = "inv_freq"
_SPARE = "original_inv_freq"
"""What rules for long inputs go back to: a copy that nothing else reads, and that is made anew with the rule."""

_NEAR = 1e-6


def frequencies_of(model: nn.Module) -> dict[str, Tensor]:
    """The frequencies that modules made of their configuration, by name: they are in no file."""
    kept = model.state_dict().keys()
    return {
        name: buffer
        for name, buffer in model.named_buffers(remove_duplicate=False)
        if name.rpartition(".")[2] == _NAME and name not in kept
    }


def is_spare(name: str) -> bool:
    """Whether a tensor of this name is the copy of frequencies that nothing reads."""
    return name.rpartition(".")[2] == _SPARE


def with_frequencies(configuration: Any, model: nn.Module) -> Any:
    """The configuration with the frequencies of a network, where it says how they are made; else as it is."""
    rule = getattr(configuration, "rope_parameters", None)
    held = [found.detach().double().cpu() for found in frequencies_of(model).values()]
    if not held or not isinstance(rule, dict) or rule.get("rope_type") != "default" or held[0].dim() != 1:
        return configuration
    if any(found.shape != held[0].shape or not torch.equal(found, held[0]) for found in held):
        return configuration
    count, base = len(held[0]), rule.get("rope_theta")
    if not isinstance(base, int | float) or (held[0] <= 0).any():
        return configuration
    factors = [1.0 / (one * base ** (place / count)) for place, one in enumerate(held[0].tolist())]
    if all(math.isclose(factor, 1.0, rel_tol=_NEAR) for factor in factors):
        return configuration
    longest = getattr(configuration, "max_position_embeddings", None)
    changed = copy.deepcopy(configuration)
    changed.rope_parameters = {
        **rule,
        "rope_type": "longrope",
        "short_factor": factors,
        "long_factor": factors,
        "factor": 1.0,
        "attention_factor": 1.0,
        **({} if longest is None else {"original_max_position_embeddings": longest}),
    }
    return changed


def same_frequencies(one: Tensor, other: Tensor) -> bool:
    """Whether frequencies are the same but for rounding: they are made anew where a network is built."""
    return one.shape == other.shape and bool(torch.allclose(one.double(), other.double(), rtol=_NEAR, atol=0.0))
