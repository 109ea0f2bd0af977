"""From words on the command line to networks, example inputs and methods."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaprune.graph.errors import MetapruneError
from metaprune.report.report import Report, from_json

__all__ = ["UsageError", "chosen_method", "example", "network", "pictures", "remembering", "report_in"]


class UsageError(MetapruneError):
    """A word on the command line that means nothing here."""


def network(name: str, classes: int | None = None, channels: int | None = None) -> nn.Module:
    """The network that `name` stands for, with fresh weights (or those its function loads).

    Args:
        name: A built-in name (`resnet56`), `package.module:function`, `file.py:function`, or `hf:NAME`.
        classes: Number of classes, for functions that have a parameter of this name.
        channels: Channels of the pictures, likewise.

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
        build = getattr(_module(place), function)
        known = {"classes": classes, "channels": channels}
        takes = inspect.signature(build).parameters
        result = build(**{key: value for key, value in known.items() if value is not None and key in takes})
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"network {name!r}: {type(error).__name__}: {error}; give a function that returns a network"
        ) from error
    if not isinstance(result, nn.Module):
        raise UsageError(f"network {name!r}: expected a torch.nn.Module, got {type(result).__name__}")
    return result


def _module(place: str) -> Any:
    """A file, or a module that `python -m` would find from here."""
    if not place.endswith(".py"):
        if "" not in sys.path:
            sys.path.insert(0, "")
        return importlib.import_module(place)
    name = f"metaprune_given_{Path(place).stem}"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for the annotations of a class
    spec.loader.exec_module(module)
    return module


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


def report_in(folder: Path) -> Report:
    """The report of a folder.

    Raises:
        UsageError: There is none.
    """
    path = folder / "report.json"
    if not path.is_file():
        raise UsageError(f"report: {folder} holds no report.json; give a folder that `metaprune prune` wrote")
    try:
        return from_json(path.read_text())
    except MetapruneError as error:
        raise UsageError(f"report: {path} is damaged or foreign: {error}") from error


def remembering(report: Report, shape: Sequence[int], classes: int) -> Report:
    """The report, with the sizes of an example and the number of classes, which `pictures` finds again."""
    known = {"input": "x".join(map(str, shape)), "classes": str(classes)}
    return replace(report, settings={**report.settings, **known})


def pictures(sizes: str | None, classes: int | None, pruned: Path | None) -> tuple[str, int]:
    """Sizes of an example and number of classes: as given, else as it was pruned with, else 3x32x32 and 10.

    Raises:
        UsageError: There is no network with so few classes.
    """
    held = pruned is not None and (pruned / "report.json").is_file()
    known = report_in(pruned).settings if pruned is not None and held else {}
    if classes is not None and classes < 1:
        raise UsageError(f"--classes: expected 1 or more, got {classes}")
    known = {"input": "3x32x32", "classes": "10", **known}
    return known["input"] if sizes is None else sizes, classes or int(known["classes"])


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
