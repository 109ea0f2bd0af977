"""The experiment on images: run by run, to the page, on pictures and networks as small as they may be."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import metaprune as mp
from metaprune.cost.latency import latencies

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def restoration() -> Iterator:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import restoration

        tiny = {name: restoration.quick(setting) for name, setting in restoration.SETTINGS.items()}
        for name, setting in tiny.items():
            brief = {kind: replace(getattr(setting, kind), precision="32-true") for kind in ("dense", "pruned")}
            sizes = {**setting.sizes, "blocks": 1}
            example = (*setting.example[:2], 8, 8)
            tiny[name] = replace(setting, sizes=sizes, patch=16, patches=32, example=example, **brief)
        patch.setattr(restoration, "SETTINGS", tiny)
        patch.setattr(restoration, "ROUNDS", 3)
        patch.setattr("metaprune.session.measuring.latencies", partial(latencies, seconds=0.001))
        yield restoration


@pytest.fixture(scope="module")
def program(restoration, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Calls the program with pictures of its own, and says where the page is."""
    where = tmp_path_factory.mktemp("restoration")
    generator = np.random.default_rng(0)
    for part, count in (("data/train", 3), ("data/val", 1), ("set5", 2), ("set12", 2)):
        (where / part).mkdir(parents=True)
        for i in range(count):
            coarse = generator.integers(0, 256, (8, 9, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((70, 50)).save(where / part / f"{i}.png")
    Image.fromarray(255 - coarse).resize((70, 50)).save(where / "data" / "train" / "12003.png")

    def call(*options: str, out: str = "runs") -> Path:
        folders = ["--data", where / "data", "--set5", where / "set5", "--set12", where / "set12"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(restoration, "PAGE", where / "page.md")
            patch.setattr(sys, "argv", ["restoration.py", *map(str, folders), "--out", str(where / out), *options])
            restoration.main()
        return where / "page.md"

    return call


@pytest.fixture(scope="module")
def written(program) -> Path:
    return program("--shares", "0.5")


def rows(page: Path, runs: str = "runs") -> dict[str, dict]:
    """The row of each finished run, by network and run."""
    found = (page.parent / runs).glob("*/*/row.json")
    return {f"{path.parts[-3]}/{path.parts[-2]}": json.loads(path.read_text()) for path in found}


def test_every_arm_of_both_networks_is_there(written):
    runs = ["dhp-0.5-0", "magnitude-0.5-0", "uniform-0.5-0", "no-cut-1-0"]
    assert set(rows(written)) == {f"{network}/{run}" for network in ("edsr", "dncnn") for run in runs}


def test_the_arms_fit_the_budget_and_start_from_one_network(written):
    for name, row in rows(written).items():
        assert row["pruned"]["macs"] <= row["share"] * row["dense"]["macs"]
        assert row["dense"] == rows(written)[f"{name.split('/')[0]}/no-cut-1-0"]["dense"]
        assert row["pruned"]["macs"] < row["dense"]["macs"] or row["arm"] == "no-cut"


def test_what_a_test_set_was_cut_out_of_is_not_trained_on(written, restoration):
    data = written.parent / "data"
    task = restoration.SETTINGS["dncnn"].task(data, written.parent / "set12")
    starfish = torch.from_numpy(np.array(Image.open(data / "train" / "12003.png").convert("L")))
    assert len(task.train.source) == 3
    assert all(not torch.equal(true[0], starfish) for _, true in map(task.train.source.__getitem__, range(3)))


def test_every_arm_gets_the_same_steps(written):
    for network in ("edsr", "dncnn"):
        reports = [json.loads(path.read_text()) for path in (written.parent / "runs" / network).glob("*/report.json")]
        assert len(reports) == 4
        assert {report["history"][-1]["epoch"] for report in reports} == {3}


def test_the_page_says_what_the_rows_say(written):
    text = written.read_text()
    for row in rows(written).values():
        assert f"| {row['share']:g} | {row['arm']} | {row['pruned']['psnr']:.2f} | " in text
    assert text.count("| bicubic input |") == text.count("| noisy (σ = 50) input |") == 1
    assert "×16" in text, "times by the multiple of the widths"


def test_started_again_it_repeats_nothing(written, program, restoration, monkeypatch):
    before = written.read_text()
    monkeypatch.setattr(restoration, "row_of", pytest.fail)
    monkeypatch.setattr(restoration, "times_of_multiples", None)
    monkeypatch.setattr("experiment.fit", None)
    assert program("--shares", "0.5").read_text() == before


def test_no_run_is_begun_after_the_minutes(written, program):
    program("--networks", "dncnn", "--shares", "0.5", "--minutes", "0", out="late")
    assert (written.parent / "late" / "dncnn" / "dense" / "model.safetensors").exists()
    assert not rows(written, "late")


def test_another_setting_is_refused_the_folder(written, program):
    with pytest.raises(SystemExit, match="expected multiple_of 4, found 8; name another --out"):
        program("--multiple-of", "4")


def test_a_budget_that_cannot_be_met_is_refused_before_anything_trains(written, program):
    with pytest.raises(mp.MetapruneError, match="cannot be met"):
        program("--shares", "0.5", "0.001", out="tight")
    assert not list((written.parent / "tight").glob("*/dense"))


def test_folders_that_are_missing_are_named(written, program, capsys):
    with pytest.raises(SystemExit):
        program("--set12", "nowhere")
    assert "got nowhere" in capsys.readouterr().err


def test_several_seeds_have_a_spread(written, restoration):
    row = rows(written)["edsr/dhp-0.5-0"]
    other = row | {"seed": 1, "pruned": row["pruned"] | {"psnr": row["pruned"]["psnr"] + 2}}
    lines = restoration.section(restoration.SETTINGS["edsr"], [row, other], None)
    assert any(f"| dhp | {row['pruned']['psnr'] + 1:.2f} ± 1.41 | " in line for line in lines)


def test_times_are_the_middle_of_turns_and_their_spread(restoration, monkeypatch):
    """By a clock that the networks set: the first two turns do not count."""
    now, order = [0.0], []
    takes = {"small": [9.0, 9.0, 0.001, 0.003, 0.002], "large": [9.0, 9.0, 0.01, 0.05, 0.02]}
    left = {name: iter(each) for name, each in takes.items()}

    class Taking(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            assert not self.training
            order.append(self.name)
            now[0] += next(left[self.name])
            return x

    monkeypatch.setattr(restoration.time, "process_time", lambda: now[0])
    times = restoration.in_turns({name: Taking(name) for name in takes}, torch.rand(1, 1, 2, 2), "32-true")
    assert order == ["small", "large"] * 5
    assert times == {"small": pytest.approx((2.0, 1.0)), "large": pytest.approx((20.0, 20.0))}
