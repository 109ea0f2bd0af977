"""A search under way, in whoever's training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.graph.plan import Plan
from metaprune.methods.dhp.hypernet import Generated
from metaprune.methods.dhp.search import Search, Settings
from metaprune.surgery.slice import Cut, carve

__all__ = ["Running"]


class Running:
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
        model: The network as a function of its latent vectors; a module with the calling signature of the one given.
        steps: How many steps of the optimizer the search takes.
        done: How many were taken.
    """

    def __init__(self, settings: Settings, model: Generated, allocation: Allocation, steps: int) -> None:
        """Begin; see `DHP.start`.

        Raises:
            MetapruneError: `steps` is no whole number from 1.
        """
        if type(steps) is not int or steps < 1:
            raise MetapruneError(f"DHP: expected steps as a whole number from 1, got {steps!r}; epochs * len(loader)")
        self.model = model
        self.steps = steps
        self.done = 0
        self.search = Search(settings, model.latents, allocation, model.hide)

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups for any optimizer of PyTorch's: weights with decay; norms and biases without; latents with their rate.

        Args:
            lr: The learning rate of the weights; a schedule scales that of the latents in proportion.
        """
        settings = self.search.method
        undecayed = {} if settings.latent_decay else {"weight_decay": 0.0}
        latents = list(self.model.latents.parameters())
        known = set(latents)
        rest = [parameter for parameter in self.model.parameters() if parameter not in known]
        return [
            {"params": [parameter for parameter in rest if parameter.ndim >= 2]},
            {"params": [parameter for parameter in rest if parameter.ndim < 2], "weight_decay": 0.0},
            {"params": latents, "lr": lr * settings.latent_lr} | undecayed,
        ]

    def step(self, lr: float) -> None:
        """What follows each step of the optimizer: evidence, ranking, proximal step.

        Args:
            lr: The learning rate of the weights now.

        Raises:
            MetapruneError: All steps are done.
        """
        if self.done >= self.steps:
            raise MetapruneError(f"DHP: all {self.steps} steps of the search are done; call finish()")
        self.done += 1
        self.search.after(self.done, self.steps, lr)

    @property
    def plan(self) -> Plan:
        """The channels whose latents are not zero."""
        return self.search.plan()

    @property
    def share(self) -> float:
        """Share of the cost that they leave."""
        return self.search.share(self.plan)

    def finish(self) -> Cut:
        """The cut network, verified, with its plan.

        Raises:
            MetapruneError: Steps are left, or the plan does not fit the budget.
        """
        if self.done < self.steps:
            raise MetapruneError(
                f"DHP: expected {self.steps} steps before finish(), got {self.done}; call step() after each of the "
                "optimizer's, or start with fewer"
            )
        allocation = self.search.allocation
        allocation.check(self.plan, "DHP")
        return carve(self.model.fold(), allocation.graph, self.plan)

    def state_dict(self) -> dict[str, Any]:
        """All of the search but weights and latents, which are in `model.state_dict()`."""
        return {"done": self.done, "steps": self.steps, **self.search.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; load `model` first.

        Raises:
            MetapruneError: It is of a search of another length.
        """
        if state["steps"] != self.steps:
            raise MetapruneError(f"DHP: expected the state of a search of {self.steps} steps, got {state['steps']}")
        self.search.load_state_dict(state)
        self.done = state["done"]
