"""By what channels are ranked: each criterion by hand."""

import pytest
import torch

import metaprune as mp
from metaprune.graph.errors import MetapruneError
from metaprune.methods.graph_metanetwork import graph_of
from metaprune.methods.graph_metanetwork.criterion import CRITERIA, Criterion, check, ranking
from metaprune.methods.saliency import group_norms
from tests.methods import small


@pytest.mark.parametrize("criterion", CRITERIA)
def test_rankings_by_hand(criterion: Criterion) -> None:
    """Group norms, those times the root of the evidence, or sums of squares without biases; times exp(score)."""
    torch.manual_seed(0)
    model = small.Small()
    graph = mp.trace(model, small.EXAMPLE)
    read = graph_of(model, graph)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    scores = torch.linspace(-1, 1, len(read.axis))
    evidence = {name: torch.rand(axis.size).double() for name, axis in graph.free.items() if name != "stem"}
    found = ranking(dict(model.named_parameters()), graph, read, criterion, scores, evidence)
    wide = model.wide[0].weight.flatten(1).square().sum(1) + model.wide[1].weight.square()
    wide = wide + model.wide[2].weight.flatten(1).square().sum(1) + model.head.weight.square().sum(0)
    stem = model.stem.weight.flatten(1).square().sum(1) + model.norm.weight.square()
    for reads in (model.inner[0].weight, model.back.weight.transpose(0, 1), model.wide[0].weight):
        stem = stem + reads.transpose(0, 1).flatten(1).square().sum(1)
    squares = {"stem": stem.detach().double(), "wide.0": wide.detach().double()}
    for name in ("stem", "wide.0"):
        weighed = group_norms(model, graph)[name]
        if criterion == "importance":
            weighed = squares[name] / squares[name].mean()
        elif criterion == "blend":
            weighed = weighed * evidence[name].sqrt() if name in evidence else weighed
        raised = scores[read.free[name]].double().exp()
        torch.testing.assert_close(found[name], weighed * raised, rtol=1e-5, atol=1e-6)


def test_what_is_no_criterion() -> None:
    with pytest.raises(MetapruneError, match=r"somebody: expected criterion 'blend' or .*, got 'taste'"):
        check("taste", "somebody")
