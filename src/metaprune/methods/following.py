"""A search that follows the training loop of `fit`, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from metaprune.methods.gates.running import Running, Search
from metaprune.methods.method import Problem
from metaprune.train.checks import length
from metaprune.train.recipe import Recipe
from metaprune.train.run import History

__all__ = ["Following", "Stepped", "searched"]


class Stepped(Protocol):
    """A search under way, such as `DHP.start` gives."""

    def step(self, lr: float) -> None:
        """What follows each step of the optimizer, at the learning rate of then."""

    def state_dict(self) -> dict[str, Any]:
        """All of it that is not in the network's own state."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Go back to there."""


@dataclass(frozen=True)
class Following:
    """The search as what happens `during` a `fit`.

    Attributes:
        search: The search.
        recipe: Its schedule.
        epochs: How many of them the search takes, from the first.
    """

    search: Stepped
    recipe: Recipe
    epochs: int
    leaves_weights: ClassVar[bool] = True  # only gates change

    def after_step(self, step: int, steps: int) -> None:
        """One step of the search, at the rate that the schedule has after it."""
        self.search.step(self.recipe.lr_at(self.epochs * (step + 1) / steps))

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return self.search.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.search.load_state_dict(state)


def searched(start: Callable[..., Running[Search]], problem: Problem, epochs: int) -> tuple[Running[Search], History]:
    """A search trained to its end in `fit`: the first epochs of the problem's schedule are its.

    Args:
        start: The method's own, as `DHP.start`.
        problem: What the method was given.
        epochs: How many epochs the search takes.
    """
    recipe = problem.recipe
    steps = recipe.steps(length(problem.task.train, "search: the training data"), epochs)
    running = start(problem.model, problem.graph, problem.budget, steps=steps, seed=recipe.seed)
    history = problem.fit(
        running.model,
        stop=epochs,
        name="search",
        during=[Following(running, recipe, epochs)],
        parameters=running.groups(recipe.lr),
    )
    return running, history
