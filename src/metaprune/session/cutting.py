"""From what a method found to a smaller network that is trained: cut, recalibrate or draw anew, fine-tune."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from metaprune.methods.method import Found, Problem
from metaprune.session.measuring import moved
from metaprune.surgery.anew import begin_anew
from metaprune.surgery.recalibrate import keeps_statistics, recalibrate
from metaprune.surgery.slice import Cut, carve
from metaprune.train.engine import evaluate
from metaprune.train.randomness import isolated, seed
from metaprune.train.run import History

__all__ = ["SILENT", "Shrunk", "shrink"]

SILENT = 1e-3
"""Outputs that change by less than this share of the largest are called the same (float32)."""


@dataclass(frozen=True)
class Shrunk:
    """A network cut down and trained.

    Attributes:
        cut: The smaller network, and what could not be cut.
        jump: How far an exact cut moved the outputs all the same, relative to the largest.
        before: Metric on the validation data of what stands for the network before the cut; None where nothing does.
        as_cut: The same right after the cut, before statistics were recalibrated; None where they were not.
        after: The same before fine-tuning; None where the weights were drawn anew.
        history: The epochs of fine-tuning.
        kept: Parameters that could not be drawn anew, where that was asked for.
    """

    cut: Cut
    jump: float
    before: float | None
    as_cut: float | None
    after: float | None
    history: History
    kept: tuple[str, ...] = ()

    @property
    def model(self) -> nn.Module:
        """The smaller network."""
        return self.cut.model


def shrink(found: Found, problem: Problem, dense_val: float | None, checkpoint: Path | None) -> Shrunk:
    """Cut what a method found, and train what is left of the schedule, as the user asked for it.

    Args:
        found: What the method found.
        problem: What it was given.
        dense_val: Metric of the given network on the validation data.
        checkpoint: The folder for the checkpoints of fine-tuning, or None.
    """
    task, recipe = problem.task, problem.recipe

    def metric(network: nn.Module) -> float:
        return evaluate(network, task.val, task, recipe)

    wide = found.model if found.before == "model" else found.before
    before = None if wide is None else dense_val if wide is problem.model else metric(wide)
    cut = carve(found.model, problem.graph, found.plan)
    small = cut.model
    jump = moved(wide, small, problem.graph) if found.exact and wide is not None else 0.0
    as_cut: float | None = None
    after: float | None = None
    kept: tuple[str, ...] = ()
    if found.fresh:
        with isolated():
            seed(recipe.seed)
            kept = begin_anew(small)
    else:
        if _to_recalibrate(found, cut, jump) and keeps_statistics(small):
            as_cut = metric(small)
            with isolated():
                seed(recipe.seed)
                recalibrate(small, task.train, task.inputs)
        after = metric(small)
    start = 0 if found.fresh else found.epochs
    tuned = History()
    if start < recipe.epochs:
        tuned = problem.fit(small, start=start, name="fine-tuning", checkpoint=checkpoint, keep=recipe.keep)
    return Shrunk(cut, jump, before, as_cut, after, tuned, kept)


def _to_recalibrate(found: Found, cut: Cut, jump: float) -> bool:
    """What the method says; where it says nothing, unless the cut was exact, or there was none."""
    if found.recalibrate is not None:
        return found.recalibrate
    return bool(cut.plan.kept) and (not found.exact or jump > SILENT)
