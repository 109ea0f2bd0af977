"""Searches as rows that are short enough to be kept in the repository, and back."""

import math
from collections.abc import Mapping
from typing import Any

import metaprune as mp
from metaprune.methods.graph_metanetwork.learning.lessons.halving import Rung, Searched
from metaprune.methods.graph_metanetwork.learning.lessons.trials import Trial


def row_of(found: Searched) -> dict[str, Any]:
    """Everything that lessons are made of."""
    return {
        "share": found.share,
        "rivals": list(found.rivals),
        "rungs": [[rung.most, list(rung.seeds)] for rung in found.rungs],
        "higher_is_better": found.higher_is_better,
        "trials": {
            name: {
                "kept": written(trial.plan),
                "metrics": [[seed, said if math.isfinite(said) else None] for seed, said in trial.metrics.items()],
            }
            for name, trial in found.trials.items()
        },
    }


def searched(row: Mapping[str, Any]) -> Searched:
    """What `row_of` made a row of; seconds and test figures are not in it."""
    trials = {
        name: Trial(
            name,
            plan_of(told["kept"]),
            {seed: math.nan if said is None else said for seed, said in told["metrics"]},
        )
        for name, told in row["trials"].items()
    }
    rungs = tuple(Rung(most, tuple(seeds)) for most, seeds in row["rungs"])
    return Searched(row["share"], trials, tuple(row["rivals"]), rungs, row["higher_is_better"])


def written(plan: mp.Plan) -> dict[str, str]:
    """A plan: channels that stay are the bits of a number, in hexadecimal."""
    return {axis: f"{sum(1 << channel for channel in stays):x}" for axis, stays in plan.kept.items()}


def plan_of(kept: Mapping[str, str]) -> mp.Plan:
    """What `written` wrote."""
    numbers = {axis: int(stays, 16) for axis, stays in kept.items()}
    return mp.Plan({axis: [place for place in range(n.bit_length()) if n >> place & 1] for axis, n in numbers.items()})
