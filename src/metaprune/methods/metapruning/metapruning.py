"""MetaPruning: widths are searched with a network that generates its weights for any of them, then trained afresh.

Source: Liu, Mu, Zhang, Guo, Yang, Cheng, Sun, MetaPruning: Meta Learning for Automatic Neural Network Channel Pruning,
ICCV 2019, arXiv 1903.10258. A pruning network is trained at widths drawn anew for each batch; an evolutionary search
asks it how good widths are, with statistics of batch norms recalibrated for each; the best are trained from fresh
weights.

Departures, with reasons:
    The generator is a choice. "shared" crops one weight for all widths; "film" modulates it by a factor of rank one;
    "mlp" is the paper's, which has 33 parameters per weight; it begins as b + B relu(A r + a) with B = 0.
    A generator reads the ratios of the axes that its own tensor touches, in any network; in the paper, of a block.
    Widths are what limits and alignment allow, in place of 31 ratios.
    Candidates are projected onto the budget, in place of drawing until one fits a window; uniform widths are among the
    first. So the budget is met, and no search hangs.
    Norms keep their scale and shift, shared by all widths; the paper has a batch norm without them for each ratio.
    Since statistics are recalibrated for each candidate, one norm serves all.
    With `fresh=False` the given network is what generator and result start from: at each width its best channels stay.
"""

from __future__ import annotations

import inspect
import itertools
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar, Literal

from torch import Tensor, nn

from metaprune.cost.budget import Allocation
from metaprune.graph.arguments import is_number, is_whole
from metaprune.graph.errors import MetapruneError
from metaprune.graph.tensors import clone, digest
from metaprune.methods.metapruning.evolution import Candidate, Ledger, evolve
from metaprune.methods.metapruning.generator import Kind, PruningNet
from metaprune.methods.metapruning.genes import Genes, Widths
from metaprune.methods.metapruning.rewarded import Fitness, rewarded
from metaprune.methods.method import Found, Problem
from metaprune.methods.saliency import evidence_per_cost, gate_gradients, group_norms
from metaprune.surgery.anew import begin_anew
from metaprune.surgery.recalibrate import recalibrate
from metaprune.train import randomness
from metaprune.train.checkpoint import Checkpoint
from metaprune.train.engine import device_of, evaluate
from metaprune.train.processes import now
from metaprune.train.progress import Bar
from metaprune.train.recipe import Recipe
from metaprune.train.run import Row
from metaprune.train.task import Batch, First, Loader, Task

__all__ = ["MetaPruning", "Searched"]


@dataclass(frozen=True)
class Searched:
    """What a search of widths gives.

    Attributes:
        net: The pruning network, trained.
        genes: What was searched.
        candidates: All that were tried, the fittest first.
        history: The epochs of the pruning network.
    """

    net: PruningNet
    genes: Genes
    candidates: tuple[Candidate, ...]
    history: tuple[Row, ...]


