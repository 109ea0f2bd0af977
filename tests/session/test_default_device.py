"""A default device that the caller has set is for what the caller's code makes; methods find and train the same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import metaprune as mp

METHODS: dict[str, Callable[[], Any]] = {
    "dhp": mp.DHP,
    "graph_metanetwork": mp.GraphMetanetwork,
    "transportation": mp.Transportation,
    "metapruning": mp.MetaPruning,
    "intra_fusion": mp.IntraFusion,
    "magnitude": mp.Magnitude,
}


@pytest.mark.parametrize(
    "name", [*METHODS][:2] + [pytest.param(name, marks=pytest.mark.slow) for name in [*METHODS][2:]]
)
def test_a_default_device_of_the_caller(name: str) -> None:
    """The meta device stands for any other than the network's own: nothing that lies there could be computed with."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(24, 3)]
    model, x, y = nn.Sequential(*layers).eval(), torch.randn(8, 1, 6, 6), torch.arange(8) % 3
    task = mp.Classification([(x, y)] * 2, [(x, y)])

    def pruned() -> mp.Result:
        budget, recipe = mp.Budget(macs=0.5, multiple_of=1), mp.Recipe(1)
        return mp.prune(model, (x,), method=METHODS[name](), budget=budget, task=task, recipe=recipe, progress=False)

    expected = pruned()
    with torch.device("meta"):
        found = pruned()
        assert torch.empty(0).is_meta
    assert found.plan == expected.plan
    weights = expected.model.state_dict()
    assert found.model.state_dict().keys() == weights.keys()
    for part, tensor in found.model.state_dict().items():
        assert torch.equal(tensor, weights[part]), part
