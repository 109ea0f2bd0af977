"""Super-resolution and denoising from a folder of images, as a user would type it."""

import base64
import io
import json
import re
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from metaprune.cli import app
from metaprune.cost.latency import latencies
from metaprune.models import DENOISING, SUPER_RESOLUTION

NETS = """
from torch import nn

def enlarging(scale=4, channels=3):
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, channels * scale**2, 3, padding=1), nn.PixelShuffle(scale),
    )

def cleaning(channels=1):
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, channels, 3, padding=1)
    )
"""
TASKS = {"enlarging": "--task super-resolution --scale 2", "cleaning": "--task denoising --sigma 50"}
RUN = (
    "--macs 0.5 --dense-epochs 1 --epochs 2 --batch-size 4 --patch 24 --patches-per-epoch 16 --multiple-of 1 "
    "--precision 32-true --device cpu --threads 1"
)


@pytest.fixture(scope="module", autouse=True)
def little_time_to_measure() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        quick = partial(latencies, seconds=0.001)
        patch.setattr("metaprune.session.measuring.latencies", quick)
        patch.setattr("metaprune.cost.latency.latencies", quick)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photographs, so to speak, and a file of networks."""
    where = tmp_path_factory.mktemp("restoration")
    generator = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 1), ("test", 2)):
        (where / "photos" / part).mkdir(parents=True)
        for i in range(count):
            coarse = generator.integers(0, 256, (8, 9, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((70, 50)).save(where / "photos" / part / f"{i}.png")
    (where / "nets.py").write_text(NETS)
    return where


def metaprune(line: str, code: int = 0) -> str:
    """What a command prints."""
    done = CliRunner().invoke(app, shlex.split(line))
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module", params=TASKS)
def pruned(folder: Path, request: pytest.FixtureRequest) -> tuple[Path, str, str]:
    """A pruned network: its folder, its name, and its task as options."""
    name, task = request.param, TASKS[request.param]
    out, model = folder / name, f"{folder}/nets.py:{name}"
    sizes = "3x16x16" if name == "enlarging" else "1x16x16"
    metaprune(f"prune {model} --data {folder}/photos {task} {RUN} --input {sizes} --out {out}")
    return out, model, task


def test_the_report_has_all_metrics_and_pictures(pruned: tuple[Path, str, str]) -> None:
    out, _, task = pruned
    report = json.loads((out / "report.json").read_text())
    assert report["metric_name"] == "PSNR (dB)"
    assert report["split"] == "test"
    assert report["example"] in ("3×16×16", "1×16×16")
    for figures in (report["dense"], report["pruned"], report["floor"]):
        assert 0 < figures["metric"] < 60
        assert -1 < figures["further"]["SSIM"] <= 1
    first = "bicubic" if "scale" in task else "noisy (σ = 50)"
    assert report["floor"]["name"] == first
    assert len(report["samples"]) == 2
    for sample in report["samples"]:
        assert [shot["name"] for shot in sample["shots"]] == [first, "dense", "pruned", "true"]
        sizes = {Image.open(io.BytesIO(base64.b64decode(shot["png"]))).size for shot in sample["shots"]}
        assert sizes == {(sample["width"], sample["height"])} == {(70, 50)}

    page = (out / "report.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == 8
    assert "SSIM" in page
    assert f"of one example, here {report['example']}" in page
    assert f"inputs of {report['example']}" in page
    card = (out / "README.md").read_text()
    assert f"MACs of one example ({report['example']})" in card
    assert "| SSIM, test split |" in card
    assert "Without a network" in card


def test_evaluate_says_what_the_report_says(pruned: tuple[Path, str, str], folder: Path) -> None:
    """With the task that the folder remembers, or as given for the dense network."""
    out, model, task = pruned
    report = json.loads((out / "report.json").read_text())
    options = f"--data {folder}/photos --precision 32-true --device cpu --threads 1"
    dense = f"--weights {out}/dense/model.safetensors {task}"
    for which, where in (("pruned", f"--pruned {out}"), ("dense", dense)):
        shown, floor = metaprune(f"evaluate {model} {options} {where}").splitlines()
        figures = report[which]
        assert shown.endswith(f": {figures['metric']:.2f}, SSIM {figures['further']['SSIM']:.4f}")
        assert floor.endswith(f": {report['floor']['metric']:.2f}, SSIM {report['floor']['further']['SSIM']:.4f}")


def test_the_other_commands_know_the_network(pruned: tuple[Path, str, str], tmp_path: Path) -> None:
    out, model, _ = pruned
    assert "pruned is" in metaprune(f"bench {model} --pruned {out} --batch 1 --threads 1")
    assert "equal to the module" in metaprune(f"export {model} --pruned {out} --to {tmp_path / 'm.pt2'}")
    assert "SSIM" in metaprune(f"report {out}")


def test_a_run_goes_on_only_with_the_same_task(pruned: tuple[Path, str, str], folder: Path) -> None:
    out, model, task = pruned
    harder = task.replace("2", "4").replace("50", "25")
    line = metaprune(f"prune {model} --data {folder}/photos {harder} {RUN} --out {out}", code=2)
    assert "of another training" in line


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("prune NETS:enlarging --task super-resolution DATA", "--scale: needed for --task super-resolution"),
        ("prune NETS:cleaning --task denoising DATA", "--sigma: needed for --task denoising"),
        ("prune NETS:cleaning --task denoising --sigma 5 --scale 2 DATA", "--scale: --task denoising has none"),
        ("prune NETS:cleaning --sigma 5 DATA", "--sigma: --task classification has none"),
        ("prune srresnet DATA", "--scale: needed for --task super-resolution"),
        ("prune edsr --task denoising --sigma 5 DATA", "is for super-resolution, not for denoising"),
        ("prune resnet8 --task denoising --sigma 5 DATA", "is for classification, not for denoising"),
        ("prune dncnn --sigma 50 --patch 999 DATA", "expected 999 pixels or more"),
        ("prune NETS:enlarging --task super-resolution --scale 4 DATA --patch 30", "that the scale 4 divides"),
        ("prune resnet8 --data digits --patch 9 --macs 0.5 --out OUT", "patch belong to restoration"),
        ("prune resnet8 --data digits --input 1x8x8 --macs 0.5 --out OUT", "--input: the data have the sizes"),
        ("prune NETS:enlarging --task super-resolution --scale 2 --patch 24 --input 1x16x16 DATA", "channel"),
        ("evaluate dncnn --data FOLDER/photos", "--sigma: needed for --task denoising"),
        ("inspect edsr --scale 7", "7"),
        ("inspect edsr --data FOLDER/photos", "--data: edsr takes images of any size; give --input"),
        ("prune dncnn --sigma -1 DATA", "sigma above 0"),
    ],
)
def test_bad_commands(line: str, said: str, folder: Path, tmp_path: Path) -> None:
    line = line.replace("DATA", "--data FOLDER/photos --macs 0.5 --out OUT").replace("OUT", f"{tmp_path}/out")
    shown = metaprune(line.replace("FOLDER", str(folder)).replace("NETS", f"{folder}/nets.py"), code=2)
    assert said in " ".join(shown.split())
    assert shown.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "channels", "scale"),
    [*((name, 3, "--scale 2") for name in SUPER_RESOLUTION), *((name, 1, "") for name in DENOISING)],
)
def test_built_in_networks_are_inspected(name: str, channels: int, scale: str) -> None:
    shown = metaprune(f"inspect {name} {scale} --input {channels}x16x16")
    assert re.search(r"[1-9]\d* of \d+ axes are free", shown)


def test_a_metanetwork_learns_from_networks_that_restore(folder: Path, tmp_path: Path) -> None:
    """The zoo remembers what its networks are for, and how their images were cut."""
    net, data = f"{folder}/nets.py:cleaning", f"--data {folder}/photos"
    common = f"{data} --batch-size 4 --device cpu --threads 1 --out"
    asked = f"{TASKS['cleaning']} --patch 24 --patches-per-epoch 8 --count 2 --epochs 1 --cuts 1 --precision 32-true"
    assert "2 networks in" in metaprune(f"zoo {net} {asked} {common} {tmp_path}/zoo")
    index = json.loads((tmp_path / "zoo" / "zoo.json").read_text())
    assert index["facts"]["task"] == {"task": "denoising", "sigma": "50.0"}  # as in reports
    assert index["facts"]["cut"] == {"patch": 24, "patches": 8}
    assert index["recipe"]["optimizer"] == "adamw"
    learn = f"--objective direct --epochs 1 --batches 1 --hidden 4 --layers 1 {common} {tmp_path}/metanetwork"
    shown = metaprune(f"meta-train {tmp_path}/zoo {learn}")
    assert "area of PSNR (dB) on networks held out" in shown
    assert f"prune {net} {data} --task denoising --sigma 50.0 --method graph_metanetwork" in shown


def test_a_zoo_is_of_one_task_without_partners(folder: Path, tmp_path: Path) -> None:
    for line, said in (
        (
            "zoo resnet8 dncnn --sigma 25",
            "'dncnn' is for denoising, 'resnet8' for classification; a zoo is for one task",
        ),
        ("zoo resnet8 --task denoising --sigma 25", "network 'resnet8' is for classification, not for denoising"),
        ("zoo edsr", "--scale: needed for --task super-resolution"),
        ("zoo unet256", "'unet256' is for translation; a zoo is for classification, super-resolution"),
        (f"zoo {folder}/nets.py:cleaning --sigma 25", "--sigma: --task classification has none"),
    ):
        assert said in metaprune(f"{line} --data {folder}/photos --out {tmp_path}/zoo", code=2), line
    assert not (tmp_path / "zoo").exists()
