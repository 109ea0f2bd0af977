"""Networks that were trained elsewhere: the right normalisation gives their accuracy, and the wrong one a warning."""

import io
import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from metaprune.cli import app
from metaprune.cli.purpose.look import Look

CLASSES = 5
OWN = """
from torch import nn

def tiny(classes):
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
"""


def pictures(count: int, seed: int) -> tuple[list[bytes], list[int]]:
    """Classes that differ in brightness."""
    drawn = np.random.default_rng(seed)
    labels = [i % CLASSES for i in range(count)]
    found = []
    for label in labels:
        level = 30 + 45 * label + drawn.normal(0, 14)
        pixels = (level + drawn.normal(0, 20, (8, 8, 3))).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found, labels


def decoded(images: list[bytes]) -> Tensor:
    return torch.stack([torch.from_numpy(np.array(Image.open(io.BytesIO(image)))).permute(2, 0, 1) for image in images])


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A folder with data, a network and its weights, trained in a loop of its own with /255*2-1; and its accuracy."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "data").mkdir()
    parts = {"train": pictures(400, 0), "test": pictures(300, 1)}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for split, (images, labels) in parts.items():
        rows = pa.array([{"bytes": image, "path": None} for image in images], kind)
        pq.write_table(pa.table({"image": rows, "label": labels}), folder / "data" / f"{split}.parquet")
    (folder / "own.py").write_text(OWN)
    names: dict[str, object] = {}
    exec(compile(OWN, "own", "exec"), names)
    torch.manual_seed(0)
    net: nn.Module = names["tiny"](CLASSES)  # type: ignore[operator]
    images, labels = decoded(parts["train"][0]) / 255 * 2 - 1, torch.tensor(parts["train"][1])
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        right = net(decoded(parts["test"][0]) / 255 * 2 - 1).argmax(1) == torch.tensor(parts["test"][1])
    save_file(net.state_dict(), folder / "weights.safetensors")
    return folder, 100 * right.float().mean().item()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def evaluated(folder: Path, *options: str) -> Result:
    words = ["evaluate", f"{folder}/own.py:tiny", "--data", f"{folder}/data", "--precision", "32-true"]
    words += ["--device", "cpu", "--threads", "1", "--weights", f"{folder}/weights.safetensors"]
    result = CliRunner().invoke(app, [*words, *options])
    assert result.exit_code == 0, result.output
    return result


def test_the_normalisation_it_was_trained_with_gives_its_accuracy(elsewhere: tuple[Path, float]) -> None:
    folder, accuracy = elsewhere
    assert accuracy > 70
    result = evaluated(folder, "--mean", "0.5", "--std", "0.5", "--expect", f"{accuracy:.1f}")
    assert f"accuracy (%) on test: {accuracy:.2f}" in result.stdout
    assert "minus 0.5, divided by 0.5 (as given)" in result.stdout
    assert "warning" not in result.stderr


def test_another_normalisation_brings_a_warning_that_names_the_right_one(elsewhere: tuple[Path, float]) -> None:
    folder, accuracy = elsewhere
    for options in ([], ["--mean", "imagenet"]):
        result = evaluated(folder, *options)
        found = float(result.stdout.split("on test: ")[1].split()[0])
        assert 25 < found < accuracy - 10
        warnings = [line for line in result.stderr.splitlines() if "warning" in line]
        if options:  # it was chosen, and the score is not near guessing
            assert warnings == []
        else:
            assert len(warnings) == 1
            assert "with --mean 0.5 --std 0.5 it has" in warnings[0]


def test_less_than_expected_brings_a_warning(elsewhere: tuple[Path, float]) -> None:
    folder, accuracy = elsewhere
    result = evaluated(folder, "--mean", "0.5", "--std", "0.5", "--expect", str(accuracy / 0.9))
    assert f"it has {accuracy:.2f} where {accuracy / 0.9:g} was expected" in result.stderr
    assert "likely causes: other --mean and --std than it was trained with (here 0.5,0.5,0.5" in result.stderr


def test_no_weights_bring_a_warning() -> None:
    words = ["evaluate", "resnet8", "--data", "digits", "--device", "cpu", "--threads", "1", "--precision", "32-true"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0
    assert "no weights were given" in result.stderr


def test_what_prune_did_to_images_is_remembered(elsewhere: tuple[Path, float], tmp_path: Path) -> None:
    """In run.json and the report; and evaluate does the same. Half of the options stand in a file."""
    folder, _ = elsewhere
    out = tmp_path / "out"
    file = tmp_path / "run.toml"
    file.write_text(
        f"model = '{folder}/own.py:tiny'\ndata = '{folder}/data'\nweights = '{folder}/weights.safetensors'\n"
        "params = 0.8\nmethod = 'magnitude'\nmultiple-of = 1\nepochs = 1\naugment = false\nset = []\nmean = 0.5\n"
        "threads = 1\nprecision = '32-true'\nweight-decay = 0.001\nschedule = 'steps'\nteacher = 'dense'\n"
    )
    words = f"prune --config {file} --std 0.5 --val-share 0.2 --out {out} --device cpu --milestones 0.5"
    words += " --warmup 0.25 --teacher-share 0.3 --workers 0"
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, result.output
    assert "data: " in result.stdout
    assert "320 train, 80 val, 300 test" in result.stdout
    run = json.loads((out / "run.json").read_text())
    assert run["preprocessing"]["data.mean"] == "0.5,0.5,0.5"
    assert run["preprocessing"]["data.val"] == "0.2 of the training split"
    assert run["preprocessing"]["data.augment"] == "none"
    assert run["preprocessing"]["teacher.share"] == "0.3"
    assert "milestones=(0.5,)" in run["recipe"]
    report = json.loads((out / "report.json").read_text())
    assert report["settings"]["data.std"] == "0.5,0.5,0.5"
    assert report["settings"]["recipe.weight_decay"] == "0.001"
    assert "data.mean: 0.5,0.5,0.5" in (out / "README.md").read_text().replace("\\", "")
    assert "data.mean" in (out / "report.html").read_text()
    words = f"evaluate {folder}/own.py:tiny --data {folder}/data --pruned {out} --device cpu --threads 1"
    result = CliRunner().invoke(app, [*words.split(), "--precision", "32-true"])
    assert f"on test: {report['pruned']['metric']:.2f}" in result.stdout
    assert "minus 0.5, divided by 0.5" in result.stdout


def test_the_part_that_chose_is_the_same_again() -> None:
    """Where there is no test split, evaluate measures on what prune held out."""
    settings = {"data.val": "0.25 of the training split", "data.mean": "0.5", "data.std": "0.5", "data.size": "32"}
    look = Look().filled(settings, same=True)
    assert (look.val_share, look.size, look.mean, look.std) == (0.25, 32, "0.5", "0.5")
    assert Look().filled(settings, same=False).val_share is None  # other data may have a split of their own
    look = Look(val_share=0.1, mean="imagenet").filled(settings, same=True)
    assert (look.val_share, look.mean, look.std) == (0.1, "imagenet", None)
    look = Look().filled({"data.val": "a split of its own", "data.size": "as they are"}, same=True)
    assert (look.val_share, look.size, look.mean) == (None, None, None)
