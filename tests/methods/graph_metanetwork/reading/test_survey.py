"""What is told of axes means the same in every network: it does not hang on scale, names or the order of channels."""

import math
import statistics
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.cost.closed_form import macs_form
from metaprune.graph.errors import MetapruneError
from metaprune.graph.term import Axis, Concat, Product
from metaprune.methods.graph_metanetwork import Metanetwork, NetworkGraph, graph_of
from metaprune.methods.graph_metanetwork.criterion import heights as ranked
from metaprune.methods.graph_metanetwork.editor.edit import rewrite
from metaprune.methods.graph_metanetwork.learning.goals.data_model import DataModel
from metaprune.methods.graph_metanetwork.reading.survey import sensitivity as sensing
from metaprune.methods.graph_metanetwork.reading.survey.position import _stand, costs, kinds, places
from metaprune.methods.graph_metanetwork.reading.survey.spectra import effective_rank, spectra
from metaprune.methods.graph_metanetwork.reading.survey.survey import GROUPS, _shape, columns, surveyed
from metaprune.train.task import First
from tests.methods import small

TASK = replace(small.task(), train=First(small.task().val, 2))
"""Whose batches come in one order."""


@cache
def network() -> nn.Module:
    torch.manual_seed(0)
    return small.Small().eval()


@cache
def traced() -> mp.ChannelGraph:
    return mp.trace(network(), small.EXAMPLE)


def survey(model: nn.Module, groups: tuple[str, ...] = GROUPS) -> NetworkGraph:
    graph = traced()
    return surveyed(graph_of(model, graph), model, graph, TASK, groups)


def test_groups_side_by_side() -> None:
    told = GROUPS[:-1]
    assert GROUPS[-1] == "left", "which is told with the budget"
    whole = survey(network()).survey
    assert whole.shape == (len(survey(network()).names), columns(told))
    assert whole.isfinite().all()
    start = 0
    for group in told:
        width = columns([group])
        torch.testing.assert_close(survey(network(), (group,)).survey, whole[:, start : start + width])
        start += width
    assert survey(network(), ()).survey.shape[1] == 0
    with pytest.raises(MetapruneError, match="expected groups among cost, place, kind, spectra, evidence"):
        columns(["colour"])
    with pytest.raises(MetapruneError, match="each group once"):
        columns(["cost", "cost"])


def test_rescaled_and_renumbered_it_is_told_the_same() -> None:
    """A producer ten times as large, its consumers a tenth; and the channels inside in another order."""
    model = small.Small().eval()
    model.load_state_dict(network().state_dict())
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for tensor in (model.inner[1].weight, model.inner[1].bias):
            tensor.mul_(10)
        model.back.weight.div_(10)
        for tensor in (*model.inner.parameters(), model.inner[1].running_mean, model.inner[1].running_var):
            tensor.copy_(tensor[order].clone())
        model.back.weight.copy_(model.back.weight[:, order].clone())
    torch.testing.assert_close(survey(model).survey, survey(network()).survey, rtol=1e-3, atol=1e-3)


def test_the_spread_of_evidence_by_hand() -> None:
    """Four channels whose evidence is 1, 1, 1, 97 and norms a tenth, 1, 10, 100, beside an axis of evidence 1."""
    own = torch.tensor([1.0, 1, 1, 97])
    norms = torch.tensor([0.1, 1, 10, 100])
    share, deviation, upper, spread = _shape(norms, {"it": own, "other": torch.ones(3)}, "it")
    assert share == pytest.approx(math.log10(25 / 13) / 2)
    logs = [math.log10(each / 25) for each in own.tolist()]
    assert deviation == pytest.approx(statistics.pstdev(logs) / 2)
    assert upper == pytest.approx(0.98)
    assert spread == pytest.approx(statistics.pstdev([-1, 0, 1, 2]))
    assert _shape(norms, {"it": own / 1000}, "it")[1:] == pytest.approx([deviation, upper, spread])
    assert _shape(norms, {}, "it") == _shape(norms, {"it": torch.zeros(4)}, "it") == [0, 0, 0, pytest.approx(spread)]


