"""What every test stands on: a fixed seed, no network, and GPU tests only where there is a GPU."""

import os

import pytest
import torch

import tests.shapes  # noqa: F401  so that --jaxtyping-packages finds it

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
