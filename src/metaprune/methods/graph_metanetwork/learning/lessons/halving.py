"""A measured search for allocations: many are tuned shortly, the better ones again, and the best few once more.

Successive halving (Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943) over seeds of one short tuning: a
rung tries what is left with seeds of its own, and the mean over all seeds so far says what stays. Rivals, such as what
one-shot criteria keep, stay to the end. Since the seeds of the last rung have chosen nothing, the best of what was
found is compared with the best of the rivals without the luck of the draw.
"""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.graph.plan import Plan
from metaprune.methods.graph_metanetwork.learning.lessons.allocations import around, children, toward
from metaprune.methods.graph_metanetwork.learning.lessons.lesson import Lesson
from metaprune.methods.graph_metanetwork.learning.lessons.trials import Trial, as_file, kept_plans, measured
from metaprune.methods.method import Method, Problem

__all__ = ["RUNGS", "Rung", "Searched", "search"]


@dataclass(frozen=True)
class Rung:
    """A step of the halving.

    Attributes:
        most: How many allocations are tried at most, beside the rivals.
        seeds: Of their tunings.
    """

    most: int
    seeds: tuple[int, ...]


RUNGS = (Rung(30, (0,)), Rung(8, (1, 2)), Rung(3, (3, 4, 5, 6)))
"""How many are tried how often."""

ROUGH = 0.3
"""What a law of widths is taken to leave unexplained of the variance between allocations."""


@dataclass(frozen=True)
class Searched:
    """What a search saw.

    Attributes:
        share: Of the MACs, that was to stay.
        trials: By name; in the order in which they were first tried.
        rivals: Names of those that were given.
        rungs: How they were tried.
        higher_is_better: Of the metric.
    """

    share: float
    trials: Mapping[str, Trial]
    rivals: tuple[str, ...]
    rungs: tuple[Rung, ...]
    higher_is_better: bool

    @property
    def noise(self) -> float:
        """The deviation of the metric over seeds of one allocation, pooled; 0 where none has two."""
        spreads = [
            (len(values) - 1, statistics.variance(values))
            for trial in self.trials.values()
            if len(values := [value for value in trial.metrics.values() if math.isfinite(value)]) > 1
        ]
        degrees = sum(count for count, _ in spreads)
        return math.sqrt(sum(count * spread for count, spread in spreads) / degrees) if degrees else 0.0

    @property
    def spread(self) -> float:
        """The deviation between allocations, what seeds do taken out; of the tries with the first seed."""
        [first, *_] = self.rungs[0].seeds
        values = [value for trial in self.trials.values() if math.isfinite(value := trial.metrics[first])]
        return math.sqrt(max(statistics.variance(values) - self.noise**2, 0.0)) if len(values) > 1 else 0.0

    def chosen(self, names: Sequence[str]) -> str:
        """The best of some that reached the last rung, by the seeds before it (all, where there is one rung)."""
        seeds = [seed for rung in self.rungs[: max(len(self.rungs) - 1, 1)] for seed in rung.seeds]
        return max(names, key=lambda name: self.worth(self.trials[name].mean(seeds)))

    @property
    def finalists(self) -> tuple[str, ...]:
        """Those in the last rung that were no rivals."""
        last = set(self.rungs[-1].seeds)
        own = {name: trial for name, trial in self.trials.items() if name not in self.rivals}
        return tuple(name for name, trial in own.items() if last <= trial.metrics.keys())

    def worth(self, metric: float) -> float:
        """More is better; what failed is worst."""
        return -math.inf if not math.isfinite(metric) else metric if self.higher_is_better else -metric

    def lessons(self, sharpness: float = 1.0) -> tuple[Lesson, ...]:
        """Every allocation as a lesson, those that were measured better counting more.

        What is measured is drawn to the mean of all as far as seeds explain it (v / (v + n²/k), with v the variance
        between allocations, n the noise and k the tries), and counts exp(sharpness · distance / deviation).

        Args:
            sharpness: 0 counts all alike; infinite, the best alone.
        """
        values = {name: self.worth(trial.mean()) for name, trial in self.trials.items()}
        finite = [value for value in values.values() if math.isfinite(value)]
        if not finite:
            raise MetapruneError("lessons: expected a trial that did not fail, got none")
        centre, between, noise = statistics.fmean(finite), self.spread, self.noise
        drawn = {}
        for name, value in values.items():
            tries = len(self.trials[name].metrics)
            trust = between**2 / max(between**2 + noise**2 / tries, 1e-30)
            drawn[name] = trust * (value - centre) if math.isfinite(value) else -math.inf
        best = max(drawn.values())
        if math.isinf(sharpness) or between == 0:
            return tuple(Lesson(self.share, self.trials[n].plan) for n, value in drawn.items() if value == best)[:1]
        weights = {name: math.exp(sharpness * (value - best) / between) for name, value in drawn.items()}
        return tuple(Lesson(self.share, self.trials[n].plan, w) for n, w in weights.items() if w > 1e-3)

    def graded(self) -> tuple[Lesson, ...]:
        """Every allocation that was measured as a lesson with what it was worth, counting by how sure that is.

        What seeds explain of a mean is noise² / tries; beside it, no smooth law explains all that differs (`ROUGH`).
        """
        sure = {
            name: 1 / max(self.noise**2 / len(trial.metrics) + ROUGH * self.spread**2, 1e-30)
            for name, trial in self.trials.items()
        }
        return tuple(
            Lesson(self.share, trial.plan, sure[name], self.worth(trial.mean()))
            for name, trial in self.trials.items()
            if math.isfinite(trial.mean())
        )


