"""Modules that train beside the network: a head that only the loss knows, a discriminator."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from metaprune.graph.arguments import brief, is_number
from metaprune.graph.errors import MetapruneError

__all__ = ["NETWORK", "Partner"]

NETWORK = "network"
"""What the network itself is called among those that train."""


@dataclass(frozen=True)
class Partner:
    """A module that trains beside the network and is not cut: see `Task.partners`.

    Attributes:
        module: The module; `mp.prune` trains a copy, and gives it back in `Result.partners`.
        lr: None trains its parameters in the network's own optimizer (the head of a loss). A rate gives them an
            optimizer of their own, on the same schedule, that `training.update` steps (a discriminator).
    """

    module: nn.Module
    lr: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot train.

        Raises:
            MetapruneError: no module, or no rate.
        """
        if not isinstance(self.module, nn.Module):
            raise MetapruneError(f"partner: expected a module to train, an nn.Module, got {brief(self.module)}")
        if self.lr is not None and not (is_number(self.lr) and 0 < self.lr < math.inf):
            raise MetapruneError(f"partner: expected lr above 0, or None for the network's optimizer, got {self.lr!r}")
