"""In what order pictures and filters lie in memory: channels last, with the networks that take that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from metaprune.graph.errors import MetapruneError
from metaprune.graph.tensors import channels_first, channels_last
from metaprune.train.checks import said
from metaprune.train.recipe import Recipe
from metaprune.train.task import Batch

__all__ = ["Layout"]

T = TypeVar("T")


class Layout:
    """The recipe's, until a network turns out not to take it: PyTorch refuses `x.view(len(x), -1)` of channels last.

    From there on its filters, those of its partners, and the batches lie channels first, as PyTorch makes them.
    """

    def __init__(
        self, recipe: Recipe, networks: Sequence[nn.Module] = (), tell: Callable[[str], object] | None = None
    ) -> None:
        """Of networks whose filters are laid out as the recipe says; `tell` is called with what users should know."""
        self.recipe = recipe
        self.lie: Callable[[Tensor], Tensor] | None = channels_last if recipe.channels_last else None
        self.networks = networks
        self.tell = tell

    def of(self, batch: Batch) -> Batch:
        """A batch in this layout; as it comes where none was asked for."""
        return batch if self.lie is None else tree_map_only(Tensor, self.lie, batch)

    def tried(self, run: Callable[[Batch], T], batch: Batch) -> T:
        """What `run` makes of a batch that `of` gave; where PyTorch fails at channels last, of it channels first.

        Raises:
            MetapruneError: It fails in either.
        """
        if self.lie is channels_first:  # the batch may have been laid out before that was known
            return run(self.of(batch))
        try:
            return run(batch)
        except MetapruneError as error:
            if self.lie is not channels_last or not isinstance(error.__cause__, RuntimeError):
                raise
            why = said(error.__cause__)
        self._change(channels_first)
        try:
            found = run(self.of(batch))
        except MetapruneError:  # the fault that is left when the layout is none
            self._change(channels_last)
            raise
        if self.tell is not None:
            self.tell(
                f"the network does not take pictures channels last, so it is given them channels first, which may be "
                f"slower ({why})"
            )
        return found

    def _change(self, lie: Callable[[Tensor], Tensor]) -> None:
        self.lie = lie
        for network in self.networks:
            for weight in network.parameters():
                weight.data = lie(weight.data)
        torch.clear_autocast_cache()  # of weights in fewer bits, laid out as before
