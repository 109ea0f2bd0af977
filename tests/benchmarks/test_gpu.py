"""What a GPU would be asked: every part runs on the CPU at tiny sizes, within its time; without a GPU it says so."""

import runpy
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from metaprune.cost.latency import latencies
from metaprune.graph.errors import MetapruneError

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PROGRAM.parent))
        import gpu

        patch.setattr("metaprune.session.measuring.latencies", partial(latencies, seconds=0.001))
        yield gpu


@pytest.mark.parametrize(("part", "said"), [("DHP", "resnet8 DHP"), ("2:4", "2:4 format")])
def test_a_part_runs_at_tiny_sizes(gpu: Any, part: str, said: str) -> None:
    rows = dict(gpu.PARTS[part][1](gpu.Place(True, None)))
    assert said in rows
    assert not any("FAILED" in found for found in rows.values())


def test_the_parts_fit_into_the_time(gpu: Any) -> None:
    assert sum(limit for limit, _ in gpu.PARTS.values()) <= gpu.TOTAL <= 480


def test_a_part_that_takes_too_long_is_stopped(gpu: Any) -> None:
    [(part, said)] = gpu.in_its_own_process("tests", 0.0, ["--cpu"])
    assert (part, said) == ("tests", "FAILED: stopped after 0 s")


def test_a_part_that_fails_says_why(gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it is asked, here by a program that imports nothing, and what it found before."""
    asking = tmp_path / "asking.py"
    asking.write_text("import json, sys; print(json.dumps(['asked', ' '.join(sys.argv[1:])])); sys.exit('one\\ntwo')")
    monkeypatch.setattr(gpu, "__file__", str(asking))
    (before, asked), said = gpu.in_its_own_process("DHP", 60.0, ["--cpu", "--data", "nowhere"])
    assert before == "asked"
    assert said == ("DHP", "FAILED: two")
    monkeypatch.setattr(sys, "argv", ["gpu.py", *asked.split()])
    with pytest.raises(MetapruneError, match="nowhere"):
        gpu.main()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(PROGRAM)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(PROGRAM), run_name="__main__")
    assert ended.value.code == 1
    said, complained = capsys.readouterr()
    assert "no CUDA device" in complained
    assert not said


@pytest.mark.slow
def test_all_parts_in_a_row() -> None:
    done = subprocess.run([sys.executable, PROGRAM, "--cpu"], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("| latency of") == 6
