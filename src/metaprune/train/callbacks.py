"""Who is told how a training goes: of each step, and of each epoch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from metaprune.train.run import Row

__all__ = ["Callback", "Moment"]


@dataclass(frozen=True)
class Moment:
    """Where a training is.

    Attributes:
        phase: Such as "search" or "fine-tuning".
        epoch: Epochs done of the one schedule.
        step: Steps of the optimizer done in this phase.
        steps: Their number in the phase.
        at: Steps done of the one schedule.
        lr: The learning rate of the last step.
        loss: Of the last batch; to read its number waits for the device.
        network: What trains; while a method searches, its gated or resized form.
        row: How the epoch went, at its end.
    """

    phase: str
    epoch: float
    step: int
    steps: int
    at: int
    lr: float
    loss: Tensor
    network: nn.Module
    row: Row | None = None


class Callback:
    """Derive from it and override what you want to be told of; whatever it raises ends the training."""

    def on_step(self, moment: Moment) -> None:
        """Told after each step of the optimizer."""

    def on_epoch(self, moment: Moment) -> None:
        """Told at the end of each epoch, after the evaluation and before the checkpoint."""
