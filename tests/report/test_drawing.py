import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest

import metaprune as mp
from metaprune.graph.errors import PlanError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.term import Axis
from metaprune.report.drawing import draw, draw_report, figure
from metaprune.report.report import Report
from metaprune.report.summary import Wire, groups, wiring
from tests.report.conftest import NETWORKS
from tests.report.test_page import luminance

Graphs = Callable[[str], ChannelGraph]
SVG = "{http://www.w3.org/2000/svg}"


class Picture:
    """The parts of a picture."""

    def __init__(self, svg: str) -> None:
        self.root = ElementTree.fromstring(svg)
        self.words = [text.text or "" for text in self.root.iter(f"{SVG}text")]
        self.tips = [title.text or "" for title in self.root.iter(f"{SVG}title")]
        self.lanes = {
            (lane.findtext(f"{SVG}title") or "").partition(": ")[0]: [
                (rect.attrib["class"], *(float(rect.attrib[key]) for key in ("x", "y", "width", "height")))
                for rect in lane.iter(f"{SVG}rect")
            ]
            for lane in self.root.iter(f"{SVG}g")
        }

    @property
    def size(self) -> tuple[float, float]:
        return float(self.root.attrib["width"]), float(self.root.attrib["height"])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_picture_is_xml_that_asks_for_nothing(graphs: Graphs, name: str) -> None:
    svg = figure(graphs(name), name=f'a <b> & "{name}"')
    picture = Picture(svg)
    assert f'a <b> & "{name}"' in picture.root.attrib["aria-label"]
    assert not re.search(r"url\(|@import|href|<script|<image", svg.replace(SVG[1:-1], ""))
    assert "prefers-color-scheme: dark" in svg


@pytest.mark.parametrize("name", NETWORKS)
def test_every_axis_that_a_layer_touches_is_on_a_lane(graphs: Graphs, name: str) -> None:
    graph = graphs(name)
    picture = Picture(figure(graph))
    touched = {axis for wire in wiring(graph) for axis in (*wire.reads, *wire.writes)}
    assert touched <= graph.axes.keys()
    for group in groups(graph):
        if len(group.axes) == 1 and group.axes[0] in touched:
            assert group.name in picture.lanes
            assert any(word.startswith(f"{group.size:,}") for word in picture.words)


def test_repeated_blocks_are_drawn_once(graphs: Graphs) -> None:
    shallow, deep = Picture(figure(graphs("stack"))), Picture(figure(graphs("deep stack")))
    assert "blocks.0–1 × 2" in shallow.words
    assert "blocks.0–4 × 5" in deep.words
    assert shallow.size == deep.size
    assert [word for word in shallow.words if "blocks" not in word] == [w for w in deep.words if "blocks" not in w]
    assert {"attn.q, k", "attn.v", "attn", "attn.out", "mlp.0", "mlp.2", "heads", "head size"} <= set(deep.words)


def test_blocks_of_a_residual_network_are_told(graphs: Graphs) -> None:
    words = Picture(figure(graphs("pictures"))).words
    assert [word for word in words if "×" in word] == ["stage1.0–2 × 3", "stage2.1–2 × 2", "stage3.1–2 × 2"]
    assert "stage2.0.shortcut.0" in words
    assert "stage2.1.conv1" not in words


def test_blocks_that_read_ever_more_are_drawn_once(graphs: Graphs) -> None:
    picture = Picture(figure(graphs("joined")))
    assert len(picture.lanes) == len({"x:1", "stem", "layers.0", "layers.1–3", "layers.4", "head"})
    assert any("× 3" in word for word in picture.words)


def test_what_only_copies_read_is_on_the_lane_of_the_first(graphs: Graphs) -> None:
    picture = Picture(figure(graphs("tables")))
    assert "tables.0–3[0]" in picture.lanes
    assert any("× 4" in word for word in picture.words)


def test_blocks_that_differ_are_drawn_each(graphs: Graphs) -> None:
    words = Picture(figure(graphs("uneven stack"))).words
    assert not any("×" in word for word in words)
    assert {"20", "24"} <= set(words)


def test_lanes_are_as_wide_as_they_have_channels(graphs: Graphs) -> None:
    lanes = Picture(figure(graphs("pictures"))).lanes
    widths = [lanes[name][0][3] for name in ("conv", "stage2.0.conv2", "stage3.0.conv2")]
    assert widths == pytest.approx([widths[2] / 4, widths[2] / 2, widths[2]])
    assert lanes["conv"][0][0] == "cg-trunk"
    assert lanes["stage1.0–2.conv1"][0][0] == "cg-inner"
    assert lanes["fc"][0][0] == "cg-fixed"


def test_lanes_do_not_cover_one_another(graphs: Graphs) -> None:
    for name in NETWORKS:
        boxes = [box for lane in Picture(figure(graphs(name))).lanes.values() for box in lane]
        for index, (_, x, y, width, height) in enumerate(boxes):
            for _, u, v, wide, tall in boxes[:index]:
                apart = x + width <= u or u + wide <= x or y + height <= v + 0.11 or v + tall <= y + 0.11
                assert apart, name


