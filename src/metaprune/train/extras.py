"""What a user adds to a training: an optimizer of his own, loggers, callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metaprune.graph.arguments import brief
from metaprune.train.callbacks import Callback
from metaprune.train.checks import TrainError
from metaprune.train.optimizers import Factory

__all__ = ["Extras"]


@dataclass(frozen=True)
class Extras:
    """What is added to a training.

    Attributes:
        optimizer: (groups of parameters, each with its rate and weight decay) -> an optimizer, in the recipe's place:
            `torch.optim.RAdam`, `partial(torch.optim.SGD, momentum=0.8)`.
        loggers: Those of Lightning or Fabric, or anything with their `log_metrics(metrics, step)`.
        callbacks: Who is told of each step and epoch.
    """

    optimizer: Factory | None = None
    loggers: Sequence[Any] = ()
    callbacks: Sequence[Callback] = ()

    def check(self, who: str) -> None:
        """Refuse what is of another kind.

        Raises:
            TrainError: no function, no logger, or no callback.
        """
        if self.optimizer is not None and not callable(self.optimizer):
            raise TrainError(
                f"{who}: expected the optimizer as a function of groups of parameters, such as torch.optim.AdamW, got "
                f"{brief(self.optimizer)}"
            )
        for name, several in (("loggers", self.loggers), ("callbacks", self.callbacks)):
            if not isinstance(several, Sequence):
                raise TrainError(f"{who}: expected {name} as a list, got {brief(several)}")
        for logger in self.loggers:
            if isinstance(logger, type) or not callable(getattr(logger, "log_metrics", None)):
                raise TrainError(
                    f"{who}: expected loggers as those of Lightning, such as CSVLogger('logs'), got {brief(logger)}"
                )
        for callback in self.callbacks:
            if isinstance(callback, type) or not isinstance(callback, Callback):
                raise TrainError(
                    f"{who}: expected callbacks of a class derived from mp.Callback, such as Mine(), got "
                    f"{brief(callback)}"
                )
