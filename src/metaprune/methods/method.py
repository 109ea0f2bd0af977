"""The contract of a method: what it is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from metaprune.cost.budget import Budget
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.train.engine import fit
from metaprune.train.extras import Extras
from metaprune.train.optimizers import Groups
from metaprune.train.recipe import Recipe
from metaprune.train.run import History, Projector, Row
from metaprune.train.task import Task

__all__ = ["Found", "Method", "OneShot", "Problem", "check_method"]


@dataclass(frozen=True)
class Problem:
    """What a method is given.

    Attributes:
        model: The dense network; a method works on a copy.
        graph: Its channel graph.
        budget: What the plan may cost (MACs or parameters).
        task: Data, loss and metric; without data where a decision is all that is asked, of a method that asks none.
        recipe: How to train; its schedule spans the search and the fine-tuning.
        checkpoint: The folder for the method's own checkpoints, or None.
        progress: Whether to show progress.
        at_once: Whether a decision without any training is asked for.
        extras: The optimizer, loggers and callbacks of the user.
    """

    model: nn.Module
    graph: ChannelGraph
    budget: Budget
    task: Task
    recipe: Recipe
    checkpoint: Path | None = None
    progress: bool = True
    at_once: bool = False
    extras: Extras = field(default_factory=Extras)

    def fit(
        self,
        model: nn.Module,
        *,
        start: int = 0,
        stop: int | None = None,
        name: str,
        during: Sequence[Projector] = (),
        parameters: Groups | None = None,
        checkpoint: Path | None = None,
        keep: Literal["last", "best"] = "last",
    ) -> History:
        """Train as the user asked for it: `mp.fit` with the problem's task and recipe; a method trains by nothing else.

        Args:
            model: Trained in place, and with it the partners of the task.
            start: The first epoch.
            stop: The epoch after the last one.
            name: Of the phase, in the history and on the screen.
            during: What changes the network after steps, such as a search.
            parameters: Groups for the optimizer.
            checkpoint: A folder of its own; by default the problem's.
            keep: Which epoch's weights the network ends with.
        """
        return fit(
            model,
            self.task,
            self.recipe,
            start=start,
            stop=stop,
            name=name,
            during=during,
            parameters=parameters,
            optimizer=self.extras.optimizer,
            loggers=self.extras.loggers,
            callbacks=self.extras.callbacks,
            keep=keep,
            checkpoint=self.checkpoint if checkpoint is None else checkpoint,
            progress=self.progress,
        )


@dataclass(frozen=True)
class Found:
    """What a method gives back.

    Attributes:
        plan: The channels that stay, within the budget.
        model: The network to cut, at full width; its weights may have been trained.
        scores: For each free axis, the scores of the channels (shape (size,)) that the plan was read from.
        epochs: How many epochs of the recipe's schedule were used.
        exact: Whether cutting changes nothing (the network already ignores what the plan removes).
        history: What was known at the end of each epoch used.
        shares: Pairs of (epoch, share of the cost that stays), where a search lowers it step by step.
        whole: Axes that the method cannot cut, each with the reason.
        notes: What else the report should say.
        before: The full-width network whose figure stands for "before the cut": "model" for `model` itself, another
            one where what is cut was made from it (a search's network as it computed at the end), None where nothing
            does (weights fused into the channels that stay are no network at full width).
        recalibrate: Whether statistics of batch norms are recalibrated after the cut; None leaves it to what the cut
            was: they are, unless it was exact.
        fresh: Whether the weights are drawn anew after the cut; the schedule then begins again at 0.
        spent: What the search cost beside epochs of the schedule, by unit: {"epochs": 4, "evaluations": 1000}.
    """

    plan: Plan
    model: nn.Module
    scores: Mapping[str, Tensor]
    epochs: int = 0
    exact: bool = False
    history: tuple[Row, ...] = ()
    shares: tuple[tuple[float, float], ...] = ()
    whole: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    before: nn.Module | Literal["model"] | None = "model"
    recalibrate: bool | None = None
    fresh: bool = False
    spent: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Method(Protocol):
    """A way to decide which channels stay. Its fields are its hyper-parameters."""

    name: ClassVar[str]
    reference: ClassVar[str]

    def find(self, problem: Problem) -> Found:
        """Decide. The model given is left untouched."""
        ...


@runtime_checkable
class OneShot(Method, Protocol):
    """A method that can decide without training: from the weights, or from what data say of them.

    Attributes:
        asks_data: Whether it needs a task.
    """

    asks_data: ClassVar[bool]

    def scores(self, problem: Problem) -> Mapping[str, Tensor]:
        """For each free axis what its channels are worth, shape (size,), comparable between axes; without training."""
        ...


def check_method(method: object, who: str, example: str) -> None:
    """Refuse what is no method, such as the class of one.

    Raises:
        MetapruneError: It is none.
    """
    if isinstance(method, type) or not isinstance(method, Method):
        raise MetapruneError(f"{who}: expected a method as {example} or the like, got {method!r}")
