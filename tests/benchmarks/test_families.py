"""Families of networks: every one is what it says, cuts as the graph says, and the page adds up."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.families import page, picture
from benchmarks.families.data import Noisy, going_on, pictures, telling_apart
from benchmarks.families.drawn import APART, FAMILIES, KNOWN, built
from benchmarks.families.page import gain, head_room
from benchmarks.families.told import row_of
from benchmarks.families.told import searched as read_back
from benchmarks.families.work import Member, standing

import metaprune as mp
from metaprune.data import load
from metaprune.methods.graph_metanetwork.learning.lessons.halving import Rung, Searched
from metaprune.methods.graph_metanetwork.learning.lessons.trials import Trial
from metaprune.surgery.slice import carve

SHAPE = {"channels": 1, "classes": 5, "pixels": 16, "length": 12}


def example(family: str) -> torch.Tensor:
    text = FAMILIES[family].data == "text"
    return torch.zeros(2, 12, dtype=torch.int64) if text else torch.zeros(2, 1, 16, 16)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_drawn_and_run(family: str) -> None:
    for seed in range(4):
        network = built(family, SHAPE, seed).eval()
        out = network(example(family))
        assert out.shape[-1] == (16 if family == "hourglass" else 5)
    draws = [FAMILIES[family].draw(random.Random(f"{family} {seed}")) for seed in range(4)]
    assert any(draw != draws[0] for draw in draws[1:])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_cut(family: str) -> None:
    """Widths in its graph are free, and a third of them can go, all at once."""
    torch.manual_seed(0)
    network = built(family, SHAPE, 1).eval()
    graph = mp.trace(network, (example(family),))
    assert len(graph.free) >= 3
    plan = mp.Plan({name: range(max(1, round(axis.size * 2 / 3))) for name, axis in graph.free.items()})
    done = carve(network, graph, plan)
    assert not done.undone
    assert sum(p.numel() for p in done.model.parameters()) < sum(p.numel() for p in network.parameters())


def test_families_kept_apart_are_learned_nothing_from() -> None:
    assert set(KNOWN).isdisjoint(APART)
    assert len(KNOWN) >= 8
    assert len(APART) >= 4
    assert {FAMILIES[name].data for name in KNOWN} == {"cifar10", "text"}
    assert Member("plain", 3).name == "plain-cifar10-3"
    assert Member("plain", 3, "digits").name == "plain-digits-3"


def test_noise_to_measure_is_always_the_same_and_to_learn_from_never() -> None:
    patches = torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8)
    once, again = (torch.cat([noisy for noisy, _ in Noisy(patches, 2)]) for _ in range(2))
    assert torch.equal(once, again)
    assert torch.equal(torch.cat([true for _, true in Noisy(patches, 2)]), patches / 255)
    learning = Noisy(patches, 2, training=True)
    assert not torch.equal(*(torch.cat([noisy for noisy, _ in learning]) for _ in range(2)))


def test_what_is_right_of_a_text() -> None:
    """The share of characters after the first that the likeliest answer foretells, sequence by sequence."""
    tokens = torch.tensor([[0, 1, 2], [2, 1, 0]])
    data = going_on({"train": tokens, "val": tokens, "test": tokens})
    logits = torch.zeros(2, 3, 3)
    logits[:, 0, 1] = 1  # right both times
    logits[:, 1, 2] = 1  # right once
    assert data.task.metric(logits, tokens) == (pytest.approx(150.0), 2)  # type: ignore[operator]
    assert data.shape == {"classes": 3, "length": 64}


def test_pictures_keep_their_labels() -> None:
    """Batches to learn from come in another order each time."""
    whole = load("digits", augment=False, val_share=0.1)
    labels = {
        bytes(image.numpy()): int(label) for image, label in zip(whole.train.images, whole.train.labels, strict=True)
    }
    found = pictures("digits", None, {"train": 200, "val": 20, "test": 20})
    assert all(
        labels[bytes(image.numpy())] == label
        for image, label in zip(found["train"], found["train.labels"], strict=True)
    )


def test_pictures_know_their_shape() -> None:
    parts = {part: torch.randint(256, (16, 1, 8, 8), dtype=torch.uint8) for part in ("train", "val", "test")}
    labels = {f"{part}.labels": torch.arange(16) % 4 for part in parts}
    data = telling_apart(parts | labels, flip=False)
    assert data.shape == {"channels": 1, "classes": 4, "pixels": 8}


def searched() -> Searched:
    """The best by the seeds that choose is not the best by those that do not."""
    rungs = (Rung(2, (0,)), Rung(1, (1, 2)))

    def trial(name: str, chooses: float, tests: tuple[float, float] | None) -> Trial:
        metrics = {0: chooses} | ({1: chooses, 2: chooses} if tests else {})
        return Trial(name, mp.Plan({}), metrics, dict(zip((1, 2), tests, strict=True)) if tests else {})

    trials = [
        trial("criterion", 50.0, (60.0, 62.0)),
        trial("taylor", 51.0, (59.0, 61.0)),
        trial("drawn 1", 55.0, (62.0, 64.0)),
        trial("drawn 2", 40.0, None),
    ]
    return Searched(0.3, {each.name: each for each in trials}, ("criterion", "taylor"), rungs, True)


def row(**fields: Any) -> dict[str, Any]:
    about = {"member": "plain-cifar10-0", "family": "plain", "data": "cifar10", "share": 0.3, "points": 1.0}
    return (
        about
        | {"axes": 4, "dense": 70.0, "minutes": 3.0, "tunings": 9}
        | standing(searched())
        | {"peak": [61.0, 62.0]}
        | fields
    )


def test_head_room_by_hand() -> None:
    """Chosen by the seeds before the last rung, compared by those of the last."""
    told = row()
    assert (told["best"], told["rival"]) == ("drawn 1", "taylor")
    assert gain(told) == (pytest.approx(3.0), pytest.approx((2 / 2 + 2 / 2) ** 0.5))
    section = head_room([told, row(share=0.5)], 3)
    assert "| plain | +3.00 ± 1.41 | +3.00 ± 1.41 | 1 |" in section
    assert (
        "| plain-cifar10-0 | 4 | 0.3 | 70.00 | 60.00 (taylor) | 63.00 (drawn 1) | +3.00 ± 1.41 | +2.00 | +1.50 ± 1.12 |"
        in section
    )
    assert gain(row(points=10.0))[0] == pytest.approx(30.0)


def runs(family: str, gains: dict[str, float], ours: str = "", seeds: tuple[float, ...] = (-0.1, 0.1)) -> list[Any]:
    """Two networks at two budgets; an arm is so much above the criterion, and its seeds differ by so much."""
    about = {"family": family, "data": "cifar10", "points": 1.0, "seconds": None}
    return [
        about | {"member": member, "arm": arm, "share": share, "seed": seed, "metric": 60 + 10 * share + by + other}
        for member in (f"{family} a", f"{family} b")
        for arm, by in gains.items()
        for share in (0.3, 0.1)
        for seed, other in enumerate(seeds)
    ]


def test_the_table_of_families_left_out_by_hand() -> None:
    """Areas are means over budgets and networks; the error of one run is the deviation over seeds, pooled."""
    gains = {"criterion": 0.0, "uniform": -1.0, "magnitude": 0.25, "taylor": 0.5, "dhp": 3.0}
    rows = [
        *runs("plain", gains | {"without plain": 1.0, "criterion, fused": 0.2, "taylor, held": 0.1}),
        *runs("basic", gains | {"without basic": -0.5}),
        *runs("dense", gains | {"without dense": 0.01}),
        *runs("mixer", gains | {"all families": 0.01}),
    ]
    told = page.table(rows, [row()])
    error = (2 * 0.02 / 8) ** 0.5  # of a mean of eight runs, each with a variance of 0.02, twice
    assert f"| plain | cifar10 | 62.00 | 63.00 | +1.00 ± {error:.2f} | taylor | +0.50 ± {error:.2f} | +3.00 |" in told
    assert f"| basic | cifar10 | 62.00 | 61.50 | -0.50 ± {error:.2f} | taylor | -1.00 ± {error:.2f} |  |" in told
    assert "Above its criterion by more than the error on 1 of 3, below on 1." in told
    assert "| mean | | | | +0.17 | | -0.33 | |" in told
    assert "| taylor | 63.50 ± 0.14 | 61.50 ± 0.14 | 62.50 |" in told
    assert "all families" not in told
    assert "mixer" not in told
    assert f"fused into what stays: +0.20 ± {error:.2f}" in told
    assert f"Taylor's gates where channels are read, to gates on all that holds them: +0.40 ± {error:.2f}." in told
    apart = page.apart(rows)
    assert "| mixer | cifar10 | 62.00 | 62.01 |" in apart
    assert "plain" not in apart
    assert page.table([]) == page.apart(rows[:10]) == ""


def test_rows_of_before_stand_by_themselves() -> None:
    """Arms whose gates are on all that holds a channel are a table of their own; what has no gates is in both."""
    now = runs("plain", {"criterion": 1.0, "without plain": 1.5, "taylor": 0.5, "dhp": 3.0})
    was = runs("plain", {"criterion, held": 0.0, "without plain, held": 1.0, "taylor, held": 0.25})
    assert page.latter([*now, *was]) == [*now, *(row for row in was if row["arm"] == "taylor, held")]
    arms = [row["arm"] for row in page.former([*now, *was])]
    assert list(dict.fromkeys(arms)) == ["dhp", "criterion", "without plain", "taylor"]
    told = page.table(page.former([*now, *was]))
    assert "| plain | cifar10 | 62.00 | 63.00 | +1.00" in told
    assert "| taylor | +0.75 ±" in told
    assert "held" not in told


def test_what_it_can_expect_by_hand() -> None:
    """A gain of a point at any distance: it is sure of it, and right, where it did not lose."""
    rows = [
        each | {"distance": 0.5 if each["share"] == 0.3 else 1.0} if "without" in each["arm"] else each
        for family in ("plain", "basic", "dense", "mixer")
        for each in runs(family, {"criterion": 0.0, f"without {family}": 1.0})
    ]
    assert [(each.distance, round(each.gain, 6)) for each in page.seen(rows)] == [(0.5, 1.0), (1.0, 1.0)] * 8
    assert "+1.00 +0.00 d points, ± 0.00" in (told := page.expecting(rows))
    assert "on 16 of 16 networks and budgets here, on 16 of which it is right" in told
    assert page.expecting(rows[:8]) == ""
    older = [{name: row[name] for name in row if name != "distance"} for row in rows]
    assert page.seen(older) == []


def test_one_thing_changed_is_compared_on_the_same_networks() -> None:
    rows = runs("plain", {"criterion": 0.0, "without plain": 1.0}) + [
        each for each in runs("plain", {"without plain, 2 families": 0.25}) if each["member"] == "plain a"
    ]
    rows += runs("basic", {"criterion": 0.0, "without basic": 9.0})
    told = page.ablations(rows)
    error = (2 * 0.02 / 4) ** 0.5
    assert f"| 2 families | +0.25 ± {error:.2f} | +1.00 ± {error:.2f} | 1 | 4 |" in told
    assert page.ablations(runs("plain", {"criterion": 0.0, "without plain": 1.0})) == ""


def test_how_it_grows_with_families(tmp_path: Path) -> None:
    """On the networks and budgets that all of them have."""
    arms = {"criterion": 0.0, "without plain": 1.0, "without plain, 1 families": -0.5, "without plain, 4 families": 0.5}
    rows = runs("plain", arms) + runs("basic", {"criterion": 0.0, "without basic": 9.0})
    rows += [row | {"share": 0.05, "metric": row["metric"] + 7} for row in runs("plain", {"without plain": 1.0})]
    rows += [row | {"share": 0.05} for row in runs("plain", {"criterion": 0.0, "without plain, 1 families": -0.5})]
    values = {count: value for count, (value, _) in picture.grown(rows, 8).items()}
    assert values == {1: pytest.approx(-0.5), 4: pytest.approx(0.5), 8: pytest.approx(1.0)}
    assert picture.draw(rows, tmp_path / "families.svg", 8)
    assert "<svg" in (tmp_path / "families.svg").read_text()
    assert picture.grown(runs("plain", {"criterion": 0.0, "without plain": 1.0}), 8) == {}
    assert not picture.draw(runs("plain", {"criterion": 0.0}), tmp_path / "none.svg", 8)


def test_what_a_forward_pass_saves_by_hand() -> None:
    passes = [each | {"seconds": 6.0} for each in runs("plain", {"without plain": 1.0})]
    room, meta, lessons = [{"minutes": 5.1, "tunings": 60}], [{"minutes": 10.0}], [{"minutes": 20.0}, {"minutes": 70.0}]
    told = page.savings([*passes, *runs("plain", {"taylor": 0.0})], meta, room, lessons)
    assert "takes 6.0 s of a core" in told
    assert "5.1 minutes (60 tunings)" in told
    assert "searches of 20 networks" in told
    assert page.savings(passes, [], room, lessons) == ""


def test_a_search_is_kept_as_a_row_that_teaches_the_same() -> None:
    """Channels are bits; what failed is no number in JSON."""
    found = searched()
    plans = {
        "criterion": mp.Plan({"a": [0, 5], "b": range(70)}),
        "taylor": mp.Plan({"a": [69]}),
        "drawn 1": mp.Plan({"b": [0]}),
        "drawn 2": mp.Plan({}),
    }
    trials = {name: replace(trial, plan=plans[name], tests={}) for name, trial in found.trials.items()}
    trials["drawn 2"] = replace(trials["drawn 2"], metrics={0: math.nan})
    found = replace(found, trials=trials)
    row = json.loads(json.dumps(row_of(found), allow_nan=False))
    again = read_back(row)
    assert {name: trial.plan for name, trial in again.trials.items()} == plans
    for sharpness in (0.0, 1.0, math.inf):
        assert again.lessons(sharpness) == found.lessons(sharpness)
    assert math.isnan(again.trials["drawn 2"].metrics[0])
    assert (again.rungs, again.rivals) == (found.rungs, found.rivals)
