"""From words on the command line to networks, example inputs and methods."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import typer
from torch import nn

from metaprune.cli.errors import UsageError
from metaprune.cli.inputs import Inputs, inputs_of, taken_by
from metaprune.cost.latency import Latency
from metaprune.graph.calling import Call
from metaprune.graph.errors import MetapruneError
from metaprune.report.report import Report, from_json
from metaprune.train.checks import said

__all__ = [
    "Known",
    "UsageError",
    "build",
    "example",
    "find",
    "known_of",
    "network",
    "remembering",
    "report_in",
    "settings_of",
    "task_of",
    "timed_in",
]


def built_in() -> dict[str, dict[str, Callable[..., nn.Module]]]:
    """Task -> built-in name -> function that builds the network."""
    from metaprune.models import DENOISING, MODELS, SUPER_RESOLUTION, TRANSLATION

    return {
        "classification": MODELS,
        "super-resolution": SUPER_RESOLUTION,
        "denoising": DENOISING,
        "translation": TRANSLATION,
    }


def task_of(name: str) -> str | None:
    """What a built-in network is for; None for others."""
    return next((task for task, networks in built_in().items() if name in networks), None)


def network(name: str, **known: int | None) -> nn.Module:
    """The network that `name` stands for, with fresh weights (or those its function loads).

    Args:
        name: A built-in name (`resnet56`), `package.module:function`, `file.py:function`, or `hf:NAME`.
        known: What is known of the data: `classes`, `channels` and `scale`; each is given to functions that have a
            parameter of this name.

    Raises:
        UsageError: There is no such network, or its function fails.
    """
    return build(name, known)


def build(name: str, known: Mapping[str, int | None], varied: Mapping[str, Any] | None = None) -> nn.Module:
    """As `network`, with further arguments (`varied`) that its function must have a parameter for.

    Raises:
        UsageError: There is no such network or parameter, or its function fails.
    """
    varied = varied or {}
    if name.startswith("hf:"):
        if varied:
            raise UsageError(f"--vary: network {name!r} takes no {', '.join(varied)}")
        return _from_hub(name[3:])
    given = {key: value for key, value in known.items() if value is not None}
    if low := [key for key, value in given.items() if value < 1]:
        raise UsageError(f"network {name!r}: expected 1 or more {low[0]}, got {given[low[0]]}")
    function = find(name)
    try:
        takes = inspect.signature(function).parameters
        if odd := [key for key in varied if key not in takes]:
            raise UsageError(f"--vary: network {name!r} takes {', '.join(takes)}, got {', '.join(odd)}")
        result = function(**{key: value for key, value in given.items() if key in takes}, **varied)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"network {name!r}: {said(error)}; give a function that returns a network") from error
    if not isinstance(result, nn.Module):
        raise UsageError(f"network {name!r}: expected a torch.nn.Module, got {type(result).__name__}")
    return result


def find(name: str) -> Callable[..., Any]:
    """The function that a name stands for, not called yet: what is mistyped is better known before data are loaded.

    Raises:
        UsageError: There is none.
    """
    if name.startswith("hf:"):
        return partial(_from_hub, name[3:])
    if ":" not in name:
        return _built_in(name)
    place, _, attribute = name.rpartition(":")
    try:
        module = _module(place)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"network {name!r}: {said(error)}; give file.py:function or package.module:function"
        ) from error
    function: Callable[..., Any] | None = getattr(module, attribute, None)
    if function is None or not callable(function):
        named = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(attribute, named, 1)
        hint = f"did you mean {near[0]!r}?" if near else "give the name of a function that returns a network"
        raise UsageError(f"network {name!r}: {place} has no function {attribute!r}; {hint}")
    return function


def _built_in(name: str) -> Callable[..., nn.Module]:
    """The function of a built-in name."""
    known = {name: build for networks in built_in().values() for name, build in networks.items()}
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        raise UsageError(
            f"network {name!r} is not built in; there are {', '.join(known)}; others are given as "
            f"package.module:function, file.py:function or hf:NAME{f'; did you mean {near[0]!r}?' if near else ''}"
        )
    return known[name]


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
        here = Path(name).is_dir() or not _on_hub(name)
        model: nn.Module = transformers.AutoModel.from_pretrained(name, local_files_only=here)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"network 'hf:{name}' could not be loaded: {said(error)}") from error
    return model


def _on_hub(name: str) -> bool:
    """Whether the Hub has a network of that name; False where it cannot be reached, and what was loaded before counts.

    Raises:
        UsageError: It has none.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.HfApi().model_info(name, timeout=10)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UsageError(f"network 'hf:{name}': there is no such folder, and no such network on the Hub") from error
    except HfHubHTTPError:
        return True  # it is there, but not for this question
    except Exception:
        return False
    return True


