"""Weights drawn anew, by the modules' own ways."""

from __future__ import annotations

from torch import nn

__all__ = ["begin_anew"]


def begin_anew(network: nn.Module) -> tuple[str, ...]:
    """Draw the weights of all modules that know how (`reset_parameters`), in place, from the global random numbers.

    Returns:
        The parameters that no module can draw: they are what they were.
    """
    drawn: set[int] = set()
    for module in network.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
            drawn |= {id(parameter) for parameter in module.parameters()}
    return tuple(name for name, parameter in network.named_parameters() if id(parameter) not in drawn)
