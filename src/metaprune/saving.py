"""A pruned network on disk: plan, weights and report; no pickle anywhere."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.term import width
from metaprune.report.card import model_card
from metaprune.report.page import render
from metaprune.report.report import Report, to_json

__all__ = ["SavingError", "load", "read_weights", "save"]

WEIGHTS = "model.safetensors"
NUMBERS = "metaprune.numbers"


class SavingError(MetapruneError):
    """A folder or file of a pruned network that cannot be written or read."""


def save(folder: str | Path, model: nn.Module, plan: Plan, graph: ChannelGraph, report: Report) -> Path:
    """Write a pruned network and what is known of it.

    Raises:
        SavingError: The folder cannot be written.
    """
    folder = Path(folder)
    numbers = {f"{path}:{name}": width(term, plan.widths) for (path, name), term in graph.numbers.items()}
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in _tensors(model).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor.detach().cpu().contiguous()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(plan.to_json() + "\n")
        (folder / "report.json").write_text(to_json(report))
        (folder / "report.html").write_text(render(report))
        (folder / "README.md").write_text(model_card(report))
        save_file(tensors, folder / WEIGHTS, {"format": "pt", NUMBERS: json.dumps(numbers)})
    except (OSError, SafetensorError) as error:
        raise SavingError(f"save: cannot write to {folder} ({error}); name a folder that can be written") from error
    return folder


def load(folder: str | Path, model: nn.Module) -> nn.Module:
    """The pruned network that `Result.save` wrote, as a copy of the user's own `model` with fewer channels.

    Args:
        folder: What `Result.save` was given.
        model: A dense network of the class that was pruned; its weights do not matter. Left untouched.

    Raises:
        SavingError: There is no such file, it is not safetensors, or it is of another network.
    """
    path = Path(folder) / WEIGHTS
    kept, meta = read_weights(path)
    if NUMBERS not in meta:
        raise SavingError(f"load: {path} was not written by Result.save; use read_weights for plain weights")
    known = _tensors(model)
    missing = [name for name in kept if name not in known]
    wrong = [
        name
        for name, tensor in kept.items()
        if name in known
        and (tensor.ndim != known[name].ndim or any(a > b for a, b in zip(tensor.shape, known[name].shape, strict=True)))
    ]
    absent = {id(tensor) for tensor in known.values()} - {id(known[name]) for name in kept if name in known}
    if missing or wrong or absent:
        what = (missing or wrong or [next(name for name, t in known.items() if id(t) in absent)])[0]
        raise SavingError(f"load: {path} is of another network than {type(model).__name__}: {what!r} does not fit")
    memo: dict[int, object] = {}
    for name, tensor in kept.items():
        before = known[name]
        tensor = tensor.to(before.device)
        is_parameter = isinstance(before, nn.Parameter)
        memo[id(before)] = nn.Parameter(tensor, before.requires_grad) if is_parameter else tensor
    small: nn.Module = copy.deepcopy(model, memo)
    modules = dict(small.named_modules())
    for key, value in json.loads(meta[NUMBERS]).items():
        place, _, attribute = key.rpartition(":")
        name, _, index = attribute.partition(".")
        if index:
            whole = list(getattr(modules[place], name))
            whole[int(index)] = value
            value = type(getattr(modules[place], name))(whole)
        setattr(modules[place], name, value)
    return small


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        SavingError: It is missing, or no safetensors; pickles are never opened.
    """
    path = Path(path)
    if not path.is_file():
        raise SavingError(f"weights: there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise SavingError(
            f"weights: {path} is no safetensors file ({error}); pickles are never opened: "
            "save it with safetensors.torch.save_file(model.state_dict(), ...)"
        ) from error


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, tied ones under every name."""
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


assert torch
