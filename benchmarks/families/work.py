"""The pieces of the experiment, each of which is kept: networks, searches, metanetworks, rows of the table."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from benchmarks.experiment import Kept
from benchmarks.families.data import Data, Sources, prepared
from benchmarks.families.drawn import FAMILIES, built, tuned
from benchmarks.families.page import CONTROLS, FUSED, HELD
from benchmarks.families.told import plan_of, row_of, searched, written
from torch import nn

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.graph.tensors import digest, named_tensors
from metaprune.methods.graph_metanetwork import Direct, Imitate, Lesson, Metanetwork, Subject, Worth, meta_train
from metaprune.methods.graph_metanetwork.criterion import heights
from metaprune.methods.graph_metanetwork.editor.metanetwork import Scored
from metaprune.methods.graph_metanetwork.expectation import distance
from metaprune.methods.graph_metanetwork.learning.goals.worth import LINEAR
from metaprune.methods.graph_metanetwork.learning.lessons.halving import Rung, Searched, search
from metaprune.methods.graph_metanetwork.learning.lessons.surface import peak
from metaprune.methods.graph_metanetwork.learning.lessons.teach import BRIEF
from metaprune.methods.graph_metanetwork.learning.lessons.trials import measured
from metaprune.methods.graph_metanetwork.learning.zoo import Variant, grow, networks
from metaprune.methods.graph_metanetwork.reading.survey.survey import GROUPS
from metaprune.methods.method import Found, Problem
from metaprune.train.engine import evaluate

ROWS = Path(__file__).parent
"""Where rows are kept that another clone goes on from."""

SHARES = (0.3, 0.17, 0.1)
"""Of the MACs, that stay, in the table. At half of them there is nothing to win (`docs/results.md`)."""

TAUGHT = (0.3, 0.1)
"""Those at which head room is asked and lessons are given; what lies between is for the metanetwork to infer."""

EPOCHS = 3
"""Of tuning after a cut, in searches and in the table."""

TESTED, TEACH, CHOOSE = (0, 1), (0, 1, 3), (2,)
"""Seeds of the networks of a family whose head room is measured, that are learned from, and that choose."""

SHARPNESS = (0.0, 3.0, math.inf)
"""How much more lessons count that were measured better."""

ROOM = (Rung(30, (0,)), Rung(4, (1,)), Rung(2, (2, 3, 4)))
"""How allocations are tried where it is asked how much there is to win."""


@dataclass(frozen=True)
class Member:
    """A network of a family.

    Attributes:
        family: Its name.
        seed: Draws sizes and weights.
        data: What it learns; by default what its family does.
    """

    family: str
    seed: int
    data: str = ""

    @property
    def learns(self) -> str:
        """The name of its data."""
        return self.data or FAMILIES[self.family].data

    @property
    def name(self) -> str:
        """In folders and tables."""
        return f"{self.family}-{self.learns}-{self.seed}"


@dataclass(frozen=True)
class Meta:
    """How a metanetwork is trained, and what it is told.

    Attributes:
        surveys: Groups of what it is told of axes.
        scored: What has a score; widths learn from what all that was tried was worth, others imitate what was best.
        hidden: Size of its states.
        layers: Rounds of messages; with none, widths are linear in what is told of axes.
        sharpness: Where they imitate: see `Searched.lessons`; None for the peak of a surface through all that was
            tried of a network, alone.
        short: How much what is said counts beside (`Worth`).
        families: Of those it may learn from, how many it does; 0 are all.
        epochs: Times that each network is seen.
        edits: Whether weights are edited, too, and learn what a cut and a short tuning leave of the loss.
    """

    surveys: tuple[str, ...] = GROUPS
    scored: Scored = "widths"
    hidden: int = 32
    layers: int = 0
    sharpness: float | None = 1.0
    short: float = 0.5
    families: int = 0
    epochs: int = 40
    edits: bool = False

    @property
    def recipe(self) -> mp.Recipe:
        """Of its training."""
        return replace(LINEAR, epochs=self.epochs, **({"lr": 3e-3, "weight_decay": 0.1} if self.layers else {}))


ABLATIONS: Mapping[str, Meta] = {
    "imitates": Meta(scored="both", layers=3),
    "imitates, axes only": Meta(scored="axes", layers=3),
    "imitates, channels only": Meta(scored="channels", layers=3),
    "no survey": Meta(surveys=()),
    **{f"without {group}": Meta(surveys=tuple(other for other in GROUPS if other != group)) for group in GROUPS},
    **{
        f"imitates, sharpness {sharpness:g}": Meta(scored="both", layers=3, sharpness=sharpness)
        for sharpness in SHARPNESS
    },
    "imitates the peak of a surface": Meta(scored="both", layers=3, sharpness=None),
    **{f"{count} families": Meta(families=count) for count in (1, 2, 4, 6)},
    "further from the criterion": Meta(short=0.1),
    "one round of messages": Meta(layers=1),
    "three rounds of messages": Meta(layers=3),
    "three rounds, hidden 8": Meta(hidden=8, layers=3),
    "edits of weights": Meta(scored="both", layers=3, edits=True),
}
"""One thing changed each."""


def weights_of(network: nn.Module) -> str:
    """What tells a network's weights from others."""
    return digest(named_tensors(network))[:12]