def search(
    problem: Problem,
    heights: Mapping[str, Tensor],
    rivals: Mapping[str, Plan],
    out: Path,
    *,
    rungs: Sequence[Rung] = RUNGS,
    seed: int = 0,
    teachers: Mapping[str, Method] | None = None,
) -> Searched:
    """Try allocations within the problem's budget; what a killed search had tried is not tried again.

    The first rung is filled up in two goes: two thirds from `allocations.around`, the rest from `allocations.children`
    of the best quarter of those; what teachers find is tried beside. In the last rung the test data are measured, too,
    where there are any.

    Args:
        problem: The network, its budget (MACs), what it is for, and how it is tuned.
        heights: For each free axis, by what its channels are ranked; shape (size,).
        rivals: Name -> plan; the first is what `heights` alone would keep.
        out: The folder of the trials; several processes may share it.
        rungs: How many are tried how often; seeds may not repeat.
        seed: Of what is drawn.
        teachers: Name -> method that searches for longer, such as `mp.DHP()`. Its widths with the channels that
            `heights` ranks first, and half way to them, are tried; unlike rivals they go on only where they are good.
    """
    seeds = [number for rung in rungs for number in rung.seeds]
    if not rungs or not all(rung.seeds and rung.most > 0 for rung in rungs) or len(set(seeds)) < len(seeds):
        raise MetapruneError(f"search: expected rungs with seeds of their own, got {list(rungs)}")
    if len({as_file(name) for name in teachers or ()}) < len(teachers or ()):
        raise MetapruneError(f"search: expected teachers whose names differ in letters, got {list(teachers or ())}")
    allocation = Allocation(problem.graph, problem.budget)
    first, *later = rungs
    whole = first.most + len(rivals)
    begun = max(2 * whole // 3, len(rivals))
    plans = kept_plans(out / "plans.json", lambda: around(allocation, heights, rivals, begun, seed))
    found = Searched(problem.budget.value, {}, tuple(rivals), tuple(rungs), problem.task.higher_is_better)
    trials = measured(problem, plans, first.seeds, out, tested=not later)

    def order(names: Sequence[str]) -> list[str]:
        return sorted(names, key=lambda name: -found.worth(trials[name].mean()))

    best = order(list(plans))[: max(len(plans) // 4, 2)]
    if len(best) > 1 and whole > len(plans):
        known = plans
        plans = known | kept_plans(
            out / "children.json", lambda: children(allocation, heights, known, best, whole - len(known), seed)
        )
    for name, method in (teachers or {}).items():
        plans |= kept_plans(
            out / f"teacher-{as_file(name)}.json",
            partial(_taught, problem, allocation, heights, plans, next(iter(rivals.values())), name, method, out),
        )
    untried = {name: plan for name, plan in plans.items() if name not in trials}
    trials |= measured(problem, untried, first.seeds, out, tested=not later)
    alive = list(plans)
    for place, rung in enumerate(later, 1):
        alive = [*rivals, *order([name for name in alive if name not in rivals])[: rung.most]]
        again = measured(
            problem, {name: plans[name] for name in alive}, rung.seeds, out, tested=place == len(rungs) - 1
        )
        for name, trial in again.items():
            before = trials[name]
            trials[name] = replace(
                before,
                metrics={**before.metrics, **trial.metrics},
                tests={**before.tests, **trial.tests},
                seconds=before.seconds + trial.seconds,
            )
    return replace(found, trials=trials)


def _taught(
    problem: Problem,
    allocation: Allocation,
    heights: Mapping[str, Tensor],
    known: Mapping[str, Plan],
    own: Plan,
    name: str,
    method: Method,
    out: Path,
) -> dict[str, Plan]:
    """What a method finds, as allocations to try; it searches under the budget, and a killed search goes on."""
    checkpoint = out / f"teacher-{as_file(name)}"
    plan = method.find(replace(problem, checkpoint=checkpoint)).plan
    shutil.rmtree(checkpoint, ignore_errors=True)
    return toward(allocation, heights, known, own, {name: plan})
