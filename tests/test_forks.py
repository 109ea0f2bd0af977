"""Processes that are forked do as those that Python starts."""

import os
import signal
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from tests.forks import Forks, Process

PROGRAM = """
import atexit, os, sys, time, warnings
import torch

def main(what):
    print(__name__, os.getcwd(), os.environ["GREETING"], torch.get_num_threads())
    atexit.register(lambda: print("at the end"))
    warnings.warn("careful")
    weight = torch.ones(1, requires_grad=True)
    (2 * weight).backward()
    print(weight.grad.item())
    if what == "fails":
        raise ValueError("no")
    if what == "sleeps":
        time.sleep(60)
    sys.exit({"ends": None, "says 3": 3, "says why": "why"}[what])

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path) -> None:
    (tmp_path / "forked_program.py").write_text(PROGRAM)


def start(forks: Forks, folder: Path, *words: str, module: str = "forked_program") -> Process:
    environment = os.environ | {"GREETING": "hello"}
    with (folder / "said").open("w") as said:
        streams = (0, said.fileno(), said.fileno())
        return forks.start(module, *words, folder=folder, environment=environment, streams=streams)


@pytest.mark.parametrize(("what", "code"), [("ends", 0), ("says 3", 3), ("says why", 1), ("fails", 1)])
def test_a_program_runs_and_ends(what: str, code: int, forks: Forks, tmp_path: Path) -> None:
    assert start(forks, tmp_path, what).wait(60) == code
    said = (tmp_path / "said").read_text()
    assert f"__main__ {tmp_path} hello 1\n2.0\n" in said
    assert "UserWarning: careful" in said
    assert said.count("at the end") == 1
    assert ("ValueError: no" in said) == (what == "fails")
    assert ("why\n" in said) == (what == "says why")


def test_it_is_waited_for_and_killed(forks: Forks, tmp_path: Path) -> None:
    process = start(forks, tmp_path, "sleeps")
    with pytest.raises(TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_what_cannot_be_started_says_so(forks: Forks, tmp_path: Path) -> None:
    assert start(forks, tmp_path, module="there_is_none").wait(60) == 1
    assert "No module named there_is_none" in (tmp_path / "said").read_text()