def test_effective_ranks_by_hand() -> None:
    assert effective_rank(torch.eye(4)) == pytest.approx(1)
    assert effective_rank(torch.ones(4, 9)) == pytest.approx(0.25)
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert effective_rank(torch.tensor([[2.0, 0, 0], [0, 1, 0]])) == pytest.approx(math.exp(entropy) / 2)
    assert effective_rank(torch.zeros(3, 3)) == 1
    assert effective_rank(torch.ones(1, 5)) == 1


def test_the_way_from_end_to_end() -> None:
    """Trunk, wide, classes, and hidden units beside the trunk: by how many tensors they are apart."""
    graph = traced()
    read = graph_of(network(), graph)
    depths = {name: (row[2], row[3]) for name, row in zip(read.names, read.axes.tolist(), strict=True)}
    found = places(graph, list(read.names), depths)
    by_size = {graph.axes[name].size: found[name][:2] for name in read.names}
    whole = 3  # hidden units - trunk - wide - classes is the longest
    assert by_size[16] == pytest.approx([0, 2 / whole])
    assert by_size[24] == pytest.approx([1 / whole, 1 / whole])
    assert by_size[12] == pytest.approx([1 / whole, 3 / whole])
    for name, (low, high) in depths.items():
        assert found[name][2:] == pytest.approx([(low + high) / 2, high - low])


def test_what_axes_cost_by_hand() -> None:
    """Shares of the MACs and of the parameters that lie on them, and one channel beside the mean of all axes'."""
    graph, names = traced(), list(graph_of(network(), traced()).names)
    stem, inner, wide, head = 64 * 9 * 16, 2 * 64 * 9 * 16 * 12, 64 * 16 * 24, 24 * 3
    depthwise = 36 * 9 * 24
    macs = {"stem": stem + inner + wide, "inner.0": inner, "wide.0": wide + depthwise + head, "head": head}
    held = {
        "stem": (9 + 1 + 2) * 16 + 2 * 9 * 16 * 12 + 16 + 16 * 24,
        "inner.0": 2 * 9 * 16 * 12 + 2 * 12,
        "wide.0": 16 * 24 + (1 + 2 + 9 + 1) * 24 + 3 * 24,
        "head": 3 * 24 + 3,
    }
    whole = (held["stem"] + 2 * 12) + (held["wide.0"] - 16 * 24) + 3
    prices = {"stem": 2.0, "inner.0": 1.0, "wide.0": 0.0}
    logs = {"stem": math.log10(2) / 2, "inner.0": 0.0, "wide.0": -1.5, "head": 0.0}
    total = stem + inner + wide + depthwise + head
    assert costs(graph, names, prices) == {
        name: pytest.approx([(macs[name] / total) ** 0.5, (held[name] / whole) ** 0.5, logs[name]]) for name in names
    }


def test_what_is_done_along_axes_by_hand() -> None:
    """How many dimensions read, write, carry and count each; and where one stands inside others."""
    roles = {"stem": (2, 4, 4, 0), "inner.0": (1, 1, 4, 0), "wide.0": (1, 3, 5, 0), "head": (0, 2, 0, 0)}
    assert kinds(traced(), list(roles)) == {
        name: pytest.approx([math.log2(1 + count) / 4 for count in counts] + [0, 0, 0])
        for name, counts in roles.items()
    }
    heads, size, other = Axis("heads", 2), Axis("size", 3), Axis("other", 4)
    stands = {name: [0.0, 0.0, 0.0] for name in ("heads", "size", "other")}
    _stand(Product((heads, Axis("", 2), size)), stands)
    _stand(Concat((Product((other, size)), Axis("", 2))), stands)
    assert stands == {"heads": [1, 0, 0], "size": [0, 1, 1], "other": [1, 0, 1]}


