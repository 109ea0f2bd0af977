"""The pruning network: generated weights by hand, crops, statistics, and what each batch is run at."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.methods.metapruning.generator import Batches, Film, Perceptron, PruningNet
from metaprune.methods.metapruning.genes import Genes
from metaprune.surgery.recalibrate import recalibrate
from metaprune.surgery.slice import carve
from tests.laws import oracle
from tests.methods import small

KINDS = ("shared", "film", "mlp")


@pytest.fixture(scope="module")
def traced() -> tuple[small.Small, mp.ChannelGraph]:
    model = small.network().double()
    return model, mp.trace(model, (small.EXAMPLE[0].double(),))


def genes_of(graph: mp.ChannelGraph) -> Genes:
    return Genes(Allocation(graph, mp.Budget(macs=0.5, multiple_of=1)))


def batch(count: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def net_of(traced: Any, kind: str, settle: Any = lambda network: None) -> PruningNet:
    """Its generators, which begin as nothing, are given random weights."""
    model, graph = traced
    genes = genes_of(graph)
    torch.manual_seed(1)
    steady = genes.plan(genes.within(genes.whole()))
    net = PruningNet(
        copy.deepcopy(model),
        graph,
        kind,
        16,
        lambda numbers: genes.plan(genes.drawn(numbers)),
        0,
        steady,
        settle,  # type: ignore[arg-type]
    )
    for parameter in net.generators.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def test_film_by_hand() -> None:
    film = Film(3, (4, 5, 2), (0, 1), hidden=6).double()
    weight, ratios = torch.randn(4, 5, 2).double(), torch.tensor([0.2, 0.5, 1.0]).double()
    assert torch.equal(film(weight, ratios), weight)  # at the start
    torch.nn.init.normal_(film.write[1].weight)  # type: ignore[arg-type]
    hidden = (film.read.weight @ ratios + film.read.bias).clamp(min=0)
    u, v = (write.weight @ hidden for write in film.write)  # type: ignore[operator]
    torch.testing.assert_close(film(weight, ratios), weight * (1 + u[:, None, None] * v[None, :, None]))


def test_perceptron_by_hand() -> None:
    perceptron = Perceptron(2, (3, 4), hidden=5).double()
    weight, ratios = torch.randn(3, 4).double(), torch.tensor([0.3, 0.9]).double()
    assert torch.equal(perceptron(weight, ratios), weight)
    torch.nn.init.normal_(perceptron.write)
    hidden = (perceptron.read.weight @ ratios + perceptron.read.bias).clamp(min=0)
    expected = weight + torch.einsum("oih,h->oi", perceptron.write, hidden)
    torch.testing.assert_close(perceptron(weight, ratios), expected)


def test_each_generator_reads_the_axes_of_its_tensor(traced: Any) -> None:
    graph = traced[1]
    reads = net_of(traced, "film").reads
    assert set(reads) == {name for name, tensor in traced[0].named_parameters() if tensor.ndim > 1}
    assert reads["stem.weight"] == ("stem",)
    assert set(reads["back.weight"]) == {"stem", "inner.0"}
    assert not net_of(traced, "shared").reads
    assert set(graph.free) == {axis for axes in reads.values() for axis in axes}


@pytest.mark.parametrize("kind", KINDS)
def test_a_crop_is_a_cut(traced: Any, kind: str) -> None:
    """At drawn widths it computes what the network with those weights does once it is really cut; gradients arrive."""
    model, graph = traced
    net = net_of(traced, kind).train()
    plan = net.draw(Batches(0).next())
    answer = net(batch())
    full = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in net.weights(plan).items():
            full.get_parameter(name).copy_(weight)
    cut = carve(full, graph, plan)
    assert not cut.undone
    assert oracle.distance(cut.model.train()(batch()), answer.detach()) < 1e-10
    answer.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.generators.parameters())
    assert net.network.get_parameter("stem.weight").grad is not None


def test_widths_are_drawn_for_each_batch(traced: Any) -> None:
    """All that there are, from the number of the batch; training leaves no trace in buffers."""
    net = net_of(traced, "shared").train()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    seen: dict[str, set[int]] = {axis: set() for axis in net.sizes}
    batches, plans = Batches(0), []
    for _ in range(150):
        plans.append(net.draw(batches.next()))
        for axis, size in net.sizes.items():
            seen[axis].add(plans[-1].widths.get(axis, size))
    assert plans[0] != plans[1]
    assert all(seen[axis] == set(range(-(-size // 10), size + 1)) for axis, size in net.sizes.items())
    net(batch())
    assert net.batches.state_dict() == {"batches": 1}
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    again, other = Batches(0), Batches(1)
    again.load_state_dict({"batches": 7})
    assert net.draw(again.next()) == plans[7] != net.draw(other.next())


def test_evaluation_is_at_one_plan_with_statistics_of_its_own(traced: Any) -> None:
    calibration = [[batch(8, seed)] for seed in range(3)]
    calls = []

    def settle(network: Any) -> int:
        calls.append(network)
        return recalibrate(network, calibration)

    net = net_of(traced, "film", settle).eval()
    first, again = net(batch()), net(batch())
    assert torch.equal(first, again)
    assert len(calls) == 1
    by_hand = net.resized[0].copy(net.steady, net.weights(net.steady)).eval()
    assert not torch.allclose(by_hand(batch()), first)  # the statistics of the wide network
    recalibrate(by_hand, calibration)
    assert torch.equal(by_hand(batch()), first)
    with torch.no_grad():
        net.network.get_parameter("head.bias").add_(1.0)
    torch.testing.assert_close(net.train().eval()(batch()), first + 1.0)


def test_what_is_frozen_has_no_generator(traced: Any) -> None:
    model, graph = copy.deepcopy(traced[0]), traced[1]
    model.stem.weight.requires_grad_(False)
    assert "stem.weight" not in net_of((model, graph), "mlp").reads