def heights_of(problem: Problem) -> dict[str, torch.Tensor]:
    """The metanetwork's criterion of a network: a score for each channel."""
    return heights(problem.model, problem.graph, problem.task, "blend")


@dataclass(frozen=True)
class Uniform:
    """The same share of every axis; which channels stay is the metanetwork's criterion's word."""

    name: ClassVar[str] = "uniform"
    reference: ClassVar[str] = "none"

    def find(self, problem: Problem) -> Found:
        """Rank, and take the same share of each."""
        ranked = heights_of(problem)
        plan = Allocation(problem.graph, problem.budget).proportional(ranked)
        return Found(plan, problem.model, ranked)


@dataclass(frozen=True)
class Criterion:
    """The metanetwork's criterion without a metanetwork."""

    name: ClassVar[str] = "criterion"
    reference: ClassVar[str] = "none"
    asks_data: ClassVar[bool] = True

    def scores(self, problem: Problem) -> dict[str, torch.Tensor]:
        """The criterion."""
        return heights_of(problem)

    def find(self, problem: Problem) -> Found:
        """Rank, and fit the budget."""
        ranked = self.scores(problem)
        return Found(Allocation(problem.graph, problem.budget).plan(ranked), problem.model, ranked)


RIVALS: Mapping[str, Callable[[], Any]] = {
    "criterion": Criterion,
    "uniform": Uniform,
    "magnitude": mp.Magnitude,
    "taylor": mp.Taylor,
}
"""One-shot criteria, the metanetwork's own first."""


