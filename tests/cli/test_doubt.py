"""When a network is doubted, and what is named as the cause."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from metaprune.cli.doubt import below_expected, better_statistics, doubt, guessing
from metaprune.data import Batches
from metaprune.data.preprocessing import Preprocessing

RECIPE = mp.Recipe(device="cpu", precision="32-true")


class Bright(nn.Module):
    """Says whether the mean of a picture is above 0: right where 0.5 was taken from pixels in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        above = self.weight * x.mean((1, 2, 3))
        return torch.stack([-above, above], 1)


def batches(mean: float, std: float = 0.5) -> Batches:
    """Ten dark pictures (of grey 51) and ten bright ones (of grey 204)."""
    images = torch.tensor([51] * 10 + [204] * 10, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    labels = torch.tensor([0] * 10 + [1] * 10)
    return Batches(images, labels, 8, torch.tensor([255 * mean]), torch.tensor([255 * std]))


def task(mean: float, std: float = 0.5) -> mp.Classification:
    return mp.Classification(batches(mean, std), batches(mean, std))


def looks(mean: float, std: float = 0.5) -> Preprocessing:
    own = ((0.5,), (0.3,))
    return Preprocessing((1, 4, 4), None, (mean,), (std,), "as given", 0, False, "a split of its own", 0, own)


def doubted(found: float, mean: float = 0.5, **other: Any) -> str | None:
    given = {"preprocessing": looks(mean), "expect": None, "chosen": False, "trained": True} | other
    return doubt(Bright(), found, task(mean), RECIPE, **given)


@pytest.mark.parametrize(
    ("found", "expect", "higher", "short"),
    [
        (95.0, 100.0, True, False),  # a twentieth may be missing
        (94.9, 100.0, True, True),
        (120.0, 100.0, True, False),
        (105.0, 100.0, False, False),
        (105.1, 100.0, False, True),
        (80.0, 100.0, False, False),
        (-10.6, -10.0, True, True),
        (-10.4, -10.0, True, False),
        (0.0, None, True, False),
    ],
)
def test_far_below_what_was_expected(found: float, expect: float | None, higher: bool, short: bool) -> None:
    said = below_expected(found, expect, higher)
    assert said == (f"it has {found:.2f} where {expect:g} was expected" if short else None)


def test_guessing_says_the_most_frequent_class() -> None:
    uneven = replace(batches(0.5), labels=torch.tensor([2] * 13 + [0] * 7))
    assert guessing(mp.Classification(uneven, uneven)) == 65.0


def test_the_normalisation_that_is_far_better_is_named() -> None:
    assert better_statistics(Bright(), task(0.5), RECIPE, looks(0.5)) is None
    assert better_statistics(Bright(), task(0.0), RECIPE, looks(0.0)) == ("--mean data --std data", 100.0, 50.0)
    other = replace(looks(0.0), own=((0.0,), (0.5,)))  # that of the data is the one that was used
    assert better_statistics(Bright(), task(0.0), RECIPE, other) == ("--mean 0.5 --std 0.5", 100.0, 50.0)


def test_nothing_is_said_where_all_looks_well() -> None:
    assert doubted(100.0) is None
    assert doubted(55.1) is None
    assert doubted(100.0, expect=104.0) is None
    assert doubted(50.0, mean=0.0, preprocessing=None) is None


def test_what_looks_like_guessing_is_said_with_likely_causes() -> None:
    said = doubted(55.0)
    assert said is not None
    assert said.startswith("accuracy (%) is 55.00, and guessing has 50.00; likely causes: other --mean and --std than ")
    assert "(here 0.5 and 0.5), another --size (here 4), or classes in another order" in said


def test_another_normalisation_is_tried_unless_the_user_chose_one_and_the_metric_is_fine() -> None:
    named = "with --mean data --std data it has 100.0 where it has 50.0 now"
    for said in (doubted(70.0, mean=0.0), doubted(50.0, mean=0.0, chosen=True)):
        assert said is not None
        assert named in said
    assert doubted(70.0, mean=0.0, chosen=True) is None
    said = doubted(70.0, mean=0.0, chosen=True, expect=90.0)
    assert said is not None
    assert said.startswith("it has 70.00 where 90 was expected; it looks trained with another normalisation")


def test_without_weights_or_for_other_tasks_nothing_is_tried() -> None:
    assert doubted(50.0, mean=0.0, trained=False) == (
        "accuracy (%) is 50.00, and guessing has 50.00; no weights were given: --weights"
    )
    assert doubted(70.0, mean=0.0, trained=False) is None
    assert doubted(50.0, mean=0.0, preprocessing=None, expect=60.0) == (
        "it has 50.00 where 60 was expected; was the network trained for these data, degraded like this?"
    )
