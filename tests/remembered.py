"""Traces and cuts that are remembered: runs that begin with the same network and inputs share its graph.

A third of a short run is its trace, and another that the cut is verified. That a trace is a function of these is a law
of its own (`tests/laws`), and `mp.trace` and `mp.slice` themselves remember nothing.
"""

import hashlib
import importlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

PLACES = (
    *("deciding", "session.pruning", "session.rounds"),
    *(f"methods.graph_metanetwork.learning.{name}" for name in ("meta_train", "lessons.teach", "zoo")),
)
"""Where a run traces the network that it was given."""
MOST = 1 << 21  # bytes of tensors: beyond, to look at all of them takes as long
_TENSORS = ("_parameters", "_buffers", "_modules")
_ADDRESS = re.compile("0x[0-9a-f]+")


def key_of(model: nn.Module, inputs: Any) -> tuple[type, str] | None:
    """The same for what is the same in all that a graph may depend on; None where that cannot be told cheaply."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    leaves, form = pytree.tree_flatten(inputs)
    named += [(f"input {place}", leaf) for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    if sum(tensor.nbytes for _, tensor in named) > MOST or any(tensor.is_meta for _, tensor in named):
        return None
    seen = hashlib.sha256(repr((form, [leaf for leaf in leaves if not isinstance(leaf, Tensor)])).encode())
    ties: dict[int, str] = {}
    for name, tensor in named:
        tie = ties.setdefault(id(tensor), name)
        layout = (tensor.dtype, tuple(tensor.shape), tensor.stride(), str(tensor.device), tensor.requires_grad)
        seen.update(repr((name, tie, layout)).encode())
        seen.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    for path, module in model.named_modules(remove_duplicate=False):
        own = {name: value for name, value in vars(module).items() if name not in _TENSORS}
        if any(isinstance(leaf, Tensor) or callable(leaf) for leaf in pytree.tree_leaves(own)):
            return None  # such as hooks, which may enclose anything
        seen.update(_ADDRESS.sub("", repr((path, type(module), own))).encode())
    return type(model), seen.hexdigest()


@contextmanager
def remembered() -> Iterator[Callable[..., Any]]:
    """Within it, runs share the graphs and the cuts of networks that are the same; gives the `trace` that remembers."""
    from metaprune.graph.copying import clone
    from metaprune.surgery.slice import carve
    from metaprune.surgery.trace import trace

    graphs: dict[tuple[type, str], Any] = {}
    cuts: dict[tuple[type, str], tuple[Any, Any]] = {}

    def remembering(model: nn.Module, *inputs: Any, **others: Any) -> Any:
        key = key_of(model, (inputs, others))
        if key is None:
            return trace(model, *inputs, **others)
        if key not in graphs:
            graphs[key] = trace(model, *inputs, **others)
        return graphs[key]

    def carving(model: nn.Module, graph: Any, plan: Any) -> Any:
        key = key_of(model, (id(graph), sorted(plan.kept.items())))
        if key is None:
            return carve(model, graph, plan)
        if key not in cuts:
            cut = carve(model, graph, plan)
            if key_of(cut.model, ()) is None:
                return cut
            cuts[key] = graph, cut
        cut = cuts[key][1]
        return replace(cut, model=clone(cut.model))

    with pytest.MonkeyPatch.context() as patch:
        for place in PLACES:
            module = importlib.import_module(f"metaprune.{place}")
            patch.setattr(module, "trace", remembering)
        patch.setattr("metaprune.session.cutting.carve", carving)
        yield remembering
