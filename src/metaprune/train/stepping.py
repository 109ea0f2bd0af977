"""What a step of training is: the task's loss, or a step of the user's own, with what he may use in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from metaprune.graph.errors import MetapruneError
from metaprune.graph.tensors import call_with
from metaprune.train.checks import TrainError, answer, blaming, loss_of, scalar_loss
from metaprune.train.task import Batch, Task

__all__ = ["Training", "asker", "step"]


@dataclass(frozen=True)
class Training:
    """A training under way, as `Task.step` sees it.

    Attributes:
        network: The network, to call; while a method searches, its gated or resized form.
        module: The module behind it, for its parameters.
        partners: The modules that train beside it, by name, to call.
        optimizers: By name: "network", and each partner that has one of its own. None where only gradients are asked.
    """

    network: Callable[..., Any]
    module: nn.Module
    partners: Mapping[str, Any]
    optimizers: Mapping[str, torch.optim.Optimizer]
    task: Task = field(repr=False)
    _update: Callable[[str, Tensor], None] = field(repr=False, default=lambda name, loss: None)

    def update(self, name: str, loss: Tensor) -> None:
        """Train a partner that has an optimizer of its own: backward, clip, step.

        Only its parameters learn from the loss. Where batches are accumulated, it steps with the network.

        Args:
            name: The partner.
            loss: A scalar.

        Raises:
            MetapruneError: no such partner, or it trains in the network's optimizer; the loss is none.
        """
        own = [key for key, partner in self.task.partners.items() if partner.lr is not None]
        if name not in own:
            raise TrainError(
                f"training.update: expected one of the partners with a rate of their own ({', '.join(own) or 'none'}), "
                f"got {name!r}; the loss that the step returns trains the network and the others"
            )
        self._update(name, scalar_loss(loss, f"training.update({name!r})", "the loss"))

    def loss(self, batch: Batch) -> Tensor:
        """The task's own loss of a batch: of the network's output."""
        return loss_of(answer(self.network, batch, self.task, "training"), batch, self.task, "training")


def step(training: Training, batch: Batch, what: str) -> Tensor:
    """The loss of a step: the task's own step, or supervised by default.

    Raises:
        TaskError: the batch does not fit, or the loss is none.
    """
    task = training.task
    if task.step is None:
        return loss_of(answer(training.network, batch, task, what), batch, task, what)
    with blaming(f"{what}: the task's step"):
        found = task.step(training, batch)
    return scalar_loss(found, what, "the step's loss")


def asker(module: nn.Module, task: Task) -> Callable[[Mapping[str, Tensor], Batch], Tensor]:
    """The loss of batches as a function of weights in the place of the network's own; nothing is trained.

    The network is asked in the mode that it is in. Where that gives no loss, since it computes its losses in training
    mode alone, as detectors do, it is asked in that mode from then on, with statistics and dropout as in evaluation.
    Partners are copies.
    """
    partners = {name: partner.module for name, partner in task.cloned().partners.items()}
    for partner in partners.values():
        partner.eval()
    wants_training = False

    def ask(weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
        def network(*args: Any, **kwargs: Any) -> Any:
            return call_with(module, weights, args, kwargs)

        return step(Training(network, module, partners, {}, task), batch, "asking the network")

    def loss(weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
        nonlocal wants_training
        for partner in partners.values():
            partner.to(next((tensor.device for tensor in [*weights.values(), *module.parameters()]), None))
        if not wants_training:
            try:
                return ask(weights, batch)
            except MetapruneError as error:
                if module.training:
                    raise
                refused = error
        try:
            with _training_mode(module):
                found = ask(weights, batch)
        except MetapruneError as error:
            raise (error if wants_training else refused) from error
        wants_training = True
        return found

    return loss


@contextmanager
def _training_mode(module: nn.Module) -> Iterator[None]:
    """Training mode, in which batch norms and dropout do as in evaluation."""
    modes = [(child, child.training) for child in module.modules()]
    module.train()
    for child, _ in modes:
        if isinstance(child, _BatchNorm | _DropoutNd):
            child.eval()
    try:
        yield
    finally:
        for child, mode in modes:
            child.training = mode
