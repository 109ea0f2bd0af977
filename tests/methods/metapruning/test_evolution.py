"""The search over widths, on figures that are known; and what survives a kill."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.methods.metapruning.evolution import TRIES, Candidate, Ledger, _children, evolve
from metaprune.methods.metapruning.genes import Genes, Widths
from metaprune.train.checkpoint import Checkpoint, CheckpointError
from tests.methods import small

IDENTITY = {"weights": "w"}


@pytest.fixture(scope="module")
def genes() -> Genes:
    torch.manual_seed(0)
    allocation = Allocation(mp.trace(small.Small(), small.EXAMPLE), mp.Budget(macs=0.5, multiple_of=1))
    return Genes(allocation, window=0.0)  # those that spend all of it are few, with three axes


def quality(widths: Widths) -> float:
    """Best with a wide trunk and narrow insides."""
    return widths[0] - 0.5 * abs(widths[1] - 3) - 0.1 * widths[2]


def searched(genes: Genes, measure: Any = quality, seed: int = 0, **fields: Any) -> list[Candidate]:
    settings: dict[str, Any] = {"population": 10, "generations": 6, "parents": 4, "mutation": 0.3} | fields
    return evolve(genes, measure, lambda metric, share: metric, seed=seed, **settings)


def test_it_finds_better_widths_than_chance(genes: Genes) -> None:
    found = searched(genes)
    assert [one.fitness for one in found] == sorted((one.fitness for one in found), reverse=True)
    assert len({one.widths for one in found}) == len(found) == 60
    assert all(one.share <= 0.5 for one in found)
    chance = searched(genes, population=60, generations=1)
    assert found[0].fitness > chance[0].fitness


class Breeding:
    """In place of genes: says who was asked for a child of whom. Crossings are known from the third on."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def child(self, how: str, of: Any, number: int | None = None) -> Any:
        self.asked.append((how, of))
        return (how, len(self.asked) if number is None else number)

    def whole(self) -> Any:
        return "whole"

    def within(self, widths: Any) -> Any:
        return self.child("uniform", widths, 0)

    def mutated(self, parent: Any, rate: float, numbers: random.Random) -> Any:
        return self.child("mutant", (parent, rate))

    def crossed(self, parents: Any, numbers: random.Random) -> Any:
        return self.child("crossing", frozenset(parents), min(sum(how == "crossing" for how, _ in self.asked), 2))

    def anywhere(self, numbers: random.Random) -> Any:
        return self.child("random", None)


def bred(parents: list[Any], population: int, known: set[Any]) -> tuple[list[str], Breeding]:
    genes = Breeding()
    found = itertools.islice(_children(genes, parents, known, population, 0.3, random.Random(0)), population)  # type: ignore[arg-type]
    return [how for how, _ in found], genes


def test_half_of_the_children_are_mutants_and_half_crossings() -> None:
    """Where those give nothing new, random ones stand in; nobody is asked for ever; one parent has no crossings."""
    assert bred([], 3, set())[0] == ["uniform", "random", "random"]
    assert bred([], 2, {("uniform", 0)})[0] == ["random", "random"]
    found, genes = bred(["a", "b", "c"], 5, set())
    assert found == ["mutant", "mutant", "crossing", "crossing", "crossing"]
    assert {of for how, of in genes.asked if how == "mutant"} <= {(parent, 0.3) for parent in "abc"}
    assert all(len(of) == 2 and of < set("abc") for how, of in genes.asked if how == "crossing")
    found, genes = bred(["a", "b"], 8, set())
    assert found == ["mutant"] * 4 + ["crossing"] * 3 + ["random"]
    assert sum(how == "crossing" for how, _ in genes.asked) == TRIES * 4
    assert bred(["a"], 4, set())[0] == ["mutant", "mutant", "random", "random"]


def test_uniform_widths_are_the_first(genes: Genes) -> None:
    order: list[Widths] = []
    searched(genes, lambda widths: order.append(widths) or 0.0)  # type: ignore[func-returns-value]
    assert order[0] == genes.within(genes.whole())
    assert searched(genes, lambda widths: 0.0)[0].widths == order[0]  # of equals, the first


def test_the_same_seed_is_the_same_search(genes: Genes) -> None:
    assert searched(genes) == searched(genes)
    assert searched(genes) != searched(genes, seed=1)


def test_where_all_widths_were_tried_it_ends() -> None:
    torch.manual_seed(0)
    tiny = mp.trace(
        torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)), (torch.zeros(2, 4),)
    )
    genes = Genes(Allocation(tiny, mp.Budget(macs=1.0, multiple_of=1)), window=0.0)
    found = searched(genes, lambda widths: float(-widths[0]), parents=1)
    assert [one.widths for one in found] == [(1,), (2,), (3,)]


def test_what_is_no_number_is_never_the_best(genes: Genes) -> None:
    uniform = genes.within(genes.whole())
    found = searched(genes, lambda widths: math.nan if widths == uniform else quality(widths))
    assert found[-1].widths == uniform
    assert found[-1].fitness == -math.inf


def test_killed_and_begun_again_it_is_the_same_search(genes: Genes, tmp_path: Path) -> None:
    """What was measured before the kill is not measured again."""
    whole = searched(genes)
    calls = itertools.count(1)

    def breaks(widths: Widths) -> float:
        if next(calls) > 23:
            raise KeyboardInterrupt
        return quality(widths)

    checkpoint = Checkpoint(tmp_path / "candidates", seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        searched(genes, Ledger(breaks, checkpoint, IDENTITY))
    anew: list[Widths] = []
    ledger = Ledger(lambda widths: anew.append(widths) or quality(widths), checkpoint, IDENTITY)  # type: ignore[func-returns-value]
    assert searched(genes, ledger) == whole
    assert len(anew) == len(whole) - 23
    ledger.save()
    assert searched(genes, Ledger(breaks, checkpoint, IDENTITY)) == whole


def test_figures_of_another_search_are_refused(genes: Genes, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    searched(genes, Ledger(quality, checkpoint, IDENTITY))
    Ledger(quality, checkpoint, IDENTITY).save()
    with pytest.raises(CheckpointError, match="of another search"):
        Ledger(quality, checkpoint, {"weights": "others"})
