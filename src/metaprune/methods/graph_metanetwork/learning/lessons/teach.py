"""Lessons: what a search found for networks, which a metanetwork learns to say at once.

A search trains a network for some epochs before it knows which channels it can do without. A metanetwork that has seen
the answers for some networks gives one for the next in a forward pass, and the epochs of the search are left for
fine-tuning.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from metaprune.cost.budget import Allocation, Budget
from metaprune.graph.errors import MetapruneError
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import digest, named_tensors
from metaprune.methods.graph_metanetwork.learning.lessons.lesson import Lesson
from metaprune.methods.graph_metanetwork.learning.turns import shared
from metaprune.methods.method import Method, Problem
from metaprune.surgery.attention import written_out
from metaprune.surgery.trace import trace
from metaprune.train.atomic import read_json, write_json
from metaprune.train.engine import in_processes
from metaprune.train.folder import sweep
from metaprune.train.progress import Bar
from metaprune.train.recipe import Recipe
from metaprune.train.task import Task

__all__ = ["LESSONS", "teach"]

LOCK = "lesson.lock"

LESSONS = (0.25, 0.35, 0.5)
"""Shares of the MACs that are searched for."""


@in_processes
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

    Several processes, those of `Recipe.devices` or others, each search for lessons of their own.

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
        MetapruneError: The folder holds lessons of another network, method or recipe.
        BudgetError: A network cannot be cut to a share.
    """
    folder, recipe = Path(out), recipe or Recipe()
    problems: list[tuple[int, str, Path, Problem]] = []
    for name, model in models.items():
        graph = trace(model, args, kwargs)
        plain = written_out(model, graph.written_out)
        for share in shares:
            budget = Budget(macs=share, multiple_of=1)
            Allocation(graph, budget)  # an error had better come before the first search
            home = folder / f"{re.sub(r'[^A-Za-z0-9@]+', '-', name)}-{share:g}"
            problem = Problem(plain, graph, budget, task, recipe, home / "checkpoints", progress)
            problems.append((len(problems) + 1, name, home, problem))
    bar = Bar("lessons", len(problems), shown=progress)  # lines only: a search shows a bar of its own

    def learned(one: tuple[int, str, Path, Problem]) -> Lesson:
        number, name, home, problem = one
        bar.line(f"lesson {number} of {len(problems)}: {name}, {problem.budget}")
        return _lesson(method, problem, home)

    lessons = shared(problems, lambda one: one[2] / LOCK, learned)
    found: dict[str, list[Lesson]] = {name: [] for name in models}
    for (_, name, _, _), lesson in zip(problems, lessons, strict=True):
        found[name].append(lesson)
    return {name: tuple(lessons) for name, lessons in found.items()}


def _lesson(method: Method, problem: Problem, home: Path) -> Lesson:
    """What lies in a folder, after a search where nothing does."""
    sweep(home)
    path = home / "lesson.json"
    asked = {
        "network": digest(named_tensors(problem.model)),
        "method": f"{method!r}",
        "recipe": json.loads(json.dumps(problem.recipe.what | {"device": None})),
        "share": problem.budget.value,
    }
    if not path.exists():
        write_json(path, {"asked": asked, "kept": json.loads(method.find(problem).plan.to_json())})
    shutil.rmtree(home / "checkpoints", ignore_errors=True)
    told = read_json(path)
    try:
        changed = [key for key in asked if told["asked"].get(key) != asked[key]]
        lesson = Lesson(problem.budget.value, Plan(told["kept"]))
    except (KeyError, AttributeError) as error:
        raise MetapruneError(f"teach: {path} is damaged ({error!r}); delete it, to search again") from error
    if changed:
        raise MetapruneError(f"teach: {home} holds another lesson (its {', '.join(changed)} differ); name another")
    return lesson
