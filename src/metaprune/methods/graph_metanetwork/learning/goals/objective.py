"""What a metanetwork is trained for, and the gradient of it at the price of one backward pass through the metanetwork.

An objective is a function of edited weights and scores to a scalar. The paper's (Liu et al. 2025, the meta-training
section) is the task's loss plus the group-norm regulariser of Fang et al. 2023 (arXiv 2301.12900), which makes weak
groups weaker. The direct one is the task's loss with the weakest channels left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from metaprune.graph.errors import MetapruneError
from metaprune.methods.graph_metanetwork.criterion import Weights, importance
from metaprune.methods.graph_metanetwork.editor.metanetwork import Edited, Metanetwork
from metaprune.methods.graph_metanetwork.reading.network_graph import NetworkGraph
from metaprune.train.processes import ALONE, Group
from metaprune.train.stepping import asker
from metaprune.train.task import Batch, Task

__all__ = [
    "Objective",
    "add_gradients",
    "group_penalty",
    "task_loss",
]

Objective = Callable[[Edited], Tensor]


def add_gradients(
    metanetwork: Metanetwork, graph: NetworkGraph, objectives: Iterable[Objective], group: Group = ALONE
) -> float:
    """Add the gradient of a sum of objectives to the metanetwork's `grad`, with one backward pass through it.

    The edited weights are made without a tape and serve as leaves, on which the gradients of all objectives (batches)
    add up. Then they are made again, with a tape, and the sum goes back through the metanetwork once. By the chain rule
    that is the gradient of the paper's procedure, which goes back once for each batch.

    Args:
        metanetwork: What is trained.
        graph: Of the network it edits.
        objectives: May be a generator: each is done with before the next is asked for.
        group: Processes whose objectives are others each; the gradients of all add up.

    Returns:
        The sum of the objectives' values, over all processes.
    """
    with torch.no_grad():
        edited = metanetwork(graph)
    if not edited.weights:
        raise MetapruneError("add_gradients: expected a network with parameters that train, got none to edit")
    leaves = [leaf.requires_grad_() for leaf in _parts(edited)]
    total = 0.0
    for objective in objectives:
        value = objective(edited)
        value.backward()  # type: ignore[no-untyped-call]
        total += value.item()
    group.add_gradients(leaves)
    pairs = zip(_parts(metanetwork(graph)), leaves, strict=True)
    reached = [(again, leaf.grad) for again, leaf in pairs if leaf.grad is not None]
    torch.autograd.backward([again for again, _ in reached], [gradient for _, gradient in reached])
    return group.total(torch.tensor(total, dtype=torch.float64)).item()


def _parts(edited: Edited) -> list[Tensor]:
    return [*edited.weights.values(), edited.scores, edited.tilts]


def task_loss(model: nn.Module, task: Task, batch: Batch) -> Callable[[Weights], Tensor]:
    """The task's loss on a batch, as a function of the weights in the place of the model's own, in the mode it is in.

    Args:
        model: The network whose graph the metanetwork reads; written out where that graph is.
        task: Says what the inputs of a batch are, and its loss.
        batch: One of the task's batches.
    """

    asked = asker(model, task)
    return lambda weights: asked(weights, batch)


def group_penalty(graph: NetworkGraph, weights: Weights, spread: float = 4.0) -> Tensor:
    """The group-norm regulariser: half the sum over channels of gamma_c times the squares of what lies on them.

    gamma_c = 2^(spread · (i_max - i_c) / (i_max - i_min)) inside each axis that may be cut, with i_c the root of a
    channel's importance, and no gradient through it: 16 for the weakest channel of an axis, 1 for the strongest.
    (Torch-Pruning divides by zero where all channels of an axis weigh the same; here gamma is 1.)
    """
    squares = importance(graph, weights)
    strength = squares.detach().clamp(min=0).sqrt()
    gamma = torch.zeros_like(strength)
    for nodes in graph.free.values():
        here = strength[nodes]
        gap = here.max() - here
        gamma[nodes] = 2 ** (spread * gap / gap.max().clamp(min=torch.finfo(gap.dtype).tiny))
    return 0.5 * (gamma * squares).sum()
