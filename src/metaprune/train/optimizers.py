"""Optimizers over those parameters that are not frozen."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from metaprune.train.checks import TrainError, said
from metaprune.train.recipe import Recipe

__all__ = ["Factory", "Groups", "as_moved", "by_default", "described", "learning", "optimizer_of"]

Groups = list[dict[str, Any]]
"""As torch's optimizers take them."""

Factory = Callable[[Groups], torch.optim.Optimizer]
"""Groups of parameters, each with its rate and its weight decay -> an optimizer over them."""


def as_moved(groups: Groups | None, names: dict[int, str], module: nn.Module) -> Groups | None:
    """Groups of parameters as they are now, by the names that they had before the network moved."""
    now = dict(module.named_parameters())
    return groups and [
        group | {"params": [now[names[id(p)]] if id(p) in names else p for p in group["params"]]} for group in groups
    ]


def by_default(parameters: Iterable[Tensor]) -> Groups:
    """Weight decay on parameters of two and more dimensions only."""
    tensors = list(parameters)
    return [
        {"params": [p for p in tensors if p.dim() >= 2]},
        {"params": [p for p in tensors if p.dim() < 2], "weight_decay": 0.0},
    ]


def learning(groups: Groups) -> Groups:
    """The groups without what is frozen; none is empty."""
    groups = [group | {"params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    return [group for group in groups if group["params"]]


def optimizer_of(
    groups: Groups, recipe: Recipe, lr: float, who: str, factory: Factory | None = None
) -> torch.optim.Optimizer:
    """An optimizer over groups of parameters.

    Args:
        groups: From `learning`.
        recipe: Its kind, momentum and weight decay.
        lr: The rate at the top of the schedule.
        who: Who trains, and what, for the error.
        factory: Makes the optimizer in the recipe's place.

    Raises:
        TrainError: nothing learns, or the factory gave no optimizer over these parameters.
    """
    if not groups:
        raise TrainError(f"{who} has no parameter to train; are all frozen?")
    common: dict[str, Any] = {"lr": lr, "weight_decay": recipe.weight_decay}
    if factory is not None:
        return _made([common | group for group in groups], factory)
    if _on_cuda(groups) and recipe.precision != "16-mixed":  # whose gradients are scaled, and clipped before the step
        common["fused"] = True
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=(recipe.momentum, 0.999), **common)
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=nesterov, **common)


def _on_cuda(groups: Groups) -> bool:
    return all(p.is_cuda and p.is_floating_point() for group in groups for p in group["params"])


def described(factory: Factory, recipe: Recipe) -> str:
    """What optimizer a factory makes, in words: "AdamW(betas=(0.9, 0.999), …)", but for rate and weight decay.

    Raises:
        TrainError: it makes none.
    """
    probe = {"params": [nn.Parameter(torch.zeros(1))], "lr": recipe.lr, "weight_decay": recipe.weight_decay}
    made = _made([probe], factory)
    known = made.param_groups[0].items()
    said_already = ("params", "lr", "weight_decay")
    shown = ", ".join(f"{name}={value}" for name, value in known if name not in said_already and value is not None)
    return f"{type(made).__name__}({shown})"


def _made(groups: Groups, factory: Factory) -> torch.optim.Optimizer:
    example = "optimizer=lambda groups: torch.optim.AdamW(groups)"
    try:
        made = factory(groups)
    except Exception as error:
        raise TrainError(f"optimizer: the factory failed: {said(error)}; give one as {example}") from error
    if not isinstance(made, torch.optim.Optimizer):
        raise TrainError(f"optimizer: expected the factory to give a torch optimizer, got {made!r:.60}; as {example}")
    held = {id(p) for group in made.param_groups for p in group["params"]}
    if held != {id(p) for group in groups for p in group["params"]}:
        raise TrainError(f"optimizer: expected it over the parameters it was given, and no others; as {example}")
    return made
