"""What comes out of a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from metaprune.graph.calling import Call
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.report.report import Report

__all__ = ["Result"]


@dataclass(frozen=True)
class Result:
    """What pruning gives back.

    Attributes:
        model: The smaller network: a plain module of the user's own classes.
        plan: The channels that stayed.
        report: What was cut, what it cost and what it won.
        graph: The channel graph of the network that was given.
        partners: What trained beside it (`Task.partners`), by name: copies.
        dense: The network that was given, with which `mp.prune(result, …)` compares; None where it is not at hand.
        calls: The ways in which it is called beside the example inputs, as `mp.prune` was told.
    """

    model: nn.Module
    plan: Plan
    report: Report
    graph: ChannelGraph
    partners: Mapping[str, nn.Module] = field(default_factory=dict)
    dense: nn.Module | None = None
    calls: tuple[Call, ...] = ()

    def __repr__(self) -> str:
        """What came of it, in a line."""
        return f"Result({type(self.model).__name__}; {self.report!r})"

    def _repr_html_(self) -> str:
        return self.report._repr_html_()

    def save(self, folder: str | Path) -> Path:
        """Write plan.json, model.safetensors, report.html, report.json and README.md (the model card).

        Raises:
            SavingError: The folder cannot be written.
        """
        from metaprune.saving import save

        return save(folder, self.model, self.plan, self.graph, self.report)

    def save_pretrained(self, folder: str | Path) -> str | None:
        """Write a network of transformers, with the report and a model card.

        Returns:
            None where plain `from_pretrained` loads the folder; else why no configuration of its class can say what the
            network is: then `mp.from_pretrained` loads it, and nothing else does.

        Raises:
            PretrainedError: It is no network of transformers, or the folder cannot be written.
        """
        from metaprune.pretrained.folder import save_pretrained

        return save_pretrained(folder, self.model, self.plan, self.graph, self.report)
