"""Where the channels that go are sent: exact optimal transport, or the nearest channel that stays."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["distances", "handed_on", "nearest", "transported"]


def distances(
    goes: Float[Tensor, " gone features"], stays: Float[Tensor, " kept features"], norm: int
) -> Float[Tensor, " gone kept"]:
    """‖w/‖w‖₂ − w'/‖w'‖₂‖ in the given norm."""
    return torch.cdist(_unit(goes), _unit(stays), p=float(norm))


def transported(cost: Float[Tensor, " gone kept"]) -> Float[Tensor, " gone kept"]:
    """The plan of least cost that sends equal masses away and brings equal masses in; each row sums to 1.

    That is the published problem with uniform marginals, in which channels that stay are among the sources: distances
    obey the triangle inequality, so that what they have themselves stays where it is in one of the best plans.
    """
    from ot.lp import emd

    gone, kept = cost.shape
    source, target = torch.full((gone,), 1 / gone).double(), torch.full((kept,), 1 / kept).double()
    most: Any = 100 * 1000 * (gone + kept)
    plan: Tensor = torch.from_numpy(emd(source.numpy(), target.numpy(), cost.double().numpy(), numItermax=most))
    sums: Tensor = plan.sum(1, keepdim=True)
    return plan / sums


def nearest(cost: Float[Tensor, " gone kept"]) -> Float[Tensor, " gone kept"]:
    """All of each channel to the one that costs least; of equals the first."""
    return torch.zeros_like(cost).scatter(1, cost.argmin(1, keepdim=True), 1.0)


def handed_on(
    moved: Float[Tensor, " gone kept"],
    goes: Int[Tensor, " gone"],
    stays: Int[Tensor, " kept"],
    share: Float[Tensor, " gone kept"],
) -> Float[Tensor, " kept size"]:
    """What each channel that stays takes over of every channel: all of itself, and what is sent to it of the others."""
    matrix = torch.zeros(len(stays), len(goes) + len(stays), dtype=torch.float64)
    matrix[torch.arange(len(stays)), stays] = 1.0
    matrix[:, goes] = (moved * share).T
    return matrix


def _unit(rows: Float[Tensor, " rows features"]) -> Float[Tensor, " rows features"]:
    sizes: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / sizes.clamp(min=1e-300)
