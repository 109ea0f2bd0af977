"""Lessons of several networks: what a method found for each, or what a measured search saw.

A search trains a network for some epochs before it knows which channels it can do without. A metanetwork that has seen
the answers for some networks gives one for the next in a forward pass, and the epochs of the search are left for
fine-tuning.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from metaprune.cost.budget import Allocation, Budget
from metaprune.graph.errors import MetapruneError
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import digest, named_tensors
from metaprune.methods.graph_metanetwork.criterion import Criterion, check, heights
from metaprune.methods.graph_metanetwork.learning.lessons.halving import Rung, search
from metaprune.methods.graph_metanetwork.learning.lessons.lesson import Lesson
from metaprune.methods.graph_metanetwork.learning.turns import shared
from metaprune.methods.method import Method, Problem, check_method
from metaprune.surgery.attention import written_out
from metaprune.surgery.trace import trace
from metaprune.train.atomic import read_json, write_json
from metaprune.train.engine import in_processes
from metaprune.train.folder import sweep
from metaprune.train.progress import Bar
from metaprune.train.recipe import Recipe
from metaprune.train.task import Task

__all__ = ["BRIEF", "LESSONS", "TIGHT", "grade", "teach"]

LOCK, WORKING = "lesson.lock", "checkpoints"

LESSONS = (0.25, 0.35, 0.5)
"""Shares of the MACs that a method searches for."""

TIGHT = (0.1, 0.3)
"""Shares of the MACs at which allocations are measured: at half of them there is little to win."""

BRIEF = (Rung(20, (0,)), Rung(3, (1,)))
"""How allocations are tried where nobody asks how much there is to win."""


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
        MetapruneError: The folder holds lessons of another network, method or recipe; nothing of a network trains.
        BudgetError: A network cannot be cut to a share.
    """
    _check("teach", models, shares, [method])
    problems = _problems(models, args, kwargs, task, shares, recipe or Recipe(), Path(out), progress)
    return _each(problems, partial(_found, method), progress)


@in_processes
def grade(
    models: Mapping[str, nn.Module],
    args: tuple[Any, ...],
    task: Task,
    *,
    out: str | Path,
    kwargs: Mapping[str, Any] | None = None,
    teachers: Mapping[str, Method] | None = None,
    shares: Sequence[float] = TIGHT,
    recipe: Recipe | None = None,
    rungs: Sequence[Rung] = BRIEF,
    criterion: Criterion = "blend",
    progress: bool = True,
) -> dict[str, tuple[Lesson, ...]]:
    """Tune allocations of networks at some budgets, and tell what each was worth, for `Worth`; a killed run goes on.

    Allocations are those of `search` around what the criterion keeps, and around the same share of each axis. Several
    processes, those of `Recipe.devices` or others, each search for lessons of their own.

    Args:
        models: Name -> network; left untouched. All take the same inputs.
        args: Example inputs.
        task: What allocations are tuned and measured with.
        out: The folder in which all that was tried is kept.
        kwargs: Example keyword inputs.
        teachers: Name -> method whose widths are tried, too, such as `mp.Taylor()` or, searching longer, `mp.DHP()`.
        shares: Of the MACs, that are to stay. The less stays, the more there is to win.
        recipe: Of each tuning.
        rungs: How many are tried how often.
        criterion: By what channels are ranked; `meta_train` should be told the same.
        progress: Whether to show progress.

    Returns:
        Name -> all that was tried at all shares, with what it was worth.

    Raises:
        MetapruneError: The folder holds lessons of another network, other teachers or another recipe; nothing of a
            network trains.
        BudgetError: A network cannot be cut to a share.
    """
    check(criterion, "grade")
    _check("grade", models, shares, list((teachers or {}).values()))
    problems = _problems(models, args, kwargs, task, shares, recipe or Recipe(), Path(out), progress)
    return _each(problems, partial(_graded, dict(teachers or {}), tuple(rungs), criterion), progress)


def _check(who: str, models: Mapping[str, nn.Module], shares: Sequence[float], methods: Sequence[object]) -> None:
    """Refuse what cannot be, before anything is traced.

    Raises:
        MetapruneError: There are no networks or no shares, nothing of a network trains, or a method is none.
    """
    if not models or not shares:
        raise MetapruneError(f"{who}: expected one network and one share or more, got {len(models)} and {len(shares)}")
    for name, model in models.items():
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise MetapruneError(
                f"{who}: expected parameters that train in network {name!r}, got none; call model.requires_grad_()"
            )
    for method in methods:
        check_method(method, who, "mp.DHP()")


