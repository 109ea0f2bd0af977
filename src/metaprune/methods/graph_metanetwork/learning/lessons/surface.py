"""The peak of a surface through what a search measured: what all tries say together, where each alone is noise.

A metric is taken as smooth in the logarithms of widths around what the criterion keeps: y = b + g · x - k |x|² / 2, a
response surface (Box and Wilson 1951) with one curvature for all axes, since some thirty tries give no more. g is drawn
to zero by a ridge, which leave-one-out chooses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.graph.plan import Plan
from metaprune.methods.graph_metanetwork.learning.lessons.halving import Searched
from metaprune.methods.graph_metanetwork.learning.lessons.tries import logarithms

__all__ = ["peak"]

RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Among which leave-one-out chooses: how much g² counts against squared errors, in deviations of what was measured."""

FLATTEST = 0.1
"""Least curvature, in deviations of what was measured over squared deviations of widths."""

REACH = 0.8
"""The peak is no further from the criterion than this share of the tries."""


def peak(found: Searched, allocation: Allocation, heights: Mapping[str, Tensor]) -> Plan:
    """The plan at the peak of the surface, within the budget.

    Args:
        found: What a search tried; its first rival is where the surface begins.
        allocation: Of the same network and budget.
        heights: For each free axis, by what its channels are ranked; shape (size,).

    Raises:
        MetapruneError: Fewer than four tries were measured, or none of them differs from the others.
    """
    names = list(allocation.graph.free)
    trials = {name: trial for name, trial in found.trials.items() if math.isfinite(found.worth(trial.mean()))}
    origin = found.rivals[0]
    if len(trials) < 4 or origin not in trials:
        raise MetapruneError(f"peak: expected four tries or more and {origin!r} among them, got {len(trials)}")
    logs = {name: logarithms(allocation.graph, trial.plan) for name, trial in trials.items()}
    x = torch.stack([logs[name] - logs[origin] for name in trials])
    y = torch.tensor([found.worth(trial.mean()) for trial in trials.values()], dtype=torch.float64)
    noise = torch.tensor([found.noise**2 / len(trial.metrics) for trial in trials.values()], dtype=torch.float64)
    distances = x.square().sum(1).sqrt()
    if not distances.any() or not y.std() > 0:
        raise MetapruneError("peak: expected tries that differ, got the same widths or the same metric for all")
    away = summit(x, (y - y.mean()) / y.std(), noise / y.var())
    reach = distances.quantile(REACH)
    length = away.square().sum().sqrt()
    if length > reach:
        away = away * (reach / length)
    ratios = (logs[origin] + away).exp().clamp(max=1.0)
    return allocation.nearest(dict(zip(names, ratios.tolist(), strict=True)), heights)


def summit(
    x: Float[Tensor, "tries axes"], y: Float[Tensor, " tries"], noise: Float[Tensor, " tries"]
) -> Float[Tensor, " axes"]:
    """Where the surface through y at x is highest: g / k.

    Args:
        x: Logarithms of widths, 0 at the criterion's.
        y: What was measured, of mean 0 and deviation 1.
        noise: Variances of y.
    """
    scale = x.square().sum(1).mean().sqrt()
    away = x / scale
    inputs = torch.cat([torch.ones(len(x), 1, dtype=x.dtype), -away.square().sum(1, keepdim=True) / 2, away], 1)
    weight = 1 / (noise + noise.mean().clamp(min=0.05))  # what a surface so smooth leaves out is an error, too
    fits = [_fitted(inputs, y, weight, ridge) for ridge in RIDGES]
    coefficients, _ = min(fits, key=lambda fit: fit[1])
    curvature, slope = coefficients[1].clamp(min=FLATTEST), coefficients[2:]
    return scale * slope / curvature


def _fitted(
    inputs: Float[Tensor, "tries terms"], y: Float[Tensor, " tries"], weight: Float[Tensor, " tries"], ridge: float
) -> tuple[Float[Tensor, " terms"], float]:
    """Coefficients by weighted least squares, all but the constant drawn to zero; and the error by leave-one-out."""
    penalty = ridge * torch.ones(inputs.shape[1], dtype=inputs.dtype)
    penalty[0] = 1e-9
    weighted = inputs.T * weight
    inverse = torch.linalg.inv(weighted @ inputs + penalty.diag())
    coefficients = inverse @ weighted @ y
    leverage = ((inputs @ inverse) * inputs).sum(1) * weight
    left_out = (y - inputs @ coefficients) / (1 - leverage).clamp(min=1e-6)
    return coefficients, float((weight * left_out.square()).sum())
