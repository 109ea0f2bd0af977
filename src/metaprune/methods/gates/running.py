"""A search under way, in whoever's training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.graph.plan import Plan
from metaprune.methods.gates.generated import Generated
from metaprune.surgery.slice import Cut, carve

__all__ = ["Running", "Steering"]


class Steering(Protocol):
    """What moves gates after each step of the optimizer, and reads a plan off them."""

    @property
    def allocation(self) -> Allocation:
        """The budget."""

    def after(self, done: int, steps: int, lr: float) -> None:
        """What follows the step `done` of `steps`, taken at the learning rate `lr`."""

    def plan(self) -> Plan:
        """The channels that stay, as it is now."""

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""


Search = TypeVar("Search", bound=Steering)


class Running(Generic[Search]):
    """A search that somebody else steps: `model` trains like any module, `step` follows each step of the optimizer.

    Example::

        search = mp.DHP().start(model, graph, mp.Budget(macs=0.5), steps=epochs * len(loader))
        optimizer = torch.optim.SGD(search.groups(lr=0.05), lr=0.05, momentum=0.9)
        for images, labels in batches:  # epochs times
            optimizer.zero_grad()
            loss(search.model(images), labels).backward()
            optimizer.step()
            search.step(lr=0.05)
        cut = search.finish()  # cut.model, cut.plan

    Attributes:
        who: The method, for errors.
        model: The network as a function of its gates; a module with the calling signature of the one given.
        search: What moves them.
        steps: How many steps of the optimizer the search takes.
        done: How many were taken.
        rate: The learning rate of the gates, as a share of the weights'.
        decay: Whether weight decay acts on the gates too.
    """

    def __init__(
        self, who: str, model: Generated, search: Search, steps: int, rate: float = 1.0, decay: bool = False
    ) -> None:
        """Begin; see `start` of the method.

        Raises:
            MetapruneError: `steps` is no whole number from 1.
        """
        if type(steps) is not int or steps < 1:
            raise MetapruneError(f"{who}: expected steps as a whole number from 1, got {steps!r}; epochs * len(loader)")
        self.who = who
        self.model = model
        self.search = search
        self.steps = steps
        self.done = 0
        self.rate = rate
        self.decay = decay

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups for any optimizer of PyTorch's: weights with decay; norms and biases without; gates with their rate.

        Args:
            lr: The learning rate of the weights; a schedule scales that of the gates in proportion.
        """
        undecayed = {} if self.decay else {"weight_decay": 0.0}
        latents = list(self.model.latents.parameters())
        known = set(latents)
        rest = [parameter for parameter in self.model.parameters() if parameter not in known]
        return [
            {"params": [parameter for parameter in rest if parameter.ndim >= 2]},
            {"params": [parameter for parameter in rest if parameter.ndim < 2], "weight_decay": 0.0},
            {"params": latents, "lr": lr * self.rate} | undecayed,
        ]

    def step(self, lr: float) -> None:
        """What follows each step of the optimizer.

        Args:
            lr: The learning rate of the weights now.

        Raises:
            MetapruneError: All steps are done.
        """
        if self.done >= self.steps:
            raise MetapruneError(f"{self.who}: all {self.steps} steps of the search are done; call finish()")
        self.done += 1
        self.search.after(self.done, self.steps, lr)

    @property
    def plan(self) -> Plan:
        """The channels that stay, as it is now; the budget is met from the last step on.

        Raises:
            MetapruneError: All steps are done, and it does not fit the budget or breaks a limit.
        """
        plan = self.search.plan()
        if self.done >= self.steps:
            self.search.allocation.check(plan, self.who)
        return plan

    @property
    def share(self) -> float:
        """Share of the cost that they leave."""
        allocation = self.search.allocation
        return allocation.form.at(self.search.plan().widths) / allocation.dense

    def finish(self) -> Cut:
        """The cut network, verified, with its plan.

        Raises:
            MetapruneError: Steps are left, or the plan does not fit the budget.
        """
        if self.done < self.steps:
            raise MetapruneError(
                f"{self.who}: expected {self.steps} steps before finish(), got {self.done}; call step() after each of "
                "the optimizer's, or start with fewer"
            )
        plan = self.plan
        return carve(self.model.fold(), self.search.allocation.graph, plan)

    def state_dict(self) -> dict[str, Any]:
        """All of the search but weights and latents, which are in `model.state_dict()`."""
        return {"done": self.done, "steps": self.steps, **self.search.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; load `model` first.

        Raises:
            MetapruneError: It is of a search of another length.
        """
        if state["steps"] != self.steps:
            raise MetapruneError(
                f"{self.who}: expected the state of a search of {self.steps} steps, got {state['steps']}"
            )
        self.search.load_state_dict(state)
        self.done = state["done"]
