"""From words on the command line to networks, example inputs and methods."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaprune.graph.errors import MetapruneError

__all__ = ["UsageError", "chosen_method", "example", "network"]


class UsageError(MetapruneError):
    """A word on the command line that means nothing here."""


def network(name: str, classes: int | None = None, channels: int | None = None) -> nn.Module:
    """The network that `name` stands for, with fresh weights (or those its function loads).

    Args:
        name: A built-in name (`resnet56`), `package.module:function`, `file.py:function`, or `hf:NAME`.
        classes: For built-in names: number of classes.
        channels: For built-in names: channels of the pictures.

    Raises:
        UsageError: There is no such network, or its function fails.
    """
    from metaprune.models import MODELS

    if name.startswith("hf:"):
        return _from_hub(name[3:])
    if ":" not in name:
        if name not in MODELS:
            raise UsageError(
                f"network {name!r} is not built in; there are {', '.join(MODELS)}; others are given as "
                "package.module:function, file.py:function or hf:NAME"
            )
        classes, channels = 10 if classes is None else classes, 3 if channels is None else channels
        if classes < 1 or channels < 1:
            raise UsageError(f"network {name!r}: expected 1 or more classes and channels, got {classes} and {channels}")
        return MODELS[name](classes=classes, channels=channels)
    place, _, function = name.rpartition(":")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
        result = getattr(module, function)()
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"network {name!r}: {type(error).__name__}: {error}; give a function without arguments"
        ) from error
    if not isinstance(result, nn.Module):
        raise UsageError(f"network {name!r}: expected a torch.nn.Module, got {type(result).__name__}")
    return result


def _from_hub(name: str) -> nn.Module:
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise UsageError(f"network 'hf:{name}' needs the package transformers: pip install transformers") from error
    try:
        model: nn.Module = transformers.AutoModel.from_pretrained(name)
    except Exception as error:
        raise UsageError(f"network 'hf:{name}' could not be loaded ({error})") from error
    return model


def example(shape: str, batch: int) -> tuple[torch.Tensor]:
    """Example inputs from words like `3x32x32`: random pictures.

    Raises:
        UsageError: The words are no sizes.
    """
    try:
        sizes = [int(size) for size in shape.split("x")]
        if not sizes or min(sizes) < 1:
            raise ValueError(shape)
    except ValueError as error:
        raise UsageError(f"--input: expected sizes like 3x32x32, got {shape!r}") from error
    if batch < 1:
        raise UsageError(f"--batch: expected 1 or more examples, got {batch}")
    try:
        return (torch.randn(batch, *sizes, generator=torch.Generator().manual_seed(0)),)
    except RuntimeError as error:
        raise UsageError(f"--input: {batch} pictures of {shape} do not fit in memory") from error


def chosen_method(name: str, settings: list[str]) -> Any:
    """A method with its settings, `field=value` each.

    Raises:
        UsageError: There is no such method or field, or the value is of another kind.
    """
    from metaprune.methods.registry import METHODS

    if name not in METHODS:
        raise UsageError(f"method {name!r} is not known; there are {', '.join(METHODS)}")
    fields = {field.name: field for field in dataclasses.fields(METHODS[name])}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key not in fields or not text:
            raise UsageError(f"--set {setting}: {name} takes {', '.join(fields) or 'no settings'}, as field=value")
        default = fields[key].default
        try:
            value = text if isinstance(default, str) else json.loads(text.lower())
        except json.JSONDecodeError as error:
            raise UsageError(f"--set {setting}: expected a value like {default!r}") from error
        number = isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool)
        if not number and type(value) is not type(default):
            raise UsageError(f"--set {setting}: expected a value like {default!r}, got {value!r}")
        values[key] = value
    return METHODS[name](**values)
