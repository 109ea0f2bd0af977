"""Dense message passing computes what gather and scatter over an explicit list of edges do."""

import pytest
import torch

from metaprune.methods.graph_metanetwork.editor import dense
from metaprune.methods.graph_metanetwork.editor.dense import edge_states
from metaprune.methods.graph_metanetwork.editor.metanetwork import Metanetwork
from tests.laws.oracle import distance
from tests.methods.graph_metanetwork import scatter
from tests.methods.graph_metanetwork.cases import case, gradients, stirred
from tests.zoo import networks

NAMES = [
    *("resnet", "attention_split", "bilinear", "shufflenet_v1", "stacked_experts", "densenet"),
    *(pytest.param(p.values[0], marks=pytest.mark.slow, id=f"all-{p.values[0]}") for p in networks()),
]


def dense_states(metanetwork: Metanetwork, name: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    read = case(name).read
    through = metanetwork.passed(read)
    edges = {}
    for pile in through.piles:
        states = edge_states(pile.matrix, pile.start, pile.gates)
        for block, its in zip(pile.blocks, states.chunk(len(pile.blocks)), strict=True):
            edges[block.name] = its
    return through.states, edges


def scattered(metanetwork: Metanetwork, name: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return scatter.passed(metanetwork, case(name).read, scatter.listed(case(name).read))


@pytest.mark.parametrize("name", NAMES)
def test_dense_is_scatter(name: str) -> None:
    if not case(name).read.edges:
        pytest.skip("no tensor has two channel dimensions")
    metanetwork = stirred()
    assert distance(scattered(metanetwork, name), dense_states(metanetwork, name)) < 1e-9
    single = stirred().float()
    assert distance(scattered(single, name), dense_states(single, name)) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_edits_and_scores_are_those_of_scatter(name: str) -> None:
    read = case(name).read
    if not read.edges:
        pytest.skip("no tensor has two channel dimensions")
    metanetwork = stirred()
    weights, scores, _ = metanetwork(read)
    expected = scatter.edited(metanetwork, read, scatter.listed(read))
    assert distance(scores, expected.pop("")) < 1e-9
    assert distance({name: weights[name] for name in expected}, expected) < 1e-9


@pytest.mark.parametrize("name", ["resnet", "attention_split", "bilinear"])
@pytest.mark.parametrize("chunk", [500, 2**20])
def test_gradients_are_those_of_scatter(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "CHUNK", chunk)
    metanetwork = stirred(layers=2)
    found = []
    for states, edges in (scattered(metanetwork, name), dense_states(metanetwork, name)):
        (states.sin().sum() + sum((e * e.detach()).sum() for e in edges.values())).backward()
        found.append(gradients(metanetwork))
    assert distance(*found) < 1e-9


@pytest.mark.parametrize("name", ["resnet", "attention_split"])
def test_the_size_of_chunks_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for chunk in (300, 2**20):
        monkeypatch.setattr(dense, "CHUNK", chunk)
        metanetwork = stirred()
        edited = metanetwork(case(name).read).weights
        sum((w * w.detach().cos()).sum() for w in edited.values()).backward()
        results.append(({name: w.detach() for name, w in edited.items()}, gradients(metanetwork)))
    for other in results[1:]:
        assert distance(results[0], other) < 1e-10


@pytest.mark.parametrize("chunk", [8, 2**20])
def test_a_maximum_that_several_share_hands_its_gradient_on_once(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows alike, in one chunk or in several: the gradient of a shared kernel is that of one row's."""
    monkeypatch.setattr(dense, "CHUNK", chunk)
    matrix = torch.ones(1, 1, 6, 4, dtype=torch.float64)
    kernel = torch.rand(1, 2, 1, dtype=torch.float64, requires_grad=True)
    start = dense.Start(kernel, torch.zeros(1, 2, 1, dtype=torch.float64))
    ones = torch.ones(2, 6, dtype=torch.float64), torch.ones(2, 4, dtype=torch.float64)
    rows, columns = dense.received(matrix, start, [], *ones)
    torch.testing.assert_close(columns.most, kernel[0].expand(2, 4))
    (gradient,) = torch.autograd.grad((rows.most.sum(), columns.most.sum()), kernel)
    torch.testing.assert_close(gradient, torch.full_like(kernel, 6.0 + 4.0))
