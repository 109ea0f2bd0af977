"""A search in the Trainer of transformers."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from metaprune.graph.errors import MetapruneError
from metaprune.integrations.searching import check, follow
from metaprune.train.checkpoint import Checkpoint

__all__ = ["SearchCallback"]

STATE = "metaprune-search"
"""The folder in each of the Trainer's checkpoints that holds the state of the search."""


def _base() -> Any:
    """The Trainer's class of callbacks.

    Raises:
        MetapruneError: There is none.
    """
    try:
        return importlib.import_module("transformers").TrainerCallback
    except ImportError as error:
        raise MetapruneError("integrations.transformers: needs the package: pip install transformers") from error


class SearchCallback(_base()):  # type: ignore[misc]
    """Steps a search after each step of the optimizer, and stops the training when the search is done.

    Example::

        search = mp.DHP().start(model, graph, mp.Budget(macs=0.5), steps=steps)
        optimizer = torch.optim.AdamW(search.groups(lr), lr)
        callback = mp.integrations.transformers.SearchCallback(search)
        Trainer(search.model, arguments, train_dataset=data, optimizers=(optimizer, None), callbacks=[callback]).train()
        cut = search.finish()  # and train cut.model on, with another Trainer

    Its state is in the Trainer's checkpoints; a training that goes on from one goes on searching. The Trainer cannot
    read the names of inputs off the search's model: `TrainingArguments(remove_unused_columns=False, label_names=…)`.

    Args:
        search: From `start` of a method that searches.
    """

    def __init__(self, search: Any) -> None:
        super().__init__()
        self.search = search

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Refuse what cannot work; go on from a checkpoint, where the Trainer does."""
        check("SearchCallback", self.search, [kwargs["optimizer"]])
        if state.global_step > self.search.done:
            saved = Checkpoint(self._place(args, state)).load()
            if saved is None:
                raise MetapruneError(
                    f"SearchCallback: the Trainer goes on at step {state.global_step}, and the search has done "
                    f"{self.search.done}; {self._place(args, state)} has no state of it"
                )
            self.search.load_state_dict(saved)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Follow."""
        if follow(self.search, [kwargs["optimizer"]]):
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the state beside the Trainer's."""
        Checkpoint(self._place(args, state)).save(self.search.state_dict())

    def _place(self, args: Any, state: Any) -> Path:
        return Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE
