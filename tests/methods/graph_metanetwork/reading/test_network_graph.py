"""Networks as graphs: every tensor is in it once, and comes back as it was."""

import copy

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.graph.errors import MetapruneError, PlanError
from metaprune.graph.term import Axis, Concat, Product, Term, axes_of, places, size
from metaprune.methods.graph_metanetwork import Metanetwork, edit, graph_of
from metaprune.methods.graph_metanetwork.reading.features import tap_features
from metaprune.methods.graph_metanetwork.reading.incidence import PLACES, incidence, leaves
from tests.laws import oracle
from tests.methods import small
from tests.methods.graph_metanetwork.cases import case
from tests.zoo import networks


@pytest.mark.parametrize("name", networks(families=2))
def test_there_and_back_is_exact(name: str) -> None:
    """A metanetwork that was not trained changes no bit of any tensor, and all that trains is in the graph."""
    c = case(name)
    edited = Metanetwork(hidden=4, layers=1)(c.read).weights
    assert edited.keys() == {n for n, p in c.parameters.items() if p.requires_grad and p.numel()}
    for path, tensor in edited.items():
        assert tensor.dtype == c.parameters[path].dtype
        assert torch.equal(tensor, c.parameters[path]), path
    tensors = c.parameters | dict(c.model.named_buffers())
    for block in (*c.read.edges, *c.read.attributes):
        tensor = tensors[block.name].detach()
        assert torch.equal(block.tensor(block.matrix), tensor)
        assert torch.equal(block.matrix.flatten(), tensor.permute(block.order).flatten())
    before = oracle.fingerprint(c.model)
    if not edited:
        with pytest.raises(MetapruneError, match="requires_grad_"):
            edit(c.model, c.graph, Metanetwork(hidden=4, layers=1))
        return
    same = edit(c.model, c.graph, Metanetwork(hidden=4, layers=1))
    assert all(parameter.is_contiguous() for parameter in same.parameters())
    assert oracle.distance(c.run(c.model), c.run(same)) < (1e-12 if c.graph.written_out else 1e-30)
    assert oracle.fingerprint(c.model) == before


@pytest.mark.parametrize("name", networks(families=6))
def test_positions_are_made_of_the_channels_that_the_terms_say(name: str) -> None:
    c = case(name)
    sides = [(block, "rows", block.rows, c.read.rows) for block in c.read.edges]
    sides += [(block, "columns", block.columns, c.read.columns) for block in c.read.edges]
    sides += [(block, "rows", block.rows, c.read.held) for block in c.read.attributes]
    for block, which, (first, last), side in sides:
        dims = [dim for dim in block.order if any(axis.name for axis in axes_of(c.graph.tensors[block.name][dim]))]
        several = dims[:-1] if len(dims) > 1 else dims
        term = Product(tuple(c.graph.tensors[block.name][dim] for dim in (several if which == "rows" else dims[-1:])))
        assert last - first == size(term)
        inside = (side.position >= first) & (side.position < last)
        found = set(zip((side.position[inside] - first).tolist(), side.node[inside].tolist(), strict=True))
        expected = set()
        for index, axis in enumerate(c.read.names):
            held = places(term, axis)
            start = int((c.read.axis < index).sum())
            expected |= {(p, start + channel) for p, channel in enumerate(held.tolist()) if channel >= 0}
        squares = len(list(axes_of(term))) - len({axis.name for axis in axes_of(term)})
        assert expected <= found
        assert expected == found or squares


A, B, C, KERNEL = Axis("a", 2), Axis("b", 3), Axis("c", 2), Axis("", 2)
TERMS: dict[str, Term] = {
    "axis": A,
    "product": Product((A, B)),
    "three factors": Product((A, C, B)),
    "concatenation": Concat((A, B, A)),
    "product of a concatenation": Product((Concat((A, B)), C)),
    "concatenation of products": Concat((Product((A, B)), C, Product((C, A)))),
    "a square": Product((A, A)),
    "with a kernel": Product((A, KERNEL)),
    "nothing": Product(()),
}


def spelled(term: Term) -> list[tuple[str, ...]]:
    """For each position the channels that meet there, by name."""
    if isinstance(term, Axis):
        return [(f"{term.name}{channel}",) if term.name else () for channel in range(term.size)]
    if isinstance(term, Product):
        found: list[tuple[str, ...]] = [()]
        for factor in term.factors:
            found = [one + other for one in found for other in spelled(factor)]
        return found
    return [position for part in term.parts for position in spelled(part)]


@pytest.mark.parametrize("kind", TERMS)
def test_leaves_of_a_term(kind: str) -> None:
    term = TERMS[kind]
    found: list[tuple[str, ...]] = [()] * size(term)
    for leaf in leaves(term):
        for position, channel in zip(leaf.position.tolist(), leaf.channel.tolist(), strict=True):
            found[position] += (f"{leaf.axis.name}{channel}",)
    assert found == spelled(term)


def test_gathering_and_giving_back_by_hand() -> None:
    """Positions (a0, b0) (a0, b1) (a0, b2) (a1, b0) …, then a0 a1."""
    side = incidence([Product((A, B)), A], {"a": 0, "b": 2}, nodes=6)
    values = torch.tensor([[1.0, 2.0, 10.0, 20.0, 30.0, 99.0]]).T
    places = torch.ones(PLACES, 1)
    places[1] = 2
    gathered = side.gather(values, side.gains(places))
    assert gathered.T.tolist() == [[10.5, 20.5, 30.5, 11, 21, 31, 1, 2]]
    assert side.total(torch.ones(8, 1)).T.tolist() == [[4, 4, 2, 2, 2, 0]]
    numbers = torch.arange(8.0)[:, None]
    assert side.mean(numbers).T.tolist() == [[2.25, 4.75, 1.5, 2.5, 3.5, 0]]
    assert side.largest(-numbers).T.tolist() == [[0, -3, 0, -1, -2, 0]]
    assert not side.direct


def test_positions_that_are_channels() -> None:
    """The short way, where each position is one channel, and the long way."""
    short = incidence([A, A], {"a": 0}, nodes=2)
    assert short.direct
    values, numbers = torch.randn(2, 3), torch.randn(4, 3)
    gains = short.gains(torch.rand(PLACES, 3))
    assert torch.equal(short.gather(values, gains), values[[0, 1, 0, 1]] * gains)
    assert torch.equal(short.total(numbers), numbers[:2] + numbers[2:])
    assert torch.equal(short.largest(numbers), torch.maximum(numbers[:2], numbers[2:]))


def test_taps_of_any_kernel() -> None:
    """One tap has no place; a cosine of half a wave falls along each dimension, the last dimension last."""
    assert tap_features([]).shape[0] == tap_features([1, 1]).shape[0] == 1
    assert torch.equal(tap_features([]), tap_features([1]))
    three = tap_features([3, 5])
    assert three.shape[0] == 15
    waves = three.reshape(3, 5, -1)
    torch.testing.assert_close(waves[:, 0, 4], torch.tensor([0.8660, 0, -0.8660]), atol=1e-4, rtol=0)
    torch.testing.assert_close(waves[:, 0, 4], waves[:, 3, 4])
    torch.testing.assert_close(waves[0, :, 8], waves[2, :, 8])
    assert tap_features([2, 3, 4, 5]).shape == (120, three.shape[1])
    assert len({tuple(row) for row in tap_features([4, 4]).tolist()}) == 16


def test_tied_tensors_are_one() -> None:
    c = case("gpt")
    names = [block.name for block in (*c.read.edges, *c.read.attributes)]
    assert len(names) == len(set(names))
    assert sum(block.learned for block in (*c.read.edges, *c.read.attributes)) == len(list(c.model.parameters()))


def test_statistics_are_read_and_kept() -> None:
    model = small.network()
    graph = mp.trace(model, small.EXAMPLE)
    read = graph_of(model, graph)
    statistics = {block.role for block in read.attributes if not block.learned}
    assert statistics == {"running_mean", "running_var"}
    metanetwork = Metanetwork(8, 2)
    nn.init.normal_(metanetwork.write_attributes.outer)
    assert metanetwork(read).weights.keys() == dict(model.named_parameters()).keys()
    before = metanetwork(read).weights["norm.weight"]
    model.norm.running_var.mul_(torch.rand(16))
    assert not torch.equal(metanetwork(graph_of(model, graph)).weights["norm.weight"], before)


def test_what_is_told_of_a_tensor() -> None:
    """Kind, role and stride are found, also where a weight reaches its operator after a transposition."""

    class Strided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3, stride=2)
            self.up = nn.ConvTranspose2d(6, 5, 2)
            self.table = nn.Parameter(torch.randn(5, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.up(self.conv(x)).mean((2, 3)) @ self.table

    model = Strided()
    graph = mp.trace(model, (torch.zeros(2, 3, 8, 8),))
    blocks = {block.name: block for block in graph_of(model, graph).edges}
    conv, up, table = blocks["conv.weight"], blocks["up.weight"], blocks["table"]
    assert conv.order == (2, 3, 0, 1)
    assert up.order == (2, 3, 1, 0), "rows are what a tensor gives"
    assert table.order == (1, 0)
    assert conv.features[1] == up.features[0] == table.features[6] == 1
    assert conv.features[-3] == 1
    assert up.features[-3] == 0
    assert conv.features[-4] < up.features[-4] < table.features[-4]


def test_errors_say_what_to_do() -> None:
    model = small.Small()
    graph = mp.trace(model, small.EXAMPLE)
    with pytest.raises(PlanError, match="trace the network again"):
        graph_of(nn.Linear(2, 2), graph)
    with pytest.raises(MetapruneError, match="meta device"):
        graph_of(copy.deepcopy(model).to("meta"), graph)
    with torch.no_grad():
        model.stem.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(MetapruneError, match=r"finite values.*stem\.weight"):
        graph_of(model, graph)


def test_it_moves_to_another_device_as_a_whole_and_stays_where_it_lies() -> None:
    read = case("resnet").read
    assert read.to(torch.device("cpu")) is read
    moved = read.to(torch.device("meta"))
    told = (moved.axis, moved.axes, moved.identity, moved.evidence, moved.survey)
    places = (moved.rows.position, moved.columns.position, moved.held.position)
    assert all(tensor.is_meta for tensor in (*told, *places))
    assert moved.names == read.names