@dataclass(frozen=True, repr=False)
class MetaPruning:
    """Search widths by evolution, asking a network that generates its weights for any widths.

    Attributes:
        generator: "shared", "film", or the paper's "mlp".
        fresh: Whether the network found is trained from fresh weights, as in the paper; else from the given ones.
        search: Share of the recipe's epochs that the pruning network trains, on a schedule of its own. Fresh weights
            are then trained for all epochs; given ones for the rest.
        population: Candidates in each generation.
        generations: How many there are; a candidate costs `calibration` batches and the validation data.
        parents: The fittest, from which children come.
        mutation: The probability that a width changes.
        calibration: Batches of training data from which each candidate's batch norms get their statistics.
        batches: Batches of validation data that candidates are asked; None for all.
        hidden: Units of each generator.
        ranking: What says which of the given channels are the best where `fresh` is False: the "norm" of their weights,
            or "evidence" from data.
        fitness: What candidates are ranked by: the "metric"; "rewarded" against the given network's own metric and
            cost; or a function of (metric, share of the cost), such as `mp.rewarded(…)`.
        window: With a fitness other than the metric, the share of the budget that candidates cost at least; 0 leaves it
            free, and the cheapest network may have the highest reward. With the metric all of it is used.
    """

    generator: Kind = "shared"
    fresh: bool = True
    search: float = 0.25
    population: int = 32
    generations: int = 8
    parents: int = 8
    mutation: float = 0.1
    calibration: int = 16
    batches: int | None = None
    hidden: int = 32
    ranking: Literal["norm", "evidence"] = "norm"
    fitness: Literal["metric", "rewarded"] | Fitness = "metric"
    window: float = 0.9

    name: ClassVar[str] = "MetaPruning"
    reference: ClassVar[str] = (
        "Liu et al., MetaPruning: Meta Learning for Automatic Neural Network Channel Pruning, ICCV 2019"
    )

    def __post_init__(self) -> None:
        if self.generator not in ("shared", "film", "mlp"):
            raise MetapruneError(f"MetaPruning: expected generator 'shared', 'film' or 'mlp', got {self.generator!r}")
        if self.ranking not in ("norm", "evidence"):
            raise MetapruneError(f"MetaPruning: expected ranking 'norm' or 'evidence', got {self.ranking!r}")
        if not (is_number(self.search) and 0 < self.search <= 1):
            raise MetapruneError(f"MetaPruning: expected search in (0, 1], got {self.search!r}")
        if not (is_number(self.window) and 0 <= self.window <= 1):
            raise MetapruneError(f"MetaPruning: expected window in [0, 1], got {self.window!r}")
        if not (is_number(self.mutation) and 0 <= self.mutation <= 1):
            raise MetapruneError(f"MetaPruning: expected mutation in [0, 1], got {self.mutation!r}")
        for name in ("population", "generations", "parents", "calibration", "batches", "hidden"):
            value = getattr(self, name)
            if not (is_whole(value) and value >= 1) and not (name == "batches" and value is None):
                raise MetapruneError(f"MetaPruning: expected {name} as a whole number from 1, got {value!r}")
        if not (self.fitness in ("metric", "rewarded") if isinstance(self.fitness, str) else callable(self.fitness)):
            raise MetapruneError(
                f"MetaPruning: expected fitness 'metric', 'rewarded' or a function, got {self.fitness!r}"
            )

    def __repr__(self) -> str:
        """Its settings; a function by its name, since a folder of a run remembers them."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        said = (
            f"{name}={value.__module__}.{value.__qualname__}" if inspect.isfunction(value) else f"{name}={value!r}"
            for name, value in own.items()
        )
        return f"MetaPruning({', '.join(said)})"

    @classmethod
    def paper(cls) -> MetaPruning:
        """The paper's own setting: its generator, a population of 50 for 20 generations, the ten fittest as parents.

        Its pruning network trains for a quarter of the epochs of the network found; labels are smoothed by 0.1.
        """
        return cls(generator="mlp", population=50, generations=20, parents=10, calibration=100)

    def find(self, problem: Problem) -> Found:
        """Train the pruning network, search, and take the fittest widths."""
        found = self.searched(problem)
        best, epochs = found.candidates[0], len(found.history)
        return Found(
            plan=found.genes.plan(best.widths),
            model=problem.model,
            scores=found.genes.shrinking(best.widths),
            epochs=0 if self.fresh else epochs,
            history=found.history,
            before=None if self.fresh else "model",
            fresh=self.fresh,
            spent={**({"epochs": epochs} if self.fresh else {}), "evaluations": len(found.candidates)},
            notes=(_said(found, problem.task),),
        )

    def searched(self, problem: Problem) -> Searched:
        """The pruning network and every candidate of the search; what was done before a kill is not done again.

        Raises:
            MetapruneError: No axis is free, or weights are split between processes, of which none could be generated.
        """
        if problem.recipe.strategy == "fsdp" and now().size > 1:
            raise MetapruneError(
                "MetaPruning: expected the whole network in each process, got strategy='fsdp'; weights are made and "
                "cropped here, which split ones cannot be: leave the strategy out"
            )
        self._rehearse(problem)
        net, history = self.trained(problem)
        return Searched(net, self.genes(problem), self.evolved(problem, net), history)

    def trained(self, problem: Problem) -> tuple[PruningNet, tuple[Row, ...]]:
        """The pruning network, trained at widths drawn for each batch; and its epochs.

        Raises:
            MetapruneError: No axis is free.
        """
        if not problem.graph.free:
            raise MetapruneError("MetaPruning: the graph has no free axis to search; print the graph to see why")
        task, recipe = problem.task.cloned(), problem.recipe  # partners train for all widths here, and not after it
        genes = self.genes(problem)
        calibration = _first_batches(task.train, self.calibration, recipe.seed)

        def settle(network: nn.Module) -> object:
            return recalibrate(network, calibration, task.inputs, most=self.calibration)

        network = clone(problem.model)
        with randomness.isolated():
            randomness.seed(recipe.seed)
            if self.fresh:
                begin_anew(network)
            net = PruningNet(
                network,
                problem.graph,
                self.generator,
                self.hidden,
                draw=lambda numbers: genes.plan(genes.drawn(numbers)),
                seed=recipe.seed,
                steady=genes.plan(genes.within(genes.whole())),
                settle=settle,
            )
        epochs = recipe.epochs_of(self.search)
        training = replace(problem, task=task, recipe=shortened(recipe, epochs))
        history = training.fit(net, name="generator", during=[net.batches], checkpoint=_stage(problem, "generator"))
        return net.to(device_of(recipe)), tuple(history.rows)

    def evolved(self, problem: Problem, net: PruningNet) -> tuple[Candidate, ...]:
        """Every candidate of the search, the fittest first.

        Args:
            problem: Its budget may be another than that which the pruning network was trained for.
            net: From `trained`.
        """
        task, recipe, genes, asked = problem.task, problem.recipe, self.genes(problem), self._asked(problem)

        def measure(widths: Widths) -> float:
            return evaluate(net.copy(genes.plan(widths)), asked, task, recipe)

        folder = _stage(problem, "candidates")
        identity = {
            "weights": digest(net.state_dict()),
            "calibration": f"{self.calibration}",
            "asked": f"{self.batches}",
            "channels": f"{genes.order}",
        }
        ledger = Ledger(measure, None if folder is None else Checkpoint(folder), identity)
        with Bar("candidates", self.population * self.generations, shown=problem.progress) as bar:
            candidates = evolve(
                genes,
                ledger,
                self._fitness(problem, asked),
                population=self.population,
                generations=self.generations,
                parents=self.parents,
                mutation=self.mutation,
                seed=recipe.seed,
                after=lambda done, best: bar.at(done, f"best {best.metric:.4g}"),
            )
        ledger.save()
        return tuple(candidates)

    def genes(self, problem: Problem) -> Genes:
        """What is searched: widths, and the channels that stay at each."""
        return Genes(
            Allocation(problem.graph, problem.budget),
            None if self.fresh else self._scores(problem),
            1.0 if self.fitness == "metric" else self.window,
        )

    def _scores(self, problem: Problem) -> dict[str, Tensor]:
        """What the given network's channels are worth, each axis by itself."""
        if self.ranking == "norm":
            return group_norms(problem.model, problem.graph)
        gradients = gate_gradients(problem.model, problem.graph, problem.task, seed=problem.recipe.seed)
        return evidence_per_cost(gradients, dict.fromkeys(gradients, 1.0), power=0.0)

    def _asked(self, problem: Problem) -> Loader:
        """What candidates are measured on."""
        return problem.task.val if self.batches is None else First(problem.task.val, self.batches)

    def _rehearse(self, problem: Problem) -> None:
        """Measure and rank the given network as candidates will be: what fails is better known before anything trains.

        Raises:
            MetapruneError: So few batches have no metric, or the fitness is no number.
        """
        if self.batches is None and isinstance(self.fitness, str):
            return
        asked = self._asked(problem)
        metric = evaluate(problem.model, asked, problem.task, problem.recipe)
        found = self._fitness(problem, asked)(metric, 1.0)
        if not is_number(found):
            raise MetapruneError(f"MetaPruning: expected a fitness that gives a number, got {found!r}")

    def _fitness(self, problem: Problem, asked: Loader) -> Fitness:
        """What ranks candidates."""
        better = problem.task.higher_is_better
        if self.fitness == "metric":
            return lambda metric, share: metric if better else -metric
        if self.fitness == "rewarded":
            base = evaluate(problem.model, asked, problem.task, problem.recipe)
            return rewarded(base, higher_is_better=better)
        assert not isinstance(self.fitness, str)
        return self.fitness


