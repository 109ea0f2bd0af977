"""What the callbacks of other libraries' loops share: a search is stepped after each step of their optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metaprune.graph.errors import MetapruneError

__all__ = ["check", "follow"]


def check(who: str, search: Any, optimizers: Sequence[Any]) -> None:
    """See that what trains are the weights and gates of the search, before anything does.

    Raises:
        MetapruneError: It is no search, or an optimizer lacks the gates.
    """
    if not all(hasattr(search, name) for name in ("model", "groups", "step", "finish")):
        raise MetapruneError(
            f"{who}: expected a search, got {type(search).__name__}; give mp.DHP().start(model, graph, budget, steps=N)"
        )
    trained = {id(parameter) for one in optimizers for group in one.param_groups for parameter in group["params"]}
    if any(id(gate) not in trained for gate in search.model.latents.parameters()):
        raise MetapruneError(
            f"{who}: no optimizer has the gates of the search; train search.model, by search.groups(lr) in the "
            "optimizer of your loop"
        )


def follow(search: Any, optimizers: Sequence[Any]) -> bool:
    """What follows a step of the optimizer, at the learning rate of the weights in it; whether the search is done."""
    gates = {id(gate) for gate in search.model.latents.parameters()}
    rates = [
        float(group["lr"])
        for one in optimizers
        for group in one.param_groups
        if not any(id(parameter) in gates for parameter in group["params"]) and group["params"]
    ]
    if search.done < search.steps:
        search.step(max(rates) if rates else float(optimizers[0].param_groups[0]["lr"]))
    return bool(search.done >= search.steps)