def calls_of(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Call, ...]:
    """The calls of a network besides its forward: those of `generate`, where it generates from these inputs."""
    from metaprune.integrations.transformers import can_generate, generation_calls

    if not can_generate(model):
        return ()
    try:
        return generation_calls(model, args, kwargs)
    except MetapruneError as error:
        typer.echo(f"{error}; its forward alone is traced", err=True)
        return ()


def example(shape: str, batch: int, inputs: int = 1) -> tuple[torch.Tensor, ...]:
    """Example inputs from words like `3x32x32`: random pictures, so many to an example.

    Raises:
        UsageError: The words are no sizes.
    """
    given = Inputs.of(shape)
    if not given.plain:
        raise UsageError(f"--input: expected sizes of one example, like 3x32x32, got {shape!r}")
    args, _ = given.example(batch, inputs)
    return args


def report_in(folder: Path) -> Report:
    """The report of a folder.

    Raises:
        UsageError: There is none.
    """
    path = folder / "report.json"
    if not path.is_file() and (folder / "run.json").is_file():
        raise UsageError(f"report: the run in {folder} has not ended; start its command again, and it goes on")
    if not path.is_file():
        raise UsageError(f"report: {folder} holds no report.json; give a folder that `metaprune prune` wrote")
    try:
        return from_json(path.read_bytes().decode("utf-8"))
    except (OSError, UnicodeDecodeError, MetapruneError) as error:
        raise UsageError(f"report: {path} is damaged or foreign: {error}") from error


def remembering(report: Report, sizes: Sequence[int], **known: str) -> Report:
    """The report, with the sizes of an example and what else is known, such as classes; `known_of` finds it again."""
    return replace(report, settings={**report.settings, "input": "x".join(map(str, sizes)), **known})


@dataclasses.dataclass(frozen=True)
class Known:
    """What commands know of a network without data."""

    sizes: str  # of one example, as 3x32x32, or whole inputs
    given: bool  # whether the user said so, or a report
    builds: dict[str, Any]  # classes, channels, scale: for functions that build networks

    def example(self, net: nn.Module, batch: int | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Example inputs of a network, args and kwargs: as known, else those it has of its own."""
        own = None if self.given else inputs_of(net, batch)
        return Inputs.of(self.sizes).example(batch, taken_by(net)) if own is None else own


def known_of(model: str, pruned: Path | None, sizes: str | None, classes: int | None, scale: int | None) -> Known:
    """As given; else as the network was pruned; else 3x32x32 and 10 classes, or images of 128x128 to restore.

    Raises:
        UsageError: The sizes are no sizes, or there is no network with so few classes.
    """
    if classes is not None and classes < 1:
        raise UsageError(f"--classes: expected 1 or more, got {classes}")
    settings = settings_of(pruned)
    usual = {"super-resolution": "3x128x128", "denoising": "1x128x128"}.get(task_of(model) or "", "3x32x32")
    given = sizes is not None or "input" in settings
    sizes = settings.get("input", usual) if sizes is None else sizes
    one = Inputs.of(sizes).sizes
    known = {"classes": classes, "scale": scale, "inputs": None, "outputs": None}
    builds = {key: int(settings[key]) if value is None and key in settings else value for key, value in known.items()}
    return Known(sizes, given, {"channels": None if one is None else one[0], **builds})


def settings_of(pruned: Path | None) -> dict[str, str]:
    """The settings in the report of a pruned network; none where there is no report."""
    if pruned is None or not (pruned / "report.json").is_file():
        return {}
    settings = report_in(pruned).settings
    for key, kind in (
        ("classes", int),
        ("scale", int),
        ("sigma", float),
        ("inputs", int),
        ("outputs", int),
        ("ways", int),
        ("shots", int),
    ):
        try:
            kind(settings.get(key, "1"))
        except ValueError as error:
            raise UsageError(f"report: {pruned} has a report whose {key} is {settings[key]!r:.40}") from error
    return settings


def timed_in(pruned: Path | None) -> dict[str, Latency]:
    """The times in the report of a pruned network: "dense" and "pruned"; none where there is no report."""
    if pruned is None or not (pruned / "report.json").is_file():
        return {}
    report = report_in(pruned)
    dense, cut = report.dense.latency, report.pruned.latency
    return {} if dense is None or cut is None else {"dense": dense, "pruned": cut}
