"""Whether a network that was given is what it should be: a warning that names the likely cause, if not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from metaprune.data.batches import Batches
from metaprune.data.preprocessing import IMAGENET, Preprocessing
from metaprune.train.engine import evaluate
from metaprune.train.recipe import Recipe
from metaprune.train.task import First, Task

__all__ = ["below_expected", "better_statistics", "doubt", "guessing"]

NEAR = 5.0
"""Points above guessing that still look like guessing."""

BETTER = 10.0
"""Points that another normalisation must be ahead by, on few images, to be named."""

SOME = 512
"""Images that other normalisations are tried on."""

SHORT = 0.05
"""Share of what was expected that may be missing."""

USUAL = {
    "--mean 0.5 --std 0.5": (0.5, 0.5),
    "--mean imagenet": (IMAGENET["mean"], IMAGENET["std"]),
    "--mean 0 --std 1": (0.0, 1.0),
    "--mean 0 --std 0.00392157": (0.0, 1 / 255),
}
"""Normalisations that networks are trained with elsewhere."""


def doubt(
    net: nn.Module,
    found: float,
    task: Task,
    recipe: Recipe,
    *,
    preprocessing: Preprocessing | None,
    expect: float | None,
    chosen: bool,
    trained: bool,
) -> str | None:
    """Why a network may not be seen as it was trained; None where all looks well.

    Args:
        net: The network, with its weights.
        found: Its metric.
        task: What was measured, and the data that other normalisations are tried on, those to choose by.
        recipe: The device and the precision.
        preprocessing: How the images come; None where they are not to be told apart.
        expect: The metric that it should have.
        chosen: Whether the user chose how images are normalised: then others are tried only where the metric is low.
        trained: Whether weights were given.
    """
    low = below_expected(found, expect, task.higher_is_better)
    if preprocessing is not None and low is None and found <= (chance := guessing(task)) + NEAR:
        low = f"{task.metric_name} is {found:.2f}, and guessing has {chance:.2f}"
    if low is not None and not trained:
        return f"{low}; no weights were given: --weights"
    if preprocessing is None or not trained or (low is None and chosen):
        return None if low is None else f"{low}; was the network trained for these data, degraded like this?"
    better = better_statistics(net, task, recipe, preprocessing)
    if better is not None:
        option, there, here = better
        low = low or f"{task.metric_name} is {found:.2f}"
        return (
            f"{low}; it looks trained with another normalisation: with {option} it has "
            f"{there:.1f} where it has {here:.1f} now, on some images of the validation part"
        )
    if low is None:
        return None
    mean, std = (",".join(f"{number:.3g}" for number in some) for some in (preprocessing.mean, preprocessing.std))
    return (
        f"{low}; likely causes: other --mean and --std than it was trained with (here {mean} and {std}), "
        f"another --size (here {preprocessing.shape[1]}), or classes in another order"
    )


def below_expected(found: float, expect: float | None, higher_is_better: bool) -> str | None:
    """That a metric falls far short of what was expected, in words."""
    if expect is None:
        return None
    short = expect - found if higher_is_better else found - expect
    return f"it has {found:.2f} where {expect:g} was expected" if short > SHORT * abs(expect) else None


def guessing(task: Task) -> float:
    """The accuracy in percent of whoever always says the most frequent class of the data to choose by."""
    assert isinstance(task.val, Batches)
    return 100.0 * float(torch.bincount(task.val.labels).max()) / len(task.val.labels)


def better_statistics(
    net: nn.Module, task: Task, recipe: Recipe, preprocessing: Preprocessing
) -> tuple[str, float, float] | None:
    """The usual normalisation that a network is far better with: its options, the metric with it, and that without."""
    assert isinstance(task.val, Batches)
    batches = -(-SOME // task.val.batch_size)
    here = evaluate(net, First(task.val, batches), task, recipe)
    tried = {
        option: evaluate(net, First(other, batches), task, recipe) for option, other in _others(task.val, preprocessing)
    }
    if not tried:
        return None
    best = max(tried, key=lambda option: tried[option])
    return (best, tried[best], here) if tried[best] >= here + BETTER else None


def _others(batches: Batches, preprocessing: Preprocessing) -> Iterator[tuple[str, Batches]]:
    """The same batches, normalised in other ways."""
    channels, white = preprocessing.shape[0], preprocessing.white
    own = "--mean data --std data", preprocessing.own
    for option, (mean, std) in [own, *USUAL.items()]:
        numbers = [torch.as_tensor(some, dtype=torch.float32).flatten() * white for some in (mean, std)]
        if any(len(some) not in (1, channels) for some in numbers):
            continue
        mean, std = (some.expand(channels) for some in numbers)
        if not (torch.allclose(mean, batches.mean, rtol=1e-3) and torch.allclose(std, batches.std, rtol=1e-3)):
            yield option, replace(batches, mean=mean, std=std)
