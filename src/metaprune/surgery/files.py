"""Files cut without the network in memory: from one folder of safetensors to another, tensor by tensor.

For networks that are too large to hold: traced on the meta device, decided upon, and cut here.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from metaprune.graph.arguments import wanted
from metaprune.graph.errors import MetapruneError, PlanError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.term import size, width
from metaprune.surgery.index import index
from metaprune.surgery.rescale import factors

__all__ = ["slice_files"]

INDEX = "model.safetensors.index.json"
ALONE = "model.safetensors"
SHARD = 2**30
"""Bytes of a file that is written: so much is held at once, and the largest tensor."""


def slice_files(folder: str | Path, graph: ChannelGraph, plan: Plan, out: str | Path) -> Path:
    """Cut the weights in a folder of safetensors down to a plan, into another folder; the network is never in memory.

    The network may be traced and cut on the meta device: `small = mp.slice(model, graph, plan)` gives the module that
    the files are for, to be filled by `small.load_state_dict(…, assign=True)`. Nothing is computed with values here, so
    the cut is verified as far as meta tensors go. What else lies in the folder (configuration, tokenizer) stays there.

    Args:
        folder: Holds `model.safetensors`, or several files and `model.safetensors.index.json`, as Hugging Face writes.
        graph: From `mp.trace`, of the network that the files are of; names must be those of its state dict.
        plan: The channels that stay.
        out: A folder that does not exist yet, or is empty. It appears when all of it is written.

    Returns:
        The folder: files of up to a gigabyte, `model.safetensors.index.json` and `plan.json`.

    Raises:
        PlanError: The plan does not fit the graph, or the files do not; or what the network computes from a size that
            is cut cannot be made up for in the weights.
        MetapruneError: A file cannot be read or written.
    """
    wanted("slice_files", "graph", graph, ChannelGraph, "mp.trace(model, args) returns it", PlanError)
    wanted("slice_files", "plan", plan, Plan, "mp.Plan({'conv1': [0, 1]})", PlanError)
    plan.check(graph)
    source, target = Path(folder), Path(out)
    places = _places(source)
    _fits(graph, places)
    scales = _scales(graph, plan)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise MetapruneError(f"slice_files: {target} is not empty; name a folder that does not exist yet")
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.mkdir(parents=True)
        try:
            _write(beside, _cut(places, graph, plan, scales))
            (beside / "plan.json").write_text(plan.to_json(), encoding="utf-8")
            beside.replace(target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise MetapruneError(f"slice_files: cannot cut {source} into {target} ({error})") from error
    return target


def _places(folder: Path) -> dict[str, Path]:
    """For each tensor the file that holds it."""
    try:
        if (folder / INDEX).is_file():
            said = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            files = {str(name) for name in said.values()}
        else:
            files = {ALONE}
        if odd := [name for name in files if Path(name).name != name or name in ("", ".", "..")]:
            raise ValueError(f"{odd[0]!r} is no file of the folder")
        places: dict[str, Path] = {}
        for name in sorted(files):
            with safe_open(folder / name, framework="pt") as file:
                places |= dict.fromkeys(file.keys(), folder / name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise MetapruneError(
            f"slice_files: expected {ALONE}, or files and {INDEX}, in {folder}, got none that can be read ({reason})"
        ) from error
    return places


def _shape(path: Path, name: str) -> tuple[int, ...]:
    with safe_open(path, framework="pt") as file:
        return tuple(file.get_slice(name).get_shape())


def _fits(graph: ChannelGraph, places: Mapping[str, Path]) -> None:
    """See that the files are of the network of the graph."""
    tied = {graph.tensors[name] for name in (places.keys() & graph.tensors.keys()) - set(graph.parameters)}
    if missing := [name for name in graph.parameters if name not in places and graph.tensors[name] not in tied]:
        raise PlanError(f"slice_files: the files lack {missing[0]!r} and {len(missing) - 1} more tensors of the graph")
    if more := sorted(places.keys() - graph.tensors.keys()):
        raise PlanError(f"slice_files: the graph knows no tensor {more[0]!r}; trace the network that the files are of")
    for name, path in places.items():
        ours = tuple(size(term) for term in graph.tensors[name])
        if (theirs := _shape(path, name)) != ours:
            raise PlanError(f"slice_files: expected {name!r} of sizes {ours}, as in the graph, got {theirs}")


def _scales(graph: ChannelGraph, plan: Plan) -> dict[str, Tensor]:
    """What tensors are multiplied by, at full width, to make up for scales that hang on a size that is cut.

    Raises:
        PlanError: That cannot be done.
    """
    found: dict[str, Tensor] = {}
    for inference in graph.inferences:
        if not plan.kept or graph.passes[inference.place].like is not None:
            continue
        if (odd := next((operator for operator in inference.operators if operator.computed), None)) is not None:
            raise PlanError(
                f"slice_files: {odd.where} ({odd.name}) computes with a number that may hang on a size, and files "
                "do not say how; cut the network in memory, by mp.slice"
            )
        here: dict[str, Tensor] = {}
        for operator, node in zip(inference.operators, inference.nodes, strict=True):
            term = operator.scale
            if term is None or (now := width(term, plan.widths)) == size(term):
                continue
            said = factors(inference, node, 0, math.sqrt(now / size(term)))
            if isinstance(said, str):
                raise PlanError(f"slice_files: {operator.where}: {said}; leave this axis whole")
            here |= {name: here.get(name, 1.0) * scale for name, scale in said.items()}
        if found and any(not torch.equal(found.get(name, scale), scale) for name, scale in here.items()):
            raise PlanError("slice_files: a weight must make up for different scales in two calls; leave it whole")
        found |= here
    return found


def _cut(
    places: Mapping[str, Path], graph: ChannelGraph, plan: Plan, scales: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """The tensors one by one, cut."""
    for name, path in places.items():
        with safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(name)
        small = index(tensor, graph.tensors[name], plan.kept)
        if name in scales:
            scale = scales[name].expand(tensor.shape)
            small = small * index(scale, graph.tensors[name], plan.kept).to(small)
        yield name, small.contiguous().clone() if small.data_ptr() == tensor.data_ptr() else small.contiguous()


def _write(folder: Path, tensors: Iterator[tuple[str, Tensor]]) -> None:
    """Files of up to `SHARD` bytes, and their index."""
    held: dict[str, Tensor] = {}
    shards: list[list[str]] = []
    total = 0

    def flush() -> None:
        shards.append(list(held))
        save_file(held, folder / f"{len(shards)}", metadata={"format": "pt"})
        held.clear()

    for name, tensor in tensors:
        bytes_ = tensor.numel() * tensor.element_size()
        if held and sum(t.numel() * t.element_size() for t in held.values()) + bytes_ > SHARD:
            flush()
        held[name] = tensor
        total += bytes_
    flush()
    weights: dict[str, Any] = {}
    for place, names in enumerate(shards, start=1):
        file = f"model-{place:05}-of-{len(shards):05}.safetensors"
        (folder / f"{place}").rename(folder / file)
        weights |= dict.fromkeys(names, file)
    said = {"metadata": {"total_size": total}, "weight_map": weights}
    (folder / INDEX).write_text(json.dumps(said, indent=1), encoding="utf-8")
