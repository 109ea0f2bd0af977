"""Training data train, validation data watch: what they are never reaches the weights."""

from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader

import metaprune as mp
from metaprune.methods.method import Method
from tests.methods import small


@pytest.mark.parametrize("method", [mp.Magnitude(), mp.DHP(), mp.Taylor()], ids=lambda method: method.name)
def test_validation_and_test_data_reach_no_weight_and_no_statistic(method: Method) -> None:
    """Searched, recalibrated and fine-tuned beside other pictures to watch, the network is the same bit for bit."""
    network, found = small.network(), []
    for seed in (2, 5):
        watched = DataLoader(small.pictures(24, seed), batch_size=24)
        result = mp.prune(
            network,
            small.EXAMPLE,
            method=method,
            budget=mp.Budget(macs=0.5, multiple_of=1),
            task=replace(small.task(), val=watched, test=watched),
            recipe=small.recipe(2),
            progress=False,
        )
        found.append(result)
    one, other = found
    watching = [(result.report.dense.metric, result.report.pruned.metric) for result in found]
    assert watching[0] != watching[1], "they were looked at, and differ"
    assert one.plan == other.plan
    first, second = one.model.state_dict(), other.model.state_dict()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
