"""What commands know of a network without data: as given, else as it was pruned, else what is usual."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.report.conftest import small_report
from torch import Tensor, nn

from metaprune.cli.errors import UsageError
from metaprune.cli.inputs import taken_by
from metaprune.cli.resolve import example, known_of, remembering, settings_of, timed_in
from metaprune.cli.show import scores_line
from metaprune.report.report import to_json
from metaprune.train.scores import Scores


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    """A folder with the report of a network for 7 classes, of 3x20x24."""
    report = remembering(small_report(), (3, 20, 24), classes="7", scale="2")
    (tmp_path / "report.json").write_text(to_json(report))
    return tmp_path


@pytest.mark.parametrize(
    ("model", "sizes", "channels"),
    [("resnet8", "3x32x32", 3), ("edsr", "3x128x128", 3), ("dncnn", "1x128x128", 1), ("own.py:net", "3x32x32", 3)],
)
def test_what_is_usual(model: str, sizes: str, channels: int) -> None:
    known = known_of(model, None, None, None, None)
    assert (known.sizes, known.given) == (sizes, False)
    assert known.builds == {"channels": channels, "classes": None, "scale": None, "inputs": None, "outputs": None}


def test_as_it_was_pruned_and_the_line_is_stronger(pruned: Path) -> None:
    known = known_of("resnet8", pruned, None, None, None)
    assert (known.sizes, known.given) == ("3x20x24", True)
    assert (known.builds["classes"], known.builds["scale"], known.builds["channels"]) == (7, 2, 3)
    given = known_of("resnet8", pruned, "1x8x8", 5, 4)
    assert (given.sizes, given.given) == ("1x8x8", True)
    assert (given.builds["classes"], given.builds["scale"], given.builds["channels"]) == (5, 4, 1)
    assert known_of("resnet8", None, "ids=int64:4x6", None, None).builds["channels"] is None
    assert known_of("resnet8", pruned.parent, None, None, None).sizes == "3x32x32"  # it holds no report
    with pytest.raises(UsageError, match="--classes: expected 1 or more, got 0"):
        known_of("resnet8", pruned, None, 0, None)


def test_examples_are_of_the_sizes_and_as_many_as_the_network_takes(pruned: Path) -> None:
    class Two(nn.Module):
        def forward(self, one: Tensor, other: Tensor, scale: float = 1.0, *, flag: bool = False) -> Tensor:
            return one + other

    known = known_of("own.py:net", pruned, None, None, None)
    args, kwargs = known.example(Two(), 5)
    assert ([tuple(x.shape) for x in args], kwargs) == ([(5, 3, 20, 24)] * 2, {})
    assert not torch.equal(*args)
    assert (taken_by(Two()), taken_by(nn.Linear(2, 2)), taken_by(nn.Identity())) == (2, 1, 1)
    assert [tuple(x.shape) for x in example("1x4", 3, 2)] == [(3, 1, 4)] * 2
    with pytest.raises(UsageError, match="expected sizes of one example, like 3x32x32, got 'ids=int64:4x6'"):
        example("ids=int64:4x6", 2)


@pytest.mark.parametrize("key", ["classes", "scale", "sigma", "inputs", "outputs", "ways", "shots"])
def test_a_report_with_odd_settings_is_refused(key: str, pruned: Path) -> None:
    report = remembering(small_report(), (3, 8, 8), **{key: "many"})
    (pruned / "report.json").write_text(to_json(report))
    with pytest.raises(UsageError, match=f"has a report whose {key} is 'many'"):
        settings_of(pruned)


def test_times_of_a_report_are_known_where_both_were_measured(pruned: Path) -> None:
    report = small_report()
    assert timed_in(pruned) == {"dense": report.dense.latency, "pruned": report.pruned.latency}
    (pruned / "report.json").write_text(to_json(replace(report, pruned=replace(report.pruned, latency=None))))
    assert timed_in(pruned) == timed_in(None) == timed_in(pruned.parent) == {}


def test_a_line_of_scores() -> None:
    assert scores_line("PSNR (dB)", "test", Scores(31.774, {"SSIM": 0.89021})) == (
        "PSNR (dB) on test: 31.77, SSIM 0.8902"
    )
