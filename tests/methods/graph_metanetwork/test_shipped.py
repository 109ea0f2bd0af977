"""The metanetwork that comes with the package: it reads and edits any network of the zoo."""

import pytest
import torch

import metaprune as mp
from metaprune.methods.graph_metanetwork import GraphMetanetwork, load
from metaprune.methods.graph_metanetwork.graph_metanetwork import SHIPPED
from tests.methods import small
from tests.methods.graph_metanetwork.cases import case
from tests.zoo import networks


@pytest.mark.parametrize("name", networks(families=6))
def test_it_edits_every_network_of_the_zoo(name: str) -> None:
    """All that trains, by less than its own size; channels of an axis that may be cut are told apart."""
    c = case(name)
    metanetwork = load(SHIPPED)
    with torch.no_grad():
        weights, scores = metanetwork(c.read.aimed(0.5))
    assert scores.isfinite().all()
    assert scores.abs().max() < 50
    free = [scores[nodes] for nodes in c.read.free.values()]
    assert not free or any(own.std() > 1e-3 for own in free if len(own) > 1)
    assert weights.keys() == {block.name for block in c.read.learned}
    for path, tensor in weights.items():
        own = c.parameters[path]
        assert tensor.shape == own.shape
        assert tensor.dtype == own.dtype
        change = (tensor - own).detach().square().mean().sqrt()
        assert change < own.detach().square().mean().sqrt().clamp(min=0.2), path


def test_it_is_the_default_and_small() -> None:
    """The report says which it was."""
    assert SHIPPED.stat().st_size < 5e6
    assert SHIPPED.with_name("README.md").is_file()
    report = mp.prune(
        small.network(),
        small.EXAMPLE,
        method=GraphMetanetwork(),
        budget=mp.Budget(macs=0.5, multiple_of=1),
        task=small.task(),
        recipe=small.recipe(2),
        progress=False,
    ).report
    assert report.settings["graph metanetwork.metanetwork"] == "shipped"
    assert report.pruned.macs <= 0.5 * report.dense.macs


def test_it_was_trained() -> None:
    """It ranks; an untrained one does not."""
    assert load(SHIPPED).write_scores[2].weight.any()
