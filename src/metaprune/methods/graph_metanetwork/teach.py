"""Lessons: what a search found for networks, which a metanetwork learns to say at once.

A search trains a network for some epochs before it knows which channels it can do without. A metanetwork that has seen
the answers for some networks gives one for the next in a forward pass, and the epochs of the search are left for
fine-tuning.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import nn

from metaprune.cost.budget import Budget
from metaprune.graph.errors import MetapruneError
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import digest, named_tensors
from metaprune.methods.method import Method, Problem
from metaprune.surgery.attention import written_out
from metaprune.surgery.trace import trace
from metaprune.train.atomic import write_json
from metaprune.train.engine import Recipe
from metaprune.train.task import Task

__all__ = ["LESSONS", "Lesson", "teach"]

LESSONS = (0.25, 0.35, 0.5)
"""Shares of the MACs that are searched for."""


@dataclass(frozen=True)
class Lesson:
    """What a search left of a network.

    Attributes:
        share: Of the MACs, that it was asked to leave.
        plan: The channels that stayed.
    """

    share: float
    plan: Plan


def teach(
    models: Mapping[str, nn.Module],
    args: tuple[Any, ...],
    task: Task,
    method: Method,
    *,
    out: str | Path,
    kwargs: Mapping[str, Any] | None = None,
    shares: Sequence[float] = LESSONS,
    recipe: Recipe | None = None,
    progress: bool = True,
) -> dict[str, tuple[Lesson, ...]]:
    """Search for plans of networks at some budgets; those that are found are kept, and a killed run goes on.

    Args:
        models: Name -> network; left untouched. All take the same inputs.
        args: Example inputs.
        task: What the search trains and is measured with.
        method: Who searches, such as `mp.DHP()`. Only its search is run, no fine-tuning.
        out: The folder that the plans are kept in.
        kwargs: Example keyword inputs.
        shares: Of the MACs, that are to stay.
        recipe: Of the search.
        progress: Whether to show progress.

    Returns:
        Name -> what was found, a lesson for each share.

    Raises:
        MetapruneError: The folder holds lessons of another network, method or recipe, or another process works in it.
        BudgetError: A network cannot be cut to a share.
    """
    folder, recipe = Path(out), recipe or Recipe()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            return {
                name: tuple(_lessons(name, model, args, kwargs, task, method, folder, shares, recipe, progress))
                for name, model in models.items()
            }
    except Timeout:
        raise MetapruneError(f"teach: another process works in {folder}; wait for it, or name another") from None


def _lessons(
    name: str,
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    task: Task,
    method: Method,
    folder: Path,
    shares: Sequence[float],
    recipe: Recipe,
    progress: bool,
) -> Iterator[Lesson]:
    graph = trace(model, args, kwargs)
    plain = written_out(model, graph.written_out)
    for share in shares:
        home = folder / f"{name}-{share:g}"
        path, working = home / "lesson.json", home / "checkpoints"
        asked = {
            "network": digest(named_tensors(model)),
            "method": f"{method!r}",
            "recipe": json.loads(json.dumps(asdict(recipe) | {"device": None})),
            "share": share,
        }
        home.mkdir(exist_ok=True)
        if not path.exists():
            budget = Budget(macs=share, multiple_of=1)
            found = method.find(Problem(plain, graph, budget, task, recipe, working, progress))
            write_json(path, {"asked": asked, "kept": json.loads(found.plan.to_json())})
            shutil.rmtree(working, ignore_errors=True)
        told = json.loads(path.read_text())
        if changed := [key for key in asked if told["asked"].get(key) != asked[key]]:
            raise MetapruneError(f"teach: {home} holds another lesson (its {', '.join(changed)} differ); name another")
        yield Lesson(share, Plan(told["kept"]))
