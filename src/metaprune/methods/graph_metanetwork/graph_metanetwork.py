"""Pruning with a graph metanetwork: edit the weights, fine-tune, rank, cut.

Source: Liu, Wang, Zhang, 2025, arXiv 2506.12041, the pruning section. Departures: the network is not pruned a little
before it is edited, one learning-rate schedule spans the fine-tuning before and after the cut, and what the metanetwork
says is tried against the same criterion without it, on validation data.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metaprune.cost.budget import Allocation
from metaprune.graph.arguments import is_number, is_whole
from metaprune.graph.errors import MetapruneError
from metaprune.graph.tensors import clone, named_tensors
from metaprune.methods.graph_metanetwork.criterion import Criterion, check, ranking
from metaprune.methods.graph_metanetwork.editor.edit import Rewritten, rewrite
from metaprune.methods.graph_metanetwork.editor.saving import load
from metaprune.methods.graph_metanetwork.expectation import Expectation, distance
from metaprune.methods.graph_metanetwork.widths import widened
from metaprune.methods.method import Found, Problem
from metaprune.methods.saliency import evidence_per_cost
from metaprune.surgery.attention import written_out
from metaprune.surgery.slice import carve
from metaprune.train.run import TrainError
from metaprune.train.task import First

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
        trial: Steps of a short fine-tuning, one pass of the training data at most, after which the network cut as the
            metanetwork says must not be behind the one cut by the criterion alone, on the validation data; else that
            one is taken. Nothing is tried where the metanetwork knows that it gains or loses (`Expectation.sure`). 0
            takes the metanetwork's word for it, as does `tuning`.
    """

    metanetwork: str = "shipped"
    criterion: Criterion = "blend"
    tuning: float = 0.0
    trial: int = 96

    name: ClassVar[str] = "graph metanetwork"
    asks_data: ClassVar[bool] = True
    reference: ClassVar[str] = "Liu et al., Meta Pruning via Graph Metanetworks, 2025 (arXiv 2506.12041)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "metanetwork", str(self.metanetwork))
        load(self.path)
        check(self.criterion, "GraphMetanetwork")
        if not (is_number(self.tuning) and 0 <= self.tuning <= 1):
            raise MetapruneError(f"GraphMetanetwork: expected tuning in [0, 1], got {self.tuning!r}")
        if not is_whole(self.trial) or self.trial < 0:
            raise MetapruneError(f"GraphMetanetwork: expected trial as a number of steps from 0, got {self.trial!r}")

    @property
    def path(self) -> Path:
        """The file."""
        return SHIPPED if self.metanetwork == "shipped" else Path(self.metanetwork)

    def scores(self, problem: Problem) -> dict[str, Tensor]:
        """By what channels are ranked right after the edit, without trial and tuning."""
        return dict(self.find(replace(problem, at_once=True)).scores)

    def find(self, problem: Problem) -> Found:
        """Edit, see whether that is of use, fine-tune for a share of the epochs, rank, and fit the budget."""
        allocation = Allocation(problem.graph, problem.budget)
        share = allocation.limit / allocation.dense
        metanetwork = load(self.path)
        edited = rewrite(problem.model, problem.graph, metanetwork, problem.task, share, allocation, self.criterion)
        notes = []
        if self.trial and not self.tuning and not problem.at_once:
            edited, said = self._chosen(problem, allocation, edited, metanetwork.expectation)
            notes.append(said)
        epochs = 0 if problem.at_once else round(self.tuning * problem.recipe.epochs)
        history = problem.fit(edited.model, stop=epochs, name="after the edit", during=[_Origin(self.path)])
        ranked = self._ranked(problem, allocation, edited)
        plan = allocation.plan(ranked)
        return Found(plan, edited.model, ranked, epochs, history=tuple(history.rows), notes=tuple(notes))

    def _ranked(self, problem: Problem, allocation: Allocation, edited: Rewritten) -> dict[str, Tensor]:
        """For each free axis, what its channels weigh in the end."""
        tensors = named_tensors(written_out(edited.model, problem.graph.written_out))
        evidence = evidence_per_cost(edited.gradients, allocation.prices({}))
        ranked = ranking(tensors, problem.graph, edited.read, self.criterion, edited.scores, evidence)
        if not edited.tilts.any():
            return ranked
        return widened(allocation, ranked, dict(zip(edited.read.names, edited.tilts.tolist(), strict=True)))

    def _chosen(
        self, problem: Problem, allocation: Allocation, edited: Rewritten, expected: Expectation | None
    ) -> tuple[Rewritten, str]:
        """The edited network, or the one as it was; and why."""
        plain = edited._replace(
            model=clone(written_out(problem.model, problem.graph.written_out)),
            scores=torch.zeros_like(edited.scores),
            tilts=torch.zeros_like(edited.tilts),
        )
        plans = [allocation.plan(self._ranked(problem, allocation, way)) for way in (edited, plain)]
        away = distance(problem.graph, *plans)
        sure = expected.sure(allocation.limit / allocation.dense, away) if expected else 0
        if not expected or not sure:
            cut = (
                carve(way.model, problem.graph, plan).model for way, plan in zip((edited, plain), plans, strict=True)
            )
            better, said = self._tried(problem, *cut)
            return edited if better else plain, said
        said = (
            f"nothing was tried: with widths so far from the criterion's, the metanetwork gained "
            f"{expected.gain(away):+.2g} ± {expected.error:.2g} points on {expected.families} families of networks "
            f"that it had not learned from; so it was cut {_way(sure > 0)}"
        )
        return edited if sure > 0 else plain, said

    def _tried(self, problem: Problem, edited: nn.Module, plain: nn.Module) -> tuple[bool, str]:
        """Whether the edited one of two cut networks is not behind after a short fine-tuning; and why."""
        task = replace(problem.task, train=First(problem.task.train, self.trial * problem.recipe.accumulate))
        brief = replace(problem.recipe, epochs=1, warmup=0.0, schedule="cosine", milestones=(), before=0, after=0)

        def reached(model: nn.Module, name: str) -> float:
            history = replace(problem, task=task.cloned(), recipe=brief).fit(
                model,
                name=f"trial {name} the metanetwork",
                during=[_Origin(self.path)],
                checkpoint=problem.checkpoint / name if problem.checkpoint else None,
            )
            return history.rows[-1].metric

        without = reached(plain, "without")
        try:
            with_it = reached(edited, "with")
        except TrainError as error:
            return False, f"cut by the criterion alone: cut as the metanetwork says, its training failed ({error})"
        kept = with_it >= without if task.higher_is_better else with_it <= without
        said = (
            f"in a trial of {brief.steps(len(task.train))} steps: cut as the metanetwork says, {task.metric_name} "
            f"{with_it:.4g} on the validation data; cut by the criterion alone, {without:.4g}; "
            f"so it was cut {_way(kept)}"
        )
        return kept, said


def _way(edited: bool) -> str:
    return "as the metanetwork says" if edited else "by the criterion alone"


class _Origin:
    """The file that edited a network, which must be the same when its training goes on."""

    leaves_weights: ClassVar[bool] = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digest = zlib.crc32(path.read_bytes())

    def after_step(self, step: int, steps: int) -> None:
        """Nothing: it is what it was."""

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
