"""The metanetwork that comes with the package: it reads and edits any network of the zoo."""

import pytest
import torch

import metaprune as mp
from metaprune.methods.graph_metanetwork import GraphMetanetwork, load
from metaprune.methods.graph_metanetwork.graph_metanetwork import SHIPPED
from metaprune.methods.graph_metanetwork.reading.network_graph import graph_of
from tests.methods import small
from tests.methods.graph_metanetwork.cases import case
from tests.zoo import networks


@pytest.mark.parametrize("name", networks(families=6))
def test_it_edits_every_network_of_the_zoo(name: str) -> None:
    """All that trains, by less than its own size; channels of an axis that may be cut are told apart."""
    c = case(name)
    metanetwork = load(SHIPPED)
    with torch.no_grad():
        weights, scores, _ = metanetwork(c.read.aimed(0.5))
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


def test_its_scores_are_what_they_were() -> None:
    """Read off once: a feature that is computed otherwise, or stands in another's place, moves them."""
    model = small.Small().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).sin().reshape(parameter.shape))
        read = graph_of(model, mp.trace(model, small.EXAMPLE))
        _, scores, _ = load(SHIPPED)(read.aimed(0.5))
    found = {name: scores[nodes][:3].tolist() for name, nodes in read.free.items()}
    assert found == {
        "stem": pytest.approx([-0.9506, -1.0281, -1.1437], abs=2e-3),
        "inner.0": pytest.approx([1.5128, 1.2268, 0.8376], abs=2e-3),
        "wide.0": pytest.approx([1.5071, 1.3457, 1.1338], abs=2e-3),
    }