def shortened(recipe: Recipe, epochs: int) -> Recipe:
    """The whole schedule in fewer epochs, each with as many steps."""
    part = epochs / recipe.length
    return replace(
        recipe,
        epochs=epochs,
        before=0,
        after=0,
        warmup=part * recipe.warmup,
        milestones=tuple(part * milestone for milestone in recipe.milestones),
        max_steps=None if recipe.max_steps is None else epochs * recipe.max_steps // recipe.length,
    )


def _stage(problem: Problem, name: str) -> Path | None:
    return None if problem.checkpoint is None else problem.checkpoint / name


def _first_batches(loader: Loader, most: int, seed: int) -> list[Batch]:
    """The same batches of the training data for every candidate."""
    with randomness.isolated():
        randomness.seed(seed)
        return list(itertools.islice(iter(loader), most))


def _said(found: Searched, task: Task) -> str:
    """What the search found, in words."""
    uniform = found.genes.within(found.genes.whole())
    known = {one.widths: one.metric for one in found.candidates}
    said = (
        f"{len(found.candidates)} vectors of widths were tried with generated weights; the one taken had "
        f"{task.metric_name} {known[found.candidates[0].widths]:.4g}"
    )
    if math.isfinite(known.get(uniform, math.nan)):
        said += f", uniform widths {known[uniform]:.4g}"
    return said
