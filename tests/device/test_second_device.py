"""Whatever runs on the CPU runs on a second device, and gives the same there."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from torch.utils import backend_registration

from tests.device.checks import CHECKS

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="devices written in Python came with PyTorch 2.9",
)


@cache
def outcomes() -> dict[str, str]:
    """Of all checks, in a process of their own: PyTorch does not forget a device."""
    here = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.device.checks"],
        cwd=here,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("check", CHECKS)
def test_it_runs_on_a_second_device(check: str) -> None:
    assert not outcomes()[check], outcomes()[check]


REFUSED = """
import numpy as np, torch
from tests.device import second
device = second.install()
here = torch.ones(3, device=device)
for wrong in (
    lambda: here + torch.ones(3),
    lambda: here.index_select(0, torch.tensor([0])),
    lambda: here.double(),
    lambda: here.numpy(),
    lambda: np.asarray(here),
    lambda: torch.empty(3, device=device).uniform_(generator=torch.Generator()),
):
    try:
        wrong()
    except (RuntimeError, TypeError):
        continue
    raise SystemExit("not refused")
assert torch.equal(((here + 1)[torch.tensor([0])] * torch.tensor(2.0)).cpu(), torch.tensor([4.0]))
"""


def test_it_refuses_what_a_gpu_refuses() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REFUSED], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