class _Asked(NamedTuple):
    """One lesson to be made: of which network, in which folder, at which budget."""

    name: str
    home: Path
    problem: Problem


def _problems(
    models: Mapping[str, nn.Module],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    task: Task,
    shares: Sequence[float],
    recipe: Recipe,
    folder: Path,
    progress: bool,
) -> list[_Asked]:
    """All networks at all shares.

    Raises:
        BudgetError: A network cannot be cut to a share.
    """
    found = []
    for name, model in models.items():
        graph = trace(model, args, kwargs)
        plain = written_out(model, graph.written_out)
        for share in shares:
            budget = Budget(macs=share, multiple_of=1)
            Allocation(graph, budget)  # an error had better come before the first search
            home = folder / f"{re.sub(r'[^A-Za-z0-9@]+', '-', name)}-{share:g}"
            found.append(_Asked(name, home, Problem(plain, graph, budget, task, recipe, home / WORKING, progress)))
    return found


def _each(
    problems: Sequence[_Asked], work: Callable[[_Asked], tuple[Lesson, ...]], progress: bool
) -> dict[str, tuple[Lesson, ...]]:
    """The lessons of each network; processes take turns."""
    bar = Bar("lessons", len(problems), shown=progress)  # lines only: a search shows a bar of its own

    def learned(one: tuple[int, _Asked]) -> tuple[Lesson, ...]:
        number, asked = one
        bar.line(f"lesson {number} of {len(problems)}: {asked.name}, {asked.problem.budget}")
        sweep(asked.home)
        return work(asked)

    lessons = shared(list(enumerate(problems, 1)), lambda one: one[1].home / LOCK, learned)
    found = dict[str, tuple[Lesson, ...]]()
    for asked, some in zip(problems, lessons, strict=True):
        found[asked.name] = found.get(asked.name, ()) + some
    return found


def _found(method: Method, asked: _Asked) -> tuple[Lesson, ...]:
    """What lies in a folder, after a method's search where nothing does."""
    path, problem = asked.home / "lesson.json", asked.problem
    about = _about(problem, method=f"{method!r}")
    if not path.exists():
        write_json(path, {"asked": about, "kept": json.loads(method.find(problem).plan.to_json())})
    shutil.rmtree(asked.home / WORKING, ignore_errors=True)
    told = _ours("teach", path, about)
    try:
        return (Lesson(problem.budget.value, Plan(told["kept"])),)
    except (KeyError, AttributeError) as error:
        raise MetapruneError(f"teach: {path} is damaged ({error!r}); delete it, to search again") from error


def _graded(
    teachers: Mapping[str, Method], rungs: tuple[Rung, ...], criterion: Criterion, asked: _Asked
) -> tuple[Lesson, ...]:
    """What a measured search in a folder saw, begun or gone on with."""
    path, problem = asked.home / "search.json", asked.problem
    how = {"teachers": f"{teachers!r}", "rungs": f"{rungs!r}", "criterion": criterion}
    about = _about(problem, **how)
    if not path.exists():
        write_json(path, {"asked": about})
    _ours("grade", path, about)
    ranked = heights(problem.model, problem.graph, problem.task, criterion)
    allocation = Allocation(problem.graph, problem.budget)
    rivals = {criterion: allocation.plan(ranked), "uniform": allocation.proportional(ranked)}
    return search(problem, ranked, rivals, asked.home, rungs=rungs, teachers=teachers).graded()


def _about(problem: Problem, **how: str) -> dict[str, Any]:
    """What makes it this lesson and no other."""
    return {
        "network": digest(named_tensors(problem.model)),
        **how,
        "recipe": json.loads(json.dumps(problem.recipe.what | {"device": None})),
        "share": problem.budget.value,
    }


def _ours(who: str, path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """What a file tells, if that is of the same lesson.

    Raises:
        MetapruneError: It is of another, or damaged.
    """
    told = read_json(path)
    try:
        changed = [key for key in about if told["asked"].get(key) != about[key]]
    except (KeyError, AttributeError) as error:
        raise MetapruneError(f"{who}: {path} is damaged ({error!r}); delete it, to search again") from error
    if changed:
        raise MetapruneError(
            f"{who}: {path.parent} holds another lesson (its {', '.join(changed)} differ); name another"
        )
    return told
