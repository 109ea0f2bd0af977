"""The search over widths, on figures that are known; and what survives a kill."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.methods.metapruning.evolution import Candidate, Ledger, evolve
from metaprune.methods.metapruning.genes import Genes, Widths
from metaprune.train.checkpoint import Checkpoint, CheckpointError
from tests.methods import small

IDENTITY = {"weights": "w"}


@pytest.fixture(scope="module")
def genes() -> Genes:
    torch.manual_seed(0)
    allocation = Allocation(mp.trace(small.Small(), small.EXAMPLE), mp.Budget(macs=0.5, multiple_of=1))
    return Genes(allocation, spend=False)  # those that spend all of it are few, with three axes


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
    genes = Genes(Allocation(tiny, mp.Budget(macs=1.0, multiple_of=1)), spend=False)
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
