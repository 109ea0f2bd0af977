"""What all tests of the command line stand on."""

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def bench_is_quick(clocks_are_quick: None) -> Iterator[None]:
    """As what a report measures is."""
    latency = importlib.import_module("metaprune.cost.latency")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "latencies", partial(latency.latencies, seconds=0.001))
        yield


@pytest.fixture(scope="module", autouse=True)
def commands_share_graphs(graphs_are_remembered: Callable[..., Any]) -> Iterator[None]:
    """They trace what they are given, and prune it then, which traces it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("metaprune.surgery.trace"), "trace", graphs_are_remembered)
        yield
