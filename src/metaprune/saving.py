"""A pruned network on disk: plan, weights and report; no pickle anywhere."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from metaprune.graph.attributes import held, write_numbers
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import named_tensors, with_tensors
from metaprune.graph.term import size
from metaprune.report.card import model_card
from metaprune.report.page import render
from metaprune.report.report import Report, to_json
from metaprune.surgery.attention import written_out

__all__ = ["SavingError", "load", "read_weights", "save"]

WEIGHTS = "model.safetensors"
META = "metaprune"


class SavingError(MetapruneError):
    """A folder or file of a pruned network that cannot be written or read."""


def save(folder: str | Path, model: nn.Module, plan: Plan, graph: ChannelGraph, report: Report) -> Path:
    """Write a pruned network and what is known of it.

    Raises:
        SavingError: The folder cannot be written.
    """
    folder = Path(folder)
    modules = dict(model.named_modules())
    numbers = {f"{path}:{name}": held(modules, path, name) for path, name in graph.numbers}
    dense = {name: [size(term) for term in terms] for name, terms in graph.tensors.items()}
    known = {"numbers": numbers, "dense": dense, "written_out": graph.written_out}
    meta = {META: json.dumps(known)}  # one key: several would come in any order
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in named_tensors(model).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor.detach().cpu().contiguous()
    texts = {
        "plan.json": plan.to_json() + "\n",
        "report.json": to_json(report),
        "report.html": render(report),
        "README.md": model_card(report),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if taken := [name for name in (*texts, WEIGHTS) if (folder / name).is_dir()]:
            raise OSError(f"{taken[0]} is a folder")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as unfinished:
            for name, text in texts.items():
                (Path(unfinished) / name).write_text(text)
            save_file(tensors, Path(unfinished) / WEIGHTS, meta)
            for name in (*texts, WEIGHTS):
                (Path(unfinished) / name).replace(folder / name)
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
    if META not in meta:
        raise SavingError(f"load: {path} was not written by Result.save; use read_weights for plain weights")
    try:
        known_of_it = json.loads(meta[META])
        model = written_out(model, known_of_it.get("written_out", {}))
        numbers = _numbers(known_of_it["numbers"], model)
        dense = {name: tuple(sizes) for name, sizes in known_of_it["dense"].items()}
        known = named_tensors(model)
        shapes = {name: tuple(tensor.shape) for name, tensor in known.items()}
        fits = all(shapes.get(name) == was for name, was in dense.items()) and {id(known[name]) for name in kept} == {
            id(tensor) for tensor in known.values()
        }
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise SavingError(
            f"load: {path} is damaged, or does not fit this {type(model).__name__} ({error!r})"
        ) from error
    if not fits:
        name = next((n for n in [*dense, *shapes] if shapes.get(n) != dense.get(n)), "the tying of its weights")
        raise SavingError(
            f"load: {path} does not fit this {type(model).__name__}: {name} is {shapes.get(name, 'other')} here "
            f"and was {dense.get(name, 'other')} before it was pruned; give the network that was pruned"
        )
    small = with_tensors(model, {name: tensor.to(known[name].device) for name, tensor in kept.items()})
    write_numbers(small, numbers)
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


def _numbers(given: dict[str, object], model: nn.Module) -> dict[tuple[str, str], int]:
    """The numbers of modules in a file; only whole numbers that the network has may be set.

    Raises:
        ValueError: There are others.
    """
    modules = dict(model.named_modules())
    numbers: dict[tuple[str, str], int] = {}
    for key, value in given.items():
        path, _, attribute = key.rpartition(":")
        if type(held(modules, path, attribute)) is not int or type(value) is not int:
            raise ValueError(f"{key} is no whole number")
        numbers[path, attribute] = value
    return numbers
