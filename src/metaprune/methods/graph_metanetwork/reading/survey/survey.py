"""A survey of a network's axes, in groups that may be told or left out: to see which of them carry over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metaprune.cost.budget import Allocation, Budget
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.tensors import named_tensors
from metaprune.methods.graph_metanetwork.reading.network_graph import NetworkGraph
from metaprune.methods.graph_metanetwork.reading.survey.left import LEFT
from metaprune.methods.graph_metanetwork.reading.survey.position import COST, KIND, PLACE, costs, kinds, places
from metaprune.methods.graph_metanetwork.reading.survey.sensitivity import SENSITIVITY, sensitivity
from metaprune.methods.graph_metanetwork.reading.survey.spectra import SPECTRA, spectra
from metaprune.methods.saliency import gate_gradients, relative_norms
from metaprune.train.task import First, Task

__all__ = ["GROUPS", "Group", "columns", "surveyed"]

Group = Literal["cost", "place", "kind", "spectra", "evidence", "sensitivity", "left"]

EVIDENCE = 4

_WIDTHS: dict[Group, int] = {
    "cost": COST,
    "place": PLACE,
    "kind": KIND,
    "spectra": SPECTRA,
    "evidence": EVIDENCE,
    "sensitivity": SENSITIVITY,
    "left": LEFT,
}

GROUPS: tuple[Group, ...] = get_args(Group)


def columns(groups: Collection[str]) -> int:
    """How many numbers the groups tell of an axis.

    Raises:
        MetapruneError: There is no such group, or one comes twice.
    """
    if unknown := [group for group in groups if group not in _WIDTHS]:
        raise MetapruneError(f"survey: expected groups among {', '.join(GROUPS)}, got {unknown[0]!r}")
    if len(set(groups)) < len(groups):
        raise MetapruneError(f"survey: expected each group once, got {list(groups)}")
    return sum(width for group, width in _WIDTHS.items() if group in groups)


def surveyed(
    read: NetworkGraph,
    model: nn.Module,
    graph: ChannelGraph,
    task: Task | None,
    groups: Collection[str],
    gradients: Mapping[str, Float[Tensor, " batches size"]] | None = None,
) -> NetworkGraph:
    """The graph, with what some groups tell of its axes side by side, in the order of `GROUPS`.

    All is relative: shares, logarithms of ratios, ranks over the largest. Of axes that may not be cut only cost, place
    and kind are told. What is "left" of axes depends on the budget, and is told with it (`NetworkGraph.aimed`).

    Args:
        read: Of the network, from `graph_of`.
        model: The network, written out where its graph is; left untouched.
        graph: Its channel graph.
        task: Whose training data are asked; None tells of sensitivity and gates nothing.
        groups: Which.
        gradients: From `saliency.gate_gradients`, where they are known.
    """
    groups = [group for group in groups if group != "left"]
    if not columns(groups):
        return read
    names = list(read.names)
    if gradients is None:
        gradients = gate_gradients(model, graph, task) if task is not None else {}
    norms = relative_norms(named_tensors(model), graph)
    shares = read.axes.tolist()
    depths = {name: (row[2], row[3]) for name, row in zip(names, shares, strict=True)}
    squares = {name: said.square().mean(0) for name, said in gradients.items() if len(said)}
    order = {name: own * squares[name] ** 0.25 if name in squares else own for name, own in norms.items()}

    def sensed() -> dict[str, list[float]]:
        if task is None:
            return {}
        return sensitivity(model, graph, read, replace(task, train=First(task.train, 1)), order)

    def priced() -> dict[str, list[float]]:
        return costs(graph, names, Allocation(graph, Budget(macs=1.0, multiple_of=1)).prices({}))

    tell: dict[str, Callable[[], Mapping[str, list[float]]]] = {
        "cost": priced,
        "place": lambda: places(graph, names, depths),
        "kind": lambda: kinds(graph, names),
        "spectra": lambda: spectra(graph, named_tensors(model), gradients),
        "evidence": lambda: {name: _shape(own, squares, name) for name, own in norms.items()},
        "sensitivity": sensed,
    }
    parts = []
    for group in GROUPS:
        if group in groups:
            said, nothing = tell[group](), [0.0] * _WIDTHS[group]
            parts.append(read.axes.new_tensor([said.get(name, nothing) for name in names]).reshape(len(names), -1))
    return replace(read, survey=torch.cat(parts, 1))


def _shape(norms: Tensor, squares: Mapping[str, Tensor], name: str) -> list[float]:
    """How evidence and norms are spread inside an axis, and how much evidence it has beside the others.

    The logarithm of its mean evidence over the mean of all axes, the deviation of the logarithms, what the upper half
    has of it; and the deviation of the norms' logarithms.
    """
    spread = float(norms.clamp(min=1e-4).log10().std(correction=0))
    if name not in squares or not float(squares[name].sum()) > 0:
        return [0.0, 0.0, 0.0, spread]
    own = squares[name]
    whole = torch.stack([each.mean() for each in squares.values()]).mean()
    logs = (own / own.mean()).clamp(min=1e-8).log10()
    upper = own.sort(descending=True).values[: (len(own) + 1) // 2].sum() / own.sum()
    return [
        float((own.mean() / whole).clamp(min=1e-6).log10()) / 2,
        float(logs.std(correction=0)) / 2,
        float(upper),
        spread,
    ]
