"""Whatever runs on the CPU runs on a second device, and gives the same there."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch.utils import backend_registration

from tests.device.checks import CHECKS

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="devices written in Python came with PyTorch 2.9",
)


HERE = Path(__file__).parents[2]
QUICK = (
    *(
        "what_a_gpu_refuses",
        "dhp",
        "decisions",
        "training",
        "training_groups",
        "the_loss_of_tokens_that_are_none",
        "evaluation",
        "checkpoints",
        "meta_training",
    ),
    *(
        "training_on_pictures_in_memory",
        "surgery",
        "surgery_of_attention",
        "recalibration",
        "carrying_an_optimizer",
        "magnitude_saved_and_loaded",
    ),
)
"""A search, decisions without one, training, cutting and files: the others run much of the same code."""
LIMIT = 300.0  # seconds for one answer


@pytest.fixture(scope="module")
def asked() -> Iterator[Callable[[str], str]]:
    """What went wrong in a check, by a process that runs them all: PyTorch does not forget a device."""
    call = [sys.executable, "-m", "tests.device.checks"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        call, cwd=HERE, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        questions, answers = process.stdin, process.stdout

        def ask(check: str) -> str:
            questions.write(f"{check}\n")
            questions.flush()
            assert select.select([answers], [], [], LIMIT)[0], f"no answer in {LIMIT:.0f} s"
            said: str = json.loads(answers.readline())
            return said

        yield ask
        process.kill()


@pytest.mark.parametrize(
    "check", [pytest.param(check, marks=() if check in QUICK else pytest.mark.slow) for check in CHECKS]
)
def test_it_runs_on_a_second_device(check: str, asked: Callable[[str], str]) -> None:
    said = asked(check)
    assert not said, said