def test_how_much_channels_say_the_same_by_hand() -> None:
    """Of each tensor that holds an axis, and of what its gates say."""

    def rank(rows: torch.Tensor) -> float:
        shares = torch.linalg.svdvals(rows.detach().double()).square()
        shares = shares / shares.sum()
        return math.exp(-float((shares * shares.log()).sum())) / min(rows.shape)

    model, graph = network(), traced()
    said = {"inner.0": torch.randn(5, 12, generator=torch.Generator().manual_seed(0)).double()}
    found = spectra(graph, dict(model.named_parameters()), said)
    makes, reads = model.inner[0].weight.flatten(1), model.back.weight.transpose(0, 1).flatten(1)
    ranks = [rank(makes), rank(reads)]
    assert found["inner.0"] == pytest.approx([sum(ranks) / 2, min(ranks), rank(said["inner.0"])])
    filters = [model.wide[0].weight.flatten(1), model.wide[2].weight.flatten(1), model.head.weight.T]
    ranks = [rank(rows) for rows in filters]
    assert found["wide.0"] == pytest.approx([sum(ranks) / 3, min(ranks), 1.0])


def test_what_the_loss_hangs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """An axis whose lowest half is dead: leaving it out costs nothing."""
    model = small.Small().eval()
    model.load_state_dict(network().state_dict())
    with torch.no_grad():
        model.wide[0].weight[:12] = 0
        model.wide[0].bias[:12] = 0
        model.wide[1].bias[:12] = 0
        model.wide[2].bias.zero_()
        model.wide[2].weight[:12] = 0
    graph = traced()
    read = graph_of(model, graph)
    order = {name: torch.arange(axis.size).double() for name, axis in graph.free.items()}
    found = sensing.sensitivity(model, graph, read, TASK, order)
    [wide] = [name for name, axis in graph.free.items() if axis.size == 24]
    assert [found[wide][place] for place in (1, 3)] == [0, 0]
    assert all(any(said) for name, said in found.items() if name != wide)
    batch = next(iter(TASK.train))
    whole, rises = TASK.loss(model(batch[0]), batch).item(), {}
    for name, own in order.items():
        for share in (0.1, 0.5):
            cut = mp.slice(model, graph, mp.Plan({name: range(max(1, round(share * len(own))), len(own))}))
            rises[name, share] = TASK.loss(cut(batch[0]), batch).item() - whole
    for name, said in found.items():
        expected = []
        for share in (0.1, 0.5):
            mean = sum(abs(rises[other, share]) for other in order) / len(order)
            expected += [math.log10(max(rises[name, share] / mean, 1e-4)) / 2, rises[name, share] / whole]
        assert said == pytest.approx(expected, rel=1e-3, abs=1e-4)
    nobody = replace(TASK, train=First(TASK.train, 0))
    assert set(map(tuple, sensing.sensitivity(model, graph, read, nobody, order).values())) == {(0.0,) * 4}


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_what_is_left_at_a_budget(share: float) -> None:
    """By hand, from the plan and finite differences of the cost: in the data model, and where a network is pruned."""
    model, graph = network(), traced()
    allocation = Allocation(graph, mp.Budget(macs=share, multiple_of=1))
    heights = ranked(model, graph, TASK, "blend")
    plan = allocation.plan(heights)
    cost, expected = macs_form(graph).at, {}
    for name, axis in graph.free.items():
        width = plan.widths.get(name, axis.size)
        more, less = (cost({**plan.widths, name: width + step}) for step in (1, -1))
        grows = (more - less) / 2 * width / cost(plan.widths)
        expected[name] = [math.log(width / axis.size), math.log(grows)]
    data = DataModel.of("it", model, graph, TASK, torch.device("cpu"), surveys=GROUPS)
    torch.manual_seed(0)
    metanetwork = Metanetwork(4, 0, surveys=GROUPS, scored="widths", edits=False)
    torch.nn.init.normal_(metanetwork.read_widths.weight)
    read = data.aimed(share)
    for place, name in enumerate(read.names):
        assert read.left[place].tolist() == pytest.approx(expected.get(name, [0.0, 0.0]), abs=1e-5)
    torch.testing.assert_close(metanetwork(read).tilts, rewrite(model, graph, metanetwork, TASK, share).tilts)
