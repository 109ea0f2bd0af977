"""How good a network is, what it costs and how long it takes, and on which machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import date

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from metaprune.cost.clock import Clock
from metaprune.cost.closed_form import macs, params
from metaprune.cost.latency import Latency, latencies
from metaprune.graph.capture import inference_mode_of
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.report.report import Figures, Floor
from metaprune.train.checks import said
from metaprune.train.engine import device_of
from metaprune.train.processes import now
from metaprune.train.randomness import isolated
from metaprune.train.recipe import Recipe
from metaprune.train.scores import scores, scores_of_outputs
from metaprune.train.task import Loader, Task
from metaprune.version import VERSION

__all__ = ["clock_of", "environment", "figures", "floor", "in_turns", "in_turns_or_why", "moved", "part"]


def part(task: Task, split: str) -> Loader:
    """The batches of a split."""
    return task.test if split == "test" and task.test is not None else task.val


def figures(
    model: nn.Module, graph: ChannelGraph, plan: Plan | None, task: Task, recipe: Recipe, split: str
) -> Figures:
    """What a network costs and how good it is on a split of the task; its time is not measured."""
    found = scores(model, part(task, split), task, recipe)
    weights = {id(t): t for t in [*model.parameters(), *model.buffers()]}.values()
    return Figures(
        macs=macs(graph, plan),
        params=params(graph, plan),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in weights),
        metric=found.metric,
        latency=None,
        further=found.further,
    )


def floor(task: Task, split: str) -> Floor | None:
    """How good the inputs are without a network, where the task can say."""
    if task.pictures is None:
        return None
    found = scores_of_outputs(task.pictures.floor, part(task, split), task)
    return Floor(task.pictures.floor_name, found.metric, found.further)


def clock_of(recipe: Recipe) -> Clock:
    """The clock of those who name none: the recipe's device, in float32.

    Tensors are contiguous, as those that `load` gives, whatever layout the recipe trains with.
    """
    return Clock(device=recipe.device)


def in_turns(networks: Mapping[str, nn.Module], graph: ChannelGraph, clock: Clock) -> dict[str, Latency]:
    """Times of networks on the graph's example inputs, in turns; of several processes the first measures."""
    return now().told(lambda: _in_turns(networks, graph, clock))


def in_turns_or_why(
    networks: Mapping[str, nn.Module], graph: ChannelGraph, clock: Clock
) -> tuple[dict[str, Latency], str]:
    """The same; none, and why not, where that fails: after all that was trained, nothing is lost."""

    def tried() -> tuple[dict[str, Latency], str]:
        try:
            return _in_turns(networks, graph, clock), ""
        except Exception as error:
            return {}, said(error)

    found: tuple[dict[str, Latency], str] = now().told(tried)
    return found


def _in_turns(networks: Mapping[str, nn.Module], graph: ChannelGraph, clock: Clock) -> dict[str, Latency]:
    if clock.measure is not None:
        return clock.latencies(networks, graph.args, graph.kwargs)
    return latencies(networks, *clock.inputs(graph.args, graph.kwargs), **clock.settings)


def moved(large: nn.Module, small: nn.Module, graph: ChannelGraph) -> float:
    """How far cutting moved the outputs on the example inputs, relative to the largest output."""
    with inference_mode_of(large), inference_mode_of(small), torch.no_grad(), isolated():
        ours, theirs = (
            [leaf for leaf in tree_leaves(net(*graph.args, **graph.kwargs)) if isinstance(leaf, torch.Tensor)]
            for net in (large, small)
        )
    return max(
        (
            float((a - b).abs().max() / a.abs().max().clamp(min=1e-12))
            for a, b in zip(ours, theirs, strict=True)
            if a.shape == b.shape and a.numel()  # what does not count may have changed its size
        ),
        default=0.0,
    )


def environment(recipe: Recipe) -> dict[str, str]:
    """The machine and versions, for the report."""
    device = device_of(recipe)
    several = {} if now().size == 1 else {"processes": f"{now().size}, {recipe.strategy}"}
    machine = f"{'CPU' if device.type == 'cpu' else device.type} ({platform.machine()})"
    return {
        "metaprune": VERSION,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else machine,
        "threads": str(torch.get_num_threads()),
        **several,
        "date": date.today().isoformat(),
    }