@dataclass(frozen=True)
class Work:
    """All pieces of the experiment.

    Attributes:
        home: The folder; several processes may share it.
        sources: Of the data.
        epochs: Of tuning.
        quick: Epochs of training in place of a family's; for a look, 0 leaves it.
    """

    home: Path
    sources: Sources
    epochs: int = EPOCHS
    quick: int = 0
    known: dict[str, Any] = field(default_factory=dict)

    def kept(self, what: str) -> Kept:
        """The rows of one part of the experiment."""
        subject = f"{self.epochs} epochs" + (f", quick {self.quick}" if self.quick else "")
        return Kept(self.home / what, ROWS / f"{what}.jsonl", subject)

    def data(self, name: str) -> Data:
        """By its name; read once."""
        if name not in self.known:
            self.known[name] = prepared(name, self.sources, self.home / "data")
        found: Data = self.known[name]
        return found

    def network(self, member: Member) -> nn.Module:
        """Trained, where it was not."""
        family, data = FAMILIES[member.family], self.data(member.learns)
        recipe = replace(family.recipe, epochs=self.quick or family.recipe.epochs, warmup=0.5)
        builders = {member.family: partial(built, member.family, data.shape)}
        chosen = Variant(member.family, {"seed": member.seed}, member.seed)
        home = self.home / "zoo" / f"{member.family}-{member.learns}"
        grow(home, builders, [chosen], data.example, data.task, recipe, data=member.learns, progress=False)
        return networks(home, builders, data.example, only=[chosen.name])[chosen.name]

    def problem(self, member: Member, share: float) -> Problem:
        """What is asked at a budget."""
        model, data = self.network(member), self.data(member.learns)
        graph = mp.trace(model, data.example)
        recipe = tuned(FAMILIES[member.family].recipe, self.epochs)
        return Problem(model, graph, mp.Budget(macs=share, multiple_of=1), data.task, recipe, progress=False)

    def search(self, problem: Problem, out: Path, rungs: Sequence[Rung]) -> tuple[Searched, mp.Plan]:
        """Allocations of a network at a budget, tried, and what one-shot criteria say among them; and the peak."""
        rivals = {name: make().find(problem) for name, make in RIVALS.items()}
        plans = {name: found.plan for name, found in rivals.items()}
        ranked = rivals["criterion"].scores
        found = search(problem, ranked, plans, out, rungs=rungs, teachers={"dhp": mp.DHP()})
        return found, peak(found, Allocation(problem.graph, problem.budget), ranked)

    def searches(self, member: Member, share: float) -> Path:
        """Where a search keeps what it tried."""
        return self.home / "searches" / f"{member.name}-{share:g}"

    def head_room(self, member: Member, share: float) -> None:
        """One row: how far the best that was found is above the best of the rivals."""

        def row() -> dict[str, Any]:
            data, problem, out = self.data(member.learns), self.problem(member, share), self.searches(member, share)
            found, top = self.search(problem, out, ROOM)
            last = found.rungs[-1].seeds
            [tried] = measured(problem, {"peak": top}, last, out, tested=True).values()
            dense = evaluate(problem.model, data.task.test or data.task.val, data.task, problem.recipe)
            return {
                "member": member.name,
                "family": member.family,
                "data": member.learns,
                "share": share,
                "points": data.points,
                "axes": len(problem.graph.free),
                "dense": dense,
                "minutes": sum(trial.seconds for trial in found.trials.values()) / 60,
                "tunings": sum(len(trial.metrics) for trial in found.trials.values()),
                **standing(found),
                "peak": [tried.tests[seed] for seed in last if seed in tried.tests],
            }

        self.kept("head_room").carry_out(f"{member.name}-{share:g}", row)

    def prune(self, member: Member, arm: str, method: Callable[[], Any], share: float, seed: int) -> None:
        """One row of the table: a network pruned by a method, all with the same epochs."""
        run = f"{member.name}-{arm}-{share:g}-{seed}".replace(" ", "_")

        def row() -> dict[str, Any]:
            problem, data = self.problem(member, share), self.data(member.learns)
            seconds = away = None
            if arm not in CONTROLS:
                started = time.process_time()
                found = method().find(problem)  # once more below: what it takes alone is a figure of its own
                seconds = time.process_time() - started
                away = distance(problem.graph, found.plan, Criterion().find(problem).plan)
            report = mp.prune(
                problem.model,
                data.example,
                method=method(),
                budget=problem.budget,
                task=data.task,
                recipe=replace(problem.recipe, seed=seed),
                out=self.home / "runs" / run,
                network=member.name,
                data=member.learns,
            ).report
            return {
                "member": member.name,
                "family": member.family,
                "data": member.learns,
                "arm": arm,
                "share": share,
                "seed": seed,
                "points": data.points,
                "dense": report.dense.metric,
                "metric": report.pruned.metric,
                "macs": report.pruned.macs / report.dense.macs,
                "seconds": seconds,
                "distance": away,
            }

        self.kept("runs").carry_out(run, row)

    def lessons(self, member: Member, share: float) -> None:
        """One row: what a search teaches; what it tried is kept with the search."""
        run = f"{member.name}-{share:g}"

        def row() -> dict[str, Any]:
            asked = any(row["run"] == run for row in self.kept("head_room").rows())
            problem = self.problem(member, share)
            found, top = self.search(problem, self.searches(member, share), ROOM if asked else BRIEF)
            minutes = sum(trial.seconds for trial in found.trials.values()) / 60
            about = {"member": member.name, "weights": weights_of(problem.model), "minutes": minutes}
            return {**about, "peak": written(top), **row_of(found)}

        self.kept("lessons").carry_out(run, row)

    def taught(self, member: Member, meta: Meta) -> tuple[Lesson, ...]:
        """The lessons of a network that are there.

        Raises:
            SystemExit: They are of other weights than the network has here.
        """
        rows = [row for row in self.kept("lessons").rows() if row["member"] == member.name]
        if rows and {row["weights"] for row in rows} != {weights_of(self.network(member))}:
            raise SystemExit(
                f"this machine trains {member.name} to other weights than the lessons in {ROWS / 'lessons.jsonl'} are "
                "of; move that file away, and do --parts lessons"
            )
        if meta.scored == "widths":
            return tuple(lesson for row in rows for lesson in searched(row).graded())
        if meta.sharpness is None:
            return tuple(Lesson(row["share"], plan_of(row["peak"])) for row in rows)
        return tuple(lesson for row in rows for lesson in searched(row).lessons(meta.sharpness))

    def meta_train(self, name: str, meta: Meta, families: Sequence[str]) -> None:
        """One row and a metanetwork, learned from all networks of these families that have lessons."""
        folder = self.metanetwork(name).parent

        def row() -> dict[str, Any]:
            known = families[: meta.families] if meta.families else families
            learned, chooses = (
                {
                    member.name: (member, lessons)
                    for member in members(known, seeds)
                    if (lessons := self.taught(member, meta))
                }
                for seeds in (TEACH, CHOOSE)
            )
            if not learned or not chooses:
                raise SystemExit(f"{name}: expected lessons to learn from and to choose by; do --parts lessons first")
            started = time.process_time()
            torch.manual_seed(0)
            edits = Direct(low=min(TAUGHT), high=max(TAUGHT)) if meta.edits else None
            goal = Worth(short=meta.short) if meta.scored == "widths" else Imitate(edits)
            curve = meta_train(
                Metanetwork(meta.hidden, meta.layers, surveys=meta.surveys, scored=meta.scored, edits=meta.edits),
                {name: self.subject(member) for name, (member, _) in learned.items()},
                held_out={name: self.subject(member) for name, (member, _) in chooses.items()},
                goal=goal,
                recipe=meta.recipe,
                batches=4 if meta.edits else 1,
                every=2,
                lessons={name: lessons for name, (_, lessons) in (learned | chooses).items()},
                choose_by="lessons",
                out=folder,
                progress=False,
            )
            return {
                "name": name,
                "networks": len(learned),
                "families": list(known),
                "minutes": (time.process_time() - started) / 60,
                "before": curve.checks[0].area,
                "surprise": curve.best.area,
                "chosen": curve.chosen,
                "steps": len(curve.steps),
            }

        self.kept("meta").carry_out(name, row, here=True)

    def metanetwork(self, name: str) -> Path:
        """Where a metanetwork lies."""
        return self.home / "meta" / name / "metanetwork.safetensors"

    def pruning(self, name: str) -> mp.GraphMetanetwork:
        """By a metanetwork, taken at its word."""
        return mp.GraphMetanetwork(str(self.metanetwork(name)), trial=0)

    def fused(self, name: str) -> mp.IntraFusion:
        """By a metanetwork, and what goes is fused into what stays."""
        return mp.IntraFusion(self.pruning(name))

    def subject(self, member: Member) -> Subject:
        """What meta-training takes."""
        data = self.data(member.learns)
        return Subject(self.network(member), data.example, data.task, points=data.points)

    def compare(self, member: Member, name: str, shares: Sequence[float], seeds: Sequence[int]) -> None:
        """All rows of the table of one network: a metanetwork against its criterion and the others."""
        arms: dict[str, Callable[[], Any]] = {
            **RIVALS,
            "dhp": mp.DHP,
            FUSED: partial(mp.IntraFusion, Criterion()),
            HELD: partial(mp.Taylor, held=True),
        }
        if self.metanetwork(name).exists():
            arms[name] = partial(self.pruning, name)
        for share, seed, (arm, method) in itertools.product(shares, seeds, arms.items()):
            self.prune(member, arm, method, share, seed)


def standing(found: Searched) -> dict[str, Any]:
    """What a search says of the room above one-shot criteria.

    The best allocation and the best rival are chosen on validation data by the seeds before the last rung, and compared
    by the seeds of the last, on test data; so is each rival.
    """
    last = found.rungs[-1].seeds

    def figures(name: str) -> list[float]:
        return [found.trials[name].tests[seed] for seed in last if seed in found.trials[name].tests]

    best, rival = found.chosen(found.finalists), found.chosen(found.rivals)
    return {
        "best": best,
        "rival": rival,
        "tests": {name: figures(name) for name in (*found.rivals, *found.finalists)},
        "noise": found.noise,
        "spread": found.spread,
    }


def members(families: Iterable[str], seeds: Iterable[int]) -> list[Member]:
    """Networks of families, the first of each family first."""
    names = list(families)
    return [Member(family, seed) for seed in seeds for family in names]
