"""What happens to masks after each step of the optimizer: they anneal, and in the end become a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from metaprune.cost.budget import Allocation
from metaprune.graph.plan import Plan
from metaprune.methods.gates.latents import finite
from metaprune.methods.transportation.masks import Masks

__all__ = ["Annealing"]

LOOKS = 100
"""How often in a search channels that are as good as gone are left out of averages."""

DECIDED = 0.75
"""Share of the search after which the plan is decided. Where widths go in steps it is not what the masks are by then:
to use up the budget, it exchanges blocks. So masks are moved to it step by step, and the network has time to follow."""

LANDED = 0.9
"""Share of the search after which the masks are 0 and 1: the rest lets weights and statistics of norms settle."""

SILENT = 1e-3
"""A mask below is as good as zero."""


@dataclass
class Annealing:
    """Steers the masks of a search; goes into checkpoints.

    Attributes:
        masks: The masks, changed in place.
        allocation: The budget.
        hide: Told which channels stay whenever that may have changed.
        hidden: What it was told last.
        hardness: The mean of m (1 - m) when the plan was decided: how far the masks had hardened by themselves.
    """

    masks: Masks
    allocation: Allocation
    hide: Callable[[Plan], None] = lambda plan: None
    hidden: Plan = field(default_factory=lambda: Plan({}))
    hardness: float | None = None

    def after(self, done: int, steps: int, lr: float) -> None:
        """What follows an optimizer step; towards the end the masks harden.

        Args:
            done: Steps taken so far.
            steps: Their number in the whole search.
            lr: The learning rate then.
        """
        if self.masks.plan is not None:
            return
        decided, landed = (max(1, int(share * steps)) for share in (DECIDED, LANDED))
        if done >= min(decided, landed):
            plan = self.plan()
            if self.hardness is None:
                self.hardness = self.masks.hardness()
            if done >= landed:
                self.harden(plan)
                return
            self.masks.towards = plan, (done - decided + 1) / (landed - decided)
        self.masks.advance()
        if done % max(1, steps // LOOKS) == 0:
            self.tell(self.living())

    def harden(self, plan: Plan) -> None:
        """Masks of 0 and 1 from now on."""
        self.masks.plan = plan
        self.tell(plan)

    def tell(self, plan: Plan) -> None:
        """Leave channels out of averages."""
        self.hidden = plan
        self.hide(plan)

    @torch.no_grad()
    def living(self) -> Plan:
        """The channels whose masks are not as good as zero; as many of the highest as must stay.

        Raises:
            MetapruneError: A mask is no number any more.
        """
        masks = finite("Transportation", self.masks.named())
        alive = {name: mask > SILENT for name, mask in masks.items()}
        for name, mask in masks.items():
            alive[name][mask.topk(self.allocation.least[name]).indices] = True
        return Plan({name: torch.nonzero(mask)[:, 0].tolist() for name, mask in alive.items() if not mask.all()})

    def plan(self) -> Plan:
        """The channels that stay: those of the highest logits, within the budget, once that is decided for good."""
        if self.masks.plan is not None:
            return self.masks.plan
        return self.allocation.plan(self.masks.ranking()) if self.masks.towards is None else self.masks.towards[0]

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints; scores and logits are in the network's."""
        hard = self.masks.plan is not None
        towards = None if self.masks.towards is None else [dict(self.masks.towards[0].kept), self.masks.towards[1]]
        return {"hidden": dict(self.hidden.kept), "hard": hard, "hardness": self.hardness, "towards": towards}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self.hardness = state["hardness"]
        self.tell(Plan(state["hidden"]))
        self.masks.towards = None if state["towards"] is None else (Plan(state["towards"][0]), state["towards"][1])
        self.masks.plan = self.hidden if state["hard"] else None
