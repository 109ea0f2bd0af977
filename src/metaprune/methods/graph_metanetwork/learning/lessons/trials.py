"""Trials: networks cut to a plan, tuned for a short while and measured; each is kept in a file, and made once.

Several processes may work on one folder: a lock that the system lets go of when its process ends says who tries what.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from metaprune.graph.errors import MetapruneError
from metaprune.graph.plan import Plan
from metaprune.methods.graph_metanetwork.learning.turns import shared
from metaprune.methods.method import Problem
from metaprune.surgery.recalibrate import recalibrate
from metaprune.surgery.slice import carve
from metaprune.train.atomic import FileError, read_json, write_json
from metaprune.train.engine import evaluate
from metaprune.train.folder import sweep
from metaprune.train.progress import Bar
from metaprune.train.randomness import isolated, seed
from metaprune.train.run import TrainError

__all__ = ["Trial", "as_file", "kept_plans", "measured"]


@dataclass(frozen=True)
class Trial:
    """A plan, and what became of the network.

    Attributes:
        name: Of the plan.
        plan: The channels that stayed.
        metrics: Seed of the tuning -> metric on the validation data; not finite where the training failed.
        tests: The same on the test data, for seeds that were asked for it.
        seconds: Of processor time, all tunings together.
    """

    name: str
    plan: Plan
    metrics: Mapping[int, float] = field(default_factory=dict)
    tests: Mapping[int, float] = field(default_factory=dict)
    seconds: float = 0.0

    def mean(self, seeds: Iterable[int] | None = None) -> float:
        """Of the metric, over some seeds or all."""
        return statistics.fmean(self.metrics[each] for each in (self.metrics if seeds is None else seeds))


def as_file(name: str) -> str:
    """A name as a part of the name of a file."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name)


def kept_plans(path: Path, make: Callable[[], Mapping[str, Plan]]) -> dict[str, Plan]:
    """The plans in a file, or those made, which are written to it: a search that goes on tries what it began with.

    Raises:
        MetapruneError: The file is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            write_json(path, {"plans": {name: json.loads(plan.to_json()) for name, plan in make().items()}})
        try:
            return {name: Plan(kept) for name, kept in read_json(path)["plans"].items()}
        except (FileError, KeyError, AttributeError) as error:
            raise MetapruneError(f"search: {path} is damaged ({error!r:.100}); delete its folder") from error


def measured(
    problem: Problem, plans: Mapping[str, Plan], seeds: Sequence[int], folder: Path, *, tested: bool = False
) -> dict[str, Trial]:
    """Each plan with each seed: cut, recalibrated, tuned by the problem's recipe, measured.

    What lies in the folder is not tried again; what another process tries is waited for in the end.

    Args:
        problem: The network, what it is for, and how it is tuned; its budget is not looked at.
        plans: By name.
        seeds: Of the tuning.
        folder: Where rows are kept.
        tested: Whether the test data are asked, too, where there are any; they choose nothing.

    Raises:
        MetapruneError: The folder holds other plans under these names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)

    def kept_in(name: str, number: int) -> Path:
        return folder / f"{as_file(name)}-{number}.json"

    def row(one: tuple[str, int]) -> dict[str, Any]:
        plan, path = plans[one[0]], kept_in(*one)
        kept = json.loads(plan.to_json())
        if not path.exists():
            write_json(path, {"kept": kept, **_tuned(problem, plan, one[1], tested)})
        found = read_json(path)
        if found.get("kept") != kept:
            raise MetapruneError(f"search: {path} holds another plan; name another folder, or delete this one")
        return found

    wanted = [(name, number) for number in seeds for name in plans]
    done = itertools.count(1)
    with Bar("tunings", len(wanted), shown=problem.progress) as bar:

        def shown(one: tuple[str, int]) -> dict[str, Any]:
            found = row(one)
            bar.at(next(done), one[0])
            return found

        rows = dict(zip(wanted, shared(wanted, lambda one: kept_in(*one).with_suffix(".lock"), shown), strict=True))
    return {
        name: Trial(
            name,
            plan,
            {number: _figure(rows[name, number]["metric"]) for number in seeds},
            {number: _figure(said) for number in seeds if (said := rows[name, number].get("test")) is not None},
            sum(rows[name, number]["seconds"] for number in seeds),
        )
        for name, plan in plans.items()
    }


def _figure(said: float | None) -> float:
    return math.nan if said is None else float(said)


def _tuned(problem: Problem, plan: Plan, number: int, tested: bool) -> dict[str, Any]:
    """One row; a training that fails is one, too."""
    started = time.process_time()
    task, recipe = problem.task.cloned(), replace(problem.recipe, seed=number)
    small = carve(problem.model, problem.graph, plan).model
    with isolated():
        seed(number)
        recalibrate(small, task.train, task.inputs)
    metric = test = None
    try:
        tuning = replace(problem, task=task, recipe=recipe, checkpoint=None, progress=False)
        metric = tuning.fit(small, name="trial").rows[-1].metric
        if tested and task.test is not None:
            test = evaluate(small, task.test, task, recipe)
    except TrainError:
        pass
    return {
        "metric": metric if metric is not None and math.isfinite(metric) else None,
        "test": test if test is not None and math.isfinite(test) else None,
        "seconds": round(time.process_time() - started, 2),
    }