def test_a_plan_shows_what_stays(graphs: Graphs) -> None:
    graph = graphs("pictures")
    plan = mp.Plan({"conv": range(4), **{f"stage1.{i}.conv1": range(2 + 2 * i) for i in range(3)}})
    picture = Picture(figure(graph, plan))
    whole, kept = picture.lanes["conv"]
    assert (whole[0], kept[0]) == ("cg-trunk cg-gone", "cg-trunk")
    assert kept[3] == pytest.approx(whole[3] / 4)
    assert {"4 of 16", "2–6 of 16", "cut"} <= set(picture.words)
    assert len(picture.lanes["stage2.0.conv2"]) == 1
    assert "cut" not in Picture(figure(graph)).words


def test_a_plan_of_another_network_is_refused(graphs: Graphs) -> None:
    with pytest.raises(PlanError, match="no axis 'nowhere'"):
        figure(graphs("stack"), mp.Plan({"nowhere": [0]}))


def test_a_report_is_drawn_as_wide_as_there_is_room(small: Report) -> None:
    for width in (846, 358):
        drawn = draw_report(small, width)
        assert drawn is not None
        assert float(ElementTree.fromstring(drawn).attrib["width"]) <= width


def test_a_report_without_layers_has_no_picture(small: Report) -> None:
    assert draw_report(replace(small, wiring=()), 846) is None


def test_layers_of_a_report_that_name_unknown_axes_are_left_out(small: Report) -> None:
    drawn = draw_report(replace(small, wiring=(*small.wiring, Wire("odd", "linear", ("nowhere",), ()))), 846)
    assert drawn is not None
    assert ">odd" not in drawn
    assert ">fc" in drawn


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_words_have_contrast(graphs: Graphs, theme: int) -> None:
    svg = figure(graphs("stack"))
    colours = [dict(re.findall(r"--cg-(\w+): (#\w{6})", part)) for part in svg.split("@media")][theme]
    for behind in ("paper", "block"):
        for ink in ("ink", "soft", "trunk", "inner", "heads"):
            low, high = sorted([luminance(colours[behind]), luminance(colours[ink])])
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, behind)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_ends_below_what_is_lowest_and_words_stand_beside_their_signs(graphs: Graphs, name: str) -> None:
    root = ElementTree.fromstring(figure(graphs(name)))
    height = float(root.attrib["viewBox"].split()[3])
    rects = [each for each in root.iter() if each.tag.endswith("rect") and "y" in each.attrib]
    texts = [each for each in root.iter() if each.tag.endswith("text")]
    feet = [float(rect.attrib["y"]) + float(rect.attrib["height"]) for rect in rects]
    feet += [float(text.attrib["y"]) for text in texts]
    assert max(feet) < height < max(feet) + 30
    top, bottom = float(rects[0].attrib["y"]), feet[0]
    words = next(text for text in texts if text.attrib["class"] == "cg-soft")
    assert (top + bottom) / 2 < float(words.attrib["y"]) <= bottom


def test_long_names_take_two_lines_in_a_hand() -> None:
    """Of those that are longer still the middle goes: their ends tell them apart."""
    axes = {name: Axis(name, 8, None, ()) for name in "abcde"}
    names = [f"network.encoder.embeddings.{name}_embeddings" for name in ("token_type", "position", "word")]
    names.append("network.decoder.out")
    wires = [Wire(name, "linear", (a,), (b,)) for name, (a, b) in zip(names, itertools.pairwise("abcde"), strict=True)]

    def drawn(width: int) -> list[tuple[str, float]]:
        texts = ElementTree.fromstring(draw(axes, {}, wires, width=width)).iter("text")
        return [(text.text or "", float(text.attrib["y"])) for text in texts if text.attrib["class"] == "cg-mono"]

    words = [word for word, _ in drawn(358)]
    assert words[:2] == ["network.encoder.embeddings.", "token_type_embeddings"]
    assert words[4:] == ["network.encoder.embeddings.", "word_embeddings", "network.decoder.out"]
    smallest = [word for word, _ in drawn(200)]
    assert smallest[0] == "network.encoder."
    assert smallest[1].startswith("…")
    assert names[0].endswith(smallest[1][1:])
    assert len({" ".join(pair) for pair in zip(smallest[::2], smallest[1::2], strict=True)}) == 4
    for width in (358, 200):
        assert all(below - above >= 11 for (_, above), (_, below) in itertools.pairwise(drawn(width)))
    assert "".join(word for word, _ in drawn(846)) == "".join(names)


def test_words_beside_a_lane_are_read_downwards(graphs: Graphs) -> None:
    runs: list[list[float]] = []
    for name in NETWORKS:
        for each in ElementTree.fromstring(figure(graphs(name))):
            if each.tag.endswith("}g"):
                runs.append([])
            elif each.attrib.get("class", "").endswith("-ink") and runs:
                runs[-1].append(float(each.attrib["y"]))
    several = [run for run in runs if len(run) > 1]
    assert len(several) > 5
    assert all(below - above >= 10 for run in several for above, below in itertools.pairwise(run))


def test_the_legend_shows_what_was_cut_as_it_is_drawn(graphs: Graphs) -> None:
    root = ElementTree.fromstring(figure(graphs("pictures"), mp.Plan({"conv": range(4)})))
    signs: dict[str, str] = {}
    for sign, words in itertools.pairwise(root):
        if words.tag.endswith("text") and sign.tag.endswith("rect"):
            signs.setdefault(words.text or "", sign.attrib["class"])
    assert signs.pop("cut") == "cg-trunk cg-gone"
    assert signs
    assert not any("gone" in kind for kind in signs.values())
