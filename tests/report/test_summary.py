from collections.abc import Callable

import pytest

from metaprune.cost.closed_form import axis_shares
from metaprune.graph.graph import ChannelGraph
from metaprune.report.summary import groups, reasons, roles, wiring
from tests.report.conftest import NETWORKS

Graphs = Callable[[str], ChannelGraph]


def test_equal_blocks_of_a_residual_network_share_rows(graphs: Graphs) -> None:
    found = [(group.name, group.role, group.size, len(group.axes)) for group in groups(graphs("pictures"))]
    assert found == [
        ("x:1", "", 3, 1),
        ("conv", "trunk", 16, 1),
        ("stage1.0–2.conv1", "inner", 16, 3),
        ("stage2.0–2.conv1", "inner", 32, 3),
        ("stage2.0.conv2", "trunk", 32, 1),
        ("stage3.0–2.conv1", "inner", 64, 3),
        ("stage3.0.conv2", "trunk", 64, 1),
        ("fc", "", 10, 1),
    ]


@pytest.mark.parametrize(("name", "last"), [("stack", 1), ("deep stack", 4)])
def test_a_transformer_has_a_row_for_each_kind_of_axis(graphs: Graphs, name: str, last: int) -> None:
    found = [(g.name, g.role, g.size, len(g.axes)) for g in groups(graphs(name)) if g.fixed is None]
    assert found == [
        ("embed[1]", "trunk", 12, 1),
        (f"blocks.0–{last}.attn.q[0]", "heads", 2, last + 1),
        (f"blocks.0–{last}.attn.q[1]", "head size", 6, last + 1),
        (f"blocks.0–{last}.attn.v", "value size", 6, last + 1),
        (f"blocks.0–{last}.mlp.0", "inner", 20, last + 1),
    ]


def test_blocks_that_differ_in_size_do_not_share_a_row(graphs: Graphs) -> None:
    names = {group.name: group.size for group in groups(graphs("uneven stack")) if "mlp" in group.name}
    assert names == {"blocks.0,2.mlp.0": 20, "blocks.1.mlp.0": 24}


def test_nested_numbers_name_only_blocks_there_are(graphs: Graphs) -> None:
    names = [group.name for group in groups(graphs("stages")) if group.fixed is None]
    assert names == ["layer1.0–1.0", "layer2.0–2.0"]


def test_a_concatenation_is_known(graphs: Graphs) -> None:
    found = {group.name: group.role for group in groups(graphs("joined")) if group.fixed is None}
    assert found == {"stem": "concatenated", "layers.0–3": "concatenated", "layers.4": "concatenated"}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_axis_is_in_one_group_and_every_group_is_alike(graphs: Graphs, name: str) -> None:
    graph = graphs(name)
    found = groups(graph)
    assert sorted(axis for group in found for axis in group.axes) == sorted(graph.axes)
    for group in found:
        assert {(graph.axes[axis].size, graph.axes[axis].fixed) for axis in group.axes} == {(group.size, group.fixed)}
        assert len({len(graph.axes[axis].members) for axis in group.axes}) == 1 or name == "joined"


@pytest.mark.parametrize("name", NETWORKS)
def test_shares_are_of_what_the_axes_take_part_in_together(graphs: Graphs, name: str) -> None:
    graph = graphs(name)
    alone = axis_shares(graph)
    assert {group.name: group.macs for group in groups(graph, each=True)} == pytest.approx(alone)
    for group in groups(graph):
        assert max(alone[axis] for axis in group.axes) <= group.macs + 1e-12
        assert group.macs <= min(1, sum(alone[axis] for axis in group.axes)) + 1e-12
        assert 0 <= group.params <= 1
        if "mlp" in group.name:  # no layer touches two of them
            assert group.macs == pytest.approx(sum(alone[axis] for axis in group.axes))


def test_shares_of_the_parameters_by_hand(graphs: Graphs) -> None:
    """Of the MLPs of two blocks: two matrices of 12 x 20 and a bias of 20 each. Statistics are none."""
    total = sum(parameter.numel() for parameter in NETWORKS["stack"]()[0].parameters())
    found = {group.name: group.params * total for group in groups(graphs("stack"))}
    assert found["blocks.0–1.mlp.0"] == pytest.approx(2 * (2 * 12 * 20 + 20))
    assert found["embed[0]"] == pytest.approx(50 * 12)
    assert found["head"] == pytest.approx(12 * 5 + 5)
    total = sum(parameter.numel() for parameter in NETWORKS["pictures"]()[0].parameters())
    assert groups(graphs("pictures"))[-1].params * total == pytest.approx(64 * 10 + 10)


def test_layers_are_said_inside_the_block(graphs: Graphs) -> None:
    found = {group.name: group.layers for group in groups(graphs("stack"))}
    assert found["blocks.0–1.attn.q[0]"] == (".attn.q", ".attn.k", ".attn.v", ".attn.out")
    assert found["blocks.0–1.mlp.0"] == (".mlp.0,2",)
    assert "blocks.0–1.norm1" in found["embed[1]"]


def test_reasons_gather_what_is_fixed(graphs: Graphs) -> None:
    found = reasons(groups(graphs("stack")))
    assert {reason: [group.name for group in held] for reason, held in found.items()} == {
        "its rows are chosen by the input (a vocabulary)": ["embed[0]"],
        "it is a size of the output": ["head"],
    }


def test_wires_lead_from_axis_to_axis(graphs: Graphs) -> None:
    wires = {wire.name: wire for wire in wiring(graphs("stack"))}
    q, out = wires["blocks.0.attn.q"], wires["blocks.0.attn.out"]
    assert (q.reads, q.writes) == (("embed[1]",), ("blocks.0.attn.q[0]", "blocks.0.attn.q[1]"))
    assert (set(out.reads), out.writes) == ({"blocks.0.attn.q[0]", "blocks.0.attn.v"}, ("embed[1]",))
    attention = wires["blocks.0.attn"]
    assert (attention.reads, attention.writes) == (("blocks.0.attn.q[1]",), ())
    assert attention.passes == ("blocks.0.attn.q[0]", "blocks.0.attn.v")
    assert (wires["embed"].reads, wires["embed"].writes) == (("embed[0]",), ("embed[1]",))
    assert not any("norm" in name for name in wires)


def test_a_trunk_is_a_sum_and_no_product(graphs: Graphs) -> None:
    assert roles(graphs("gated")) == {"up": "inner", "squeeze": "inner", "down": "trunk"}


def test_only_free_axes_are_called_inner(graphs: Graphs) -> None:
    graph = graphs("pictures")
    assert {name for name, role in roles(graph).items() if role == "inner"} == {
        name for name in graph.free if name.endswith("conv1")
    }
