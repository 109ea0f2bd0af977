"""Every tensor of a network by name."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["named_tensors"]


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by qualified name, tied ones under every name they have."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
