"""Pruning with a graph metanetwork: edit the weights, fine-tune, rank, cut.

Source: Liu, Wang, Zhang, 2025, arXiv 2506.12041, the pruning section. Departures: the network is not pruned a little
before it is edited, and one learning-rate schedule spans the fine-tuning before and after the cut.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from metaprune.cost.budget import Allocation
from metaprune.graph.errors import MetapruneError
from metaprune.graph.tensors import named_tensors
from metaprune.methods.graph_metanetwork.criterion import Criterion, check, ranking
from metaprune.methods.graph_metanetwork.edit import rewrite
from metaprune.methods.graph_metanetwork.saving import load
from metaprune.methods.method import Found, Problem
from metaprune.methods.saliency import evidence_per_cost
from metaprune.surgery.attention import written_out
from metaprune.train.engine import fit

__all__ = ["SHIPPED", "GraphMetanetwork"]

SHIPPED = Path(__file__).with_name("shipped") / "metanetwork.safetensors"
"""The metanetwork that comes with the package; its model card lies beside it."""


@dataclass(frozen=True)
class GraphMetanetwork:
    """Edit a network with a metanetwork, fine-tune it, and cut the channels that weigh least then.

    Attributes:
        metanetwork: The file of a metanetwork that was meta-trained, or "shipped" for the one that comes with the
            package.
        criterion: By what channels are ranked: "blend", "magnitude" or "importance", see `criterion.ranking`.
        tuning: Share of the recipe's epochs between the edit and the cut; 0 cuts at once.
    """

    metanetwork: str = "shipped"
    criterion: Criterion = "blend"
    tuning: float = 0.0

    name: ClassVar[str] = "graph metanetwork"
    reference: ClassVar[str] = "Liu et al., Meta Pruning via Graph Metanetworks, 2025 (arXiv 2506.12041)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "metanetwork", str(self.metanetwork))
        load(self.path)
        check(self.criterion, "GraphMetanetwork")
        if not 0 <= self.tuning <= 1:
            raise MetapruneError(f"GraphMetanetwork: expected tuning in [0, 1], got {self.tuning!r}")

    @property
    def path(self) -> Path:
        """The file."""
        return SHIPPED if self.metanetwork == "shipped" else Path(self.metanetwork)

    def find(self, problem: Problem) -> Found:
        """Edit, fine-tune for a share of the epochs, rank, and fit the budget."""
        allocation = Allocation(problem.graph, problem.budget)
        edited, read, scores, said = rewrite(
            problem.model,
            problem.graph,
            load(self.path),
            problem.task,
            allocation.limit / allocation.dense,
        )
        epochs = round(self.tuning * problem.recipe.epochs)
        history = fit(
            edited,
            problem.task,
            problem.recipe,
            stop=epochs,
            name="after the edit",
            state=_Origin(self.path),
            checkpoint=problem.checkpoint,
            progress=problem.progress,
        )
        tensors = named_tensors(written_out(edited, problem.graph.written_out))
        evidence = evidence_per_cost(said, allocation.prices({}))
        ranked = ranking(tensors, problem.graph, read, self.criterion, scores, evidence)
        return Found(allocation.plan(ranked), edited, ranked, epochs, history=tuple(history.rows))


class _Origin:
    """The file that edited a network, which must be the same when its training goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digest = zlib.crc32(path.read_bytes())

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"metanetwork": self.digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refuse the checkpoint of a network that another metanetwork edited."""
        if state["metanetwork"] != self.digest:
            raise MetapruneError(
                f"GraphMetanetwork: expected the metanetwork that this run began with, got another in {self.path}; "
                "give another folder, or delete this one"
            )
