"""A search in a Trainer of Lightning."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from metaprune.graph.errors import MetapruneError
from metaprune.integrations.searching import check, follow

__all__ = ["SearchCallback"]


def _base() -> Any:
    """Lightning's class of callbacks, of the package that is in use: it goes by two names.

    Raises:
        MetapruneError: There is none.
    """
    names = sorted(("lightning.pytorch", "pytorch_lightning"), key=lambda name: name not in sys.modules)
    for name in names:
        try:
            return importlib.import_module(name).Callback
        except ImportError:
            continue
    raise MetapruneError("integrations.lightning: needs the package lightning: pip install lightning")


class SearchCallback(_base()):  # type: ignore[misc]
    """Steps a search after each step of the optimizer, and stops the training when the search is done.

    Example::

        lit.search = mp.DHP().start(lit.net, graph, mp.Budget(macs=0.5), steps=epochs * len(loader))
        lit.net = lit.search.model  # and in configure_optimizers: torch.optim.AdamW(self.search.groups(lr), lr)
        Trainer(max_epochs=epochs, callbacks=[mp.integrations.lightning.SearchCallback(lit.search)]).fit(lit, loader)
        lit.net = lit.search.finish().model  # and train on, with another Trainer

    Its state is in Lightning's checkpoints; a training that goes on from one goes on searching.

    Args:
        search: From `start` of a method that searches.
    """

    def __init__(self, search: Any) -> None:
        super().__init__()
        self.search = search
        self._seen = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse what cannot work."""
        check("SearchCallback", self.search, trainer.optimizers)
        self._seen = trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Follow, where the optimizer took a step."""
        if trainer.global_step > self._seen:
            self._seen = trainer.global_step
            if follow(self.search, trainer.optimizers):
                trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        state: dict[str, Any] = self.search.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint, after the weights."""
        self.search.load_state_dict(state_dict)
