"""The evolutionary search over widths."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from metaprune.methods.metapruning.genes import Genes, Widths
from metaprune.methods.metapruning.rewarded import Fitness
from metaprune.train.checkpoint import Checkpoint, CheckpointError
from metaprune.train.processes import now

__all__ = ["Candidate", "Ledger", "evolve"]

TRIES = 10
"""So often a child is bred anew where it is known already; the authors' code never gives up."""


@dataclass(frozen=True)
class Candidate:
    """Widths that were tried.

    Attributes:
        widths: For each lane.
        metric: On the validation data, with generated weights.
        share: Of the dense cost.
        fitness: What the search ranks by.
    """

    widths: Widths
    metric: float
    share: float
    fitness: float


class Ledger:
    """The metric of every vector of widths that was asked for, measured once; it survives a kill.

    Of several processes, which all measure together, the first one reads and writes.

    The search follows from its seed and these figures alone: begun again with the same ledger, it goes on where it was.
    """

    def __init__(self, measure: Callable[[Widths], float], checkpoint: Checkpoint | None, identity: Mapping[str, str]):
        """Go on with what is there.

        Raises:
            CheckpointError: What is there is of another search.
        """
        self.measure, self.checkpoint, self.identity = measure, checkpoint, dict(identity)
        self.known: dict[Widths, float] = {}
        self._saved = monotonic()
        if checkpoint is None:
            return
        now().told(checkpoint.prepare)
        tree: Any = now().told(checkpoint.load)
        if tree is None:
            return
        if not isinstance(tree, dict) or tree.get("identity") != self.identity:
            raise CheckpointError(
                f"checkpoint {checkpoint.folder}: of another search; give another folder, or delete this one"
            )
        self.known = {tuple(map(int, widths.split(","))): float(metric) for widths, metric in tree["metrics"].items()}

    def __call__(self, widths: Widths) -> float:
        """The metric at these widths."""
        if widths not in self.known:
            self.known[widths] = self.measure(widths)
            checkpoint = self.checkpoint
            if checkpoint and now().told(lambda: monotonic() - self._saved >= checkpoint.seconds):
                self.save()
        return self.known[widths]

    def save(self) -> None:
        """Write all figures."""
        if self.checkpoint:
            metrics = {",".join(map(str, widths)): metric for widths, metric in self.known.items()}
            tree = {"identity": self.identity, "metrics": metrics}
            now().told(partial(self.checkpoint.save, tree))
        self._saved = monotonic()


def evolve(
    genes: Genes,
    measure: Callable[[Widths], float],
    fitness: Fitness,
    *,
    population: int,
    generations: int,
    parents: int,
    mutation: float,
    seed: int,
    after: Callable[[int, Candidate], None] = lambda done, best: None,
) -> list[Candidate]:
    """Search (MetaPruning, algorithm 1): the fittest are mutated and crossed, and those children are tried.

    Uniform widths are in the first population, beside random ones. Half of each later one are mutants, the other half
    crossings, and random widths stand in where those give nothing new.

    Args:
        genes: What may be searched.
        measure: The metric at given widths.
        fitness: What ranks.
        population: How many are tried in each generation.
        generations: How many there are, the first included.
        parents: The fittest of all so far that children come from.
        mutation: The probability that a width changes.
        seed: Of all choices.
        after: Told after each candidate how many there are, and the best.

    Returns:
        All candidates, the fittest first; of equals, the first that was tried.
    """
    tried: dict[Widths, Candidate] = {}
    best: list[Candidate] = []
    for generation in range(generations):
        numbers = random.Random(f"{seed}/{generation}")
        fittest = [one.widths for one in best[:parents]]
        before = len(tried)
        for widths in itertools.islice(
            _children(genes, fittest, set(tried), population, mutation, numbers), population
        ):
            metric, share = measure(widths), genes.share(widths)
            value = -math.inf if math.isnan(metric) else fitness(metric, share)
            tried[widths] = Candidate(widths, metric, share, value)
            best = sorted(tried.values(), key=lambda one: -one.fitness)
            after(len(tried), best[0])
        if len(tried) == before:  # there are no others
            break
    return best


def _children(
    genes: Genes, parents: list[Widths], known: set[Widths], population: int, mutation: float, numbers: random.Random
) -> Iterator[Widths]:
    """New widths: mutants, then crossings, then random ones; where there are no parents yet, uniform ones first."""

    def bred(count: int, make: Callable[[], Widths]) -> Iterator[Widths]:
        for _ in range(TRIES * count):
            if count <= 0:
                return
            child = make()
            if child not in known:
                known.add(child)
                count -= 1
                yield child

    if not parents:
        yield from bred(1, lambda: genes.within(genes.whole()))
    else:
        yield from bred(population // 2, lambda: genes.mutated(numbers.choice(parents), mutation, numbers))
    if len(parents) > 1:
        half = population - population // 2
        yield from bred(half, lambda: genes.crossed(numbers.sample(parents, 2), numbers))
    yield from bred(population, lambda: genes.anywhere(numbers))
