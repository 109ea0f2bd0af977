"""A moving average of a network's weights, kept beside them while they train: generators are judged by theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """Weights and buffers, averaged over the steps of a training: theirs after a step counts 1 - d, what was known d.

    d is `decay`, but (1 + n) / (10 + n) after the first n steps where that is less, so that where the training began
    does not count long. Whole numbers are those of now. A projector: it is in checkpoints.

    Args:
        module: The network, which is left alone but for `shown` and `take_on`.
        decay: Inside (0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay, self.count = module, decay, 0
        self.kept = {name: tensor.clone() for name, tensor in self._now().items()}

    @torch.no_grad()
    def after_step(self, step: int, steps: int) -> None:
        """Take up what the network is now."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        for name, now in self._now().items():
            if now.is_floating_point():
                self.kept[name].lerp_(now, 1 - decay)
            else:
                self.kept[name].copy_(now)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The network is its average meanwhile."""
        now = {name: tensor.clone() for name, tensor in self._now().items()}
        self.take_on()
        try:
            yield
        finally:
            self._put(now)

    def take_on(self) -> None:
        """The network becomes its average."""
        self._put(self.kept)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"kept": dict(self.kept), "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        for name, tensor in state["kept"].items():
            self.kept[name].copy_(tensor)
        self.count = state["count"]

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in self._now().items():
            tensor.copy_(values[name])

    def _now(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.module.state_dict().items() if isinstance(value, Tensor)}
