"""What loggers are told of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metaprune.train.callbacks import Callback, Moment
from metaprune.train.checks import TrainError, said
from metaprune.train.processes import leads

__all__ = ["EVERY", "Logging"]

EVERY = 20
"""Steps between two losses that are logged: each waits for the device."""


class Logging(Callback):
    """Tells loggers the loss and the rate every so many steps, and how each epoch went; steps count in the schedule."""

    def __init__(self, loggers: Sequence[Any], metric: str) -> None:
        """Tell these loggers; `metric` is the name of the task's."""
        self.loggers, self.metric = loggers, metric

    def on_step(self, moment: Moment) -> None:
        """The loss of a batch, now and then."""
        if moment.at % EVERY == 0:
            self.tell({f"{moment.phase}/loss of a batch": moment.loss.item(), "lr": moment.lr}, moment.at)

    def on_epoch(self, moment: Moment) -> None:
        """The mean loss, and the metric on the validation data."""
        if moment.row is not None:
            row = {f"{moment.phase}/loss": moment.row.loss, f"{moment.phase}/{self.metric}": moment.row.metric}
            self.tell({**row, "epoch": moment.epoch, "lr": moment.lr}, moment.at)

    def tell(self, figures: dict[str, float], step: int) -> None:
        """All loggers.

        Raises:
            TrainError: one fails.
        """
        for logger in self.loggers if leads() else ():
            try:
                logger.log_metrics(figures, step)
            except Exception as error:
                raise TrainError(f"logger {type(logger).__name__} failed: {said(error)}") from error
