"""What a graph says of itself where it is the last line of a cell."""

import torch
from torch import nn

import metaprune as mp
from metaprune.graph.notebook import MOST, html_table


def test_a_graph_is_short() -> None:
    model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
    graph = mp.trace(model, (torch.randn(2, 3),))
    assert repr(graph) == "ChannelGraph(1 of 3 axes free; 98.0% of the parameters on them; print it for a table)"
    shown = graph._repr_html_()
    assert shown.count("<tr>") == 4
    assert "0.weight:0" in shown


def test_a_table_says_the_first_members_and_how_many_more() -> None:
    model = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Linear(16, 2)).eval()
    graph = mp.trace(model, (torch.randn(2, 3),))
    assert len(graph.axes["0"].members) == 7
    [line] = [line for line in str(graph).splitlines() if line.startswith("0 ")]
    assert line.split(maxsplit=2) == ["0", "16", "0.weight:0, 0.bias:0, 1.weight:0, 1.bias:0 and 3 more"]


def test_nothing_is_taken_for_markup_and_long_tables_end() -> None:
    shown = html_table("<a>", ("<b>",), [["<c>"]] * (MOST + 3))
    assert not any(mark in shown for mark in ("<a>", "<b>", "<c>"))
    assert shown.count("<tr>") == MOST + 1
    assert "and 3 more" in shown
