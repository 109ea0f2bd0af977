"""A cut network warns where it is written in a form that does not say what was cut."""

from __future__ import annotations

import warnings
from types import MethodType
from typing import Any

from torch import nn

__all__ = ["warning_when_saved"]


def warning_when_saved(model: nn.Module) -> nn.Module:
    """The network itself; where its class writes it with a configuration, as in transformers, that warns from now."""
    if callable(getattr(type(model), "save_pretrained", None)):
        vars(model)["save_pretrained"] = MethodType(save_pretrained, model)
    return model


def save_pretrained(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """As the class does, with a warning. It has the name of the method, by which pickles find that again."""
    warnings.warn(
        f"save_pretrained: {type(self).__name__} was cut, which its configuration does not say: what is loaded from "
        "here may fail or compute something else; use result.save_pretrained(folder), or "
        "mp.integrations.transformers.save_pretrained(folder, small, plan, graph)",
        stacklevel=2,
    )
    kind: Any = type(self)
    return kind.save_pretrained(self, *args, **kwargs)
