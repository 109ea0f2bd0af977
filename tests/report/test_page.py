import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from metaprune.report import picture, words
from metaprune.report.page import render
from metaprune.report.report import Report

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and gathers what the tests ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: list[tuple[str, list[list[str]]]] = []
        self.section = ""
        self.lonely_tables = 0
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs)["aria-labelledby"] or ""
        if tag == "table":
            self.tables.append((self.section, []))
        if tag == "tr":
            self.tables[-1][1].append([])
        if tag in ("td", "th"):
            self.tables[-1][1][-1].append("")
        if tag == "table":
            self.lonely_tables += ("class", "scroll") not in self.parent
        self.parent = attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += f" {data}"
        if {"td", "th"} & set(self.open):
            cells = self.tables[-1][1][-1]
            cells[-1] = " ".join(f"{cells[-1]} {data}".split())

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    def rows(self, section: str, table: int = 0) -> list[list[str]]:
        """The cells of a table of a section, without its head."""
        return [rows for where, rows in self.tables if where == section][table][1:]


def test_page_is_well_formed(report: Report) -> None:
    html = render(report)
    assert html.lstrip().startswith("<!doctype html>")
    page = Page(html)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["aria-labelledby"] for tag, attrs in page.tags if tag == "section"} == set(ids)


def test_page_asks_nothing_of_the_network(report: Report) -> None:
    html = render(report)
    for tag, attrs in Page(html).tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert (attrs.get(name) or "data:,") == "data:,", (tag, name)
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttpRequest|//cdn", html)
    assert "default-src 'none'" in html


def test_key_figures_stand_in_their_columns(small: Report) -> None:
    report = with_further(small)
    assert [row[:4] for row in Page(render(report)).rows("figures")] == [
        ["MACs", "40.8 M", "20.3 M", "×0.50"],
        ["Parameters", "272 k", "150 k", "×0.55"],
        ["Weights on disk", "1.10 MB", "612 kB", "×0.56"],
        ["accuracy (%) test split, higher is better", "85.35", "85.02", "−0.33"],
        ["F1 test split", "0.8470", "0.8300", "−0.0170"],
        ["Latency median and spread", "47.3 ms spread 1.1 ms", "33.6 ms spread 0.90 ms", "×0.71"],
    ]


def test_key_figures_where_the_news_is_bad(deep: Report) -> None:
    rows = [row[:4] for row in Page(render(deep)).rows("figures")]
    assert rows[2:] == [
        ["Weights on disk", "102 MB", "36.2 MB", "×0.35"],
        ["perplexity val split, lower is better", "3.412", "3.907", "+0.495"],
        ["Latency", "not measured", "not measured", ""],
    ]


def test_a_time_inside_the_spread_has_no_ratio(small: Report) -> None:
    assert small.pruned.latency
    slow = replace(small.pruned.latency, median_ms=46.3)
    page = Page(render(replace(small, pruned=replace(small.pruned, latency=slow))))
    assert page.rows("figures")[-1][1:4] == ["47.3 ms spread 1.1 ms", "46.3 ms spread 0.90 ms", "within the spread"]
    assert "Measured in turns: within the spread (batch 128, cpu, 2 threads, 32-true, contiguous tensors" in page.words


def test_exact_numbers_are_tips_of_their_cells(small: Report) -> None:
    page = Page(render(small))
    tips = [attrs["title"] for tag, attrs in page.tags if tag == "td" and "title" in attrs]
    figures = [
        f"{n:,}" for one in ("macs", "params", "bytes") for n in (getattr(small.dense, one), getattr(small.pruned, one))
    ]
    assert tips[:6] == figures


def test_every_arm_has_a_row(small: Report) -> None:
    """Its speed is against the dense network that was timed in turns with it."""
    *arms, last = small.arms
    assert last.figures.latency
    beside = replace(last, dense_latency=replace(last.figures.latency, median_ms=3 * last.figures.latency.median_ms))
    assert Page(render(replace(small, arms=(*arms, beside)))).rows("comparison") == [
        ["dense 8 epochs", "40.8 M 1.00", "272 k 1.10 MB", "85.35", "47.3 ms 1.1 ms", "-"],
        ["DHP 8 epochs", "20.3 M 0.50", "150 k 612 kB", "85.02 −0.33", "33.6 ms 0.90 ms", "1.4× faster"],
        ["magnitude 8 epochs", "20.4 M 0.50", "142 k 579 kB", "85.27 −0.08", "34.0 ms 1.3 ms", "1.4× faster"],
        ["uniform 8 epochs", "20.4 M 0.50", "137 k 560 kB", "83.91 −1.44", "33.1 ms 0.80 ms", "3.0× faster"],
    ]


def test_every_axis_has_a_row_and_a_strip_or_a_bar(report: Report) -> None:
    page = Page(render(report))
    assert page.rows("widths") == [
        [
            axis.name,
            str(axis.before),
            str(axis.after),
            words.share(axis.after, axis.before),
            f"{100 * axis.macs_share:.1f} % of MACs",
            ", ".join(axis.members),
        ]
        for axis in report.axes
    ]
    free = [axis for axis in report.axes if axis.fixed is None]
    inside = page.words.partition("What was cut")[2].partition("Every axis with its tensors")[0]
    said = re.findall(r"(\d+) (whole|to (\d+))\b(?! channels)", inside)
    assert sorted((int(before), int(after or before)) for before, _, after in said) == sorted(
        (axis.before, axis.after) for axis in free
    )
    kept, all_of_them = (sum(getattr(axis, when) for axis in free) for when in ("after", "before"))
    assert f"{kept:,} of {all_of_them:,} channels on {len(free)} axes stay." in inside


def test_axes_of_equal_blocks_stand_under_one_name(deep: Report) -> None:
    html = render(deep)
    lots = re.findall(r'<li><span class="mono">(.*?)</span>(.*?)</ul>', html.partition('class="lots"')[2], re.DOTALL)
    rows = {
        (name, label): (before, after)
        for name, inner in lots
        for label, before, after in re.findall(
            r'class="mono">(.*?)<.*?"widths">(\d+)(?: whole| to <b>(\d+)</b>)', inner
        )
    }
    named = {axis.name: axis for axis in deep.axes if axis.fixed is None}
    assert rows["features.1.block.0–6,8–9.conv", "3"] == (
        str(named["features.1.block.3.conv"].before),
        str(named["features.1.block.3.conv"].after),
    )
    assert len(rows) == len(named)


def test_what_must_stay_whole_is_said_not_to_be_counted(deep: Report) -> None:
    free = tuple(axis for axis in deep.axes if axis.fixed is None)
    assert "What must stay whole is not counted" in render(deep)
    assert "What must stay whole" not in render(replace(deep, axes=free))


def test_every_layer_has_a_row(report: Report) -> None:
    assert Page(render(report)).rows("layers") == [
        [
            layer.name,
            layer.operator,
            words.count(layer.macs_before),
            words.count(layer.macs_after),
            words.share(layer.macs_after, layer.macs_before),
        ]
        for layer in report.layers
    ]


def test_every_epoch_has_a_row(small: Report) -> None:
    rows = Page(render(small)).rows("training")
    assert rows[0] == ["0.5", "search", "0.8750", "81.20", "0.93"]
    assert rows[-1] == ["8", "fine-tuning", "0.3600", "84.88", "-"]
    assert [float(row[0]) for row in rows] == [epoch.epoch for epoch in small.history]


def test_alignment_has_a_row_for_each_network(small: Report) -> None:
    assert Page(render(small)).rows("alignment") == [
        ["dense", "40.8 M", "47.3 ms spread 1.1 ms", ""],
        ["any width", "20.0 M", "58.9 ms spread 1.4 ms", "1.2× slower"],
        ["multiples of 8", "20.3 M", "33.6 ms spread 0.90 ms", "1.4× faster"],
    ]


def test_bars_are_as_long_as_their_figures(small: Report) -> None:
    html = render(small)
    pairs = re.findall(r'class="pair( worse)?" style="width:([\d.]+)%', html)
    longest = [float(length) for _, length in pairs[::2]], [float(length) for _, length in pairs[1::2]]
    assert longest[0] == [100.0] * 4
    was = (small.dense.macs, small.dense.params, small.dense.bytes, 47.3)
    now = (small.pruned.macs, small.pruned.params, small.pruned.bytes, 33.6)
    assert longest[1] == pytest.approx([100 * new / old for new, old in zip(now, was, strict=True)], abs=0.01)


def test_strings_are_said(report: Report) -> None:
    text = Page(render(report)).words
    strings = [*report.notes, *report.commands, report.reference, report.budget]
    for name, value in {**report.settings, **report.environment}.items():
        strings.append(f"{name} {value}")
    for axis in report.axes:
        strings += [f"fixed: {axis.fixed}"] * (axis.fixed is not None)
    for string in strings:
        assert " ".join(string.split()) in text


def with_further(report: Report) -> Report:
    """With a metric beside the one that chooses."""
    dense, pruned = (replace(f, further={"F1": v}) for f, v in ((report.dense, 0.847), (report.pruned, 0.83)))
    return replace(report, dense=dense, pruned=pruned)


def test_names_are_escaped(deep: Report) -> None:
    hostile = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    axes = tuple(replace(axis, name=f"{hostile}{i}", members=(hostile,)) for i, axis in enumerate(deep.axes))
    layers = tuple(replace(layer, name=hostile) for layer in deep.layers)
    epochs = tuple(replace(epoch, phase=hostile) for epoch in deep.history)
    report = replace(deep, data=hostile, budget=hostile, commands=(hostile,), notes=(hostile,), reference=hostile)
    report = replace(report, axes=axes, layers=layers, history=epochs, settings={hostile: hostile})
    page = Page(render(replace(report, metric_name=hostile, environment={hostile: hostile})))
    assert [tag for tag, _ in page.tags if tag in ("script", "img")] == ["script"]
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_narrow_screens_do_not_overflow(report: Report) -> None:
    html = render(report)
    page = Page(html)
    assert page.lonely_tables == 0
    assert any(attrs.get("content") == "width=device-width, initial-scale=1" for _, attrs in page.tags)
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert "overflow-wrap: anywhere" in style
    sizes = re.findall(r"(?<![\w-])(?:min-)?width: *([\d.]+)(px|em|rem)", re.sub(r"@media[^{]*", "", style))
    assert all(float(size) * (1 if unit == "px" else 16) <= 358 for size, unit in sizes)
    for columns in re.findall(r"grid-template-columns: ([^;]*);", style):
        for size in re.findall(r"(?<![\d(, ])\b(\d+)px", columns):
            assert int(size) <= 208
    cells = [float(m) for m in re.findall(r"--narrow:([\d.]+)px", html)]
    assert all(cell * max(axis.before for axis in report.axes) <= 341 for cell in cells)


def test_figures_and_tables_speak_to_screen_readers(report: Report) -> None:
    page = Page(render(report))
    for tag, attrs in page.tags:
        if tag == "svg" or "plot" in (attrs.get("class") or "").split():
            assert attrs.get("aria-hidden") == "true" or (attrs.get("role") == "img" and attrs.get("aria-label"))
        if tag == "th":
            assert attrs.get("scope") in ("row", "col")


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_has_contrast(small: Report, theme: int) -> None:
    roots = re.findall(r":root \{(.*?)\}", render(small), flags=re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", roots[theme]))
    for behind in ("paper", "panel"):
        for ink in ("ink", "muted", "kept", "bad"):
            low, high = sorted([luminance(colours[behind]), luminance(colours[ink])])
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, behind)


def test_the_graph_is_drawn_for_desk_and_hand(report: Report) -> None:
    page = Page(render(report))
    drawn = [attrs for tag, attrs in page.tags if tag == "svg" and attrs.get("class") == "cg"]
    assert [float(attrs["width"] or 0) <= room for attrs, room in zip(drawn, (846, 358), strict=True)] == [True, True]
    assert "How the axes run through the network" in page.words
    assert "How the axes run" not in Page(render(replace(report, wiring=()))).words


def test_a_bare_report_has_a_page(small: Report) -> None:
    nothing = replace(small.dense, metric=None, latency=None, macs=0, params=0, bytes=0)
    bare = replace(small, dense=nothing, pruned=nothing, before_cut=None, after_cut=None, dense_val=None)
    bare = replace(bare, axes=(), layers=(), history=(), arms=(), alignment=None, notes=(), commands=())
    text = Page(render(replace(bare, settings={}, environment={}))).words
    assert "Nothing was trained" in text
    assert "accuracy not measured" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_do_not_break_it(small: Report, value: float) -> None:
    history = (replace(small.history[0], metric=value, loss=value), *small.history[1:])
    broken = replace(small, history=history, after_cut=value, dense_val=value)
    html = render(replace(broken, pruned=replace(small.pruned, metric=value)))
    assert not any(re.search("nan|inf", path) for path in re.findall(r' d="([^"]*)"', html))
    assert "no longer finite" in html


def test_strip_draws_each_channel_once() -> None:
    drawn = picture.strip(5, (0, 3))
    places = [[float(place) for place in re.findall(r"M([\d.]+) ", path)] for path in (drawn.kept, drawn.cut)]
    assert places == [[0.07, 3.07], [1.07, 2.07, 4.07]]


def test_skyline_names_what_neighbours_share() -> None:
    names = ["net.stem", *(f"net.layer{i}.{j}" for i in (1, 2) for j in range(20))]
    drawn = picture.skyline([(name, 8.0, 4.0 if "2" in name else 2.0, name) for name in names])
    column = 100 / 41
    assert [group[0] for group in drawn.groups] == ["stem", "layer1", "layer2"]
    places = [place for _, *both in drawn.groups for place in both]
    assert places == pytest.approx([0, column, column, 20 * column, 21 * column, 20 * column])
    assert [bar.before for bar in drawn.bars] == [100] * 41
    assert [bar.after for bar in drawn.bars[:2]] == [25, 25]
    assert (drawn.bars[3].after, drawn.bars[-1].after, drawn.bars[-1].label) == (50, 50, "net.layer2.19")
    assert drawn.bars[-1].x == pytest.approx(40.09 * column)


def test_curves_by_hand(small: Report) -> None:
    """The metric goes from 85.1 (dense) to 76.6 and back, with a margin of 0.08 of that; eight epochs."""
    drawn = picture.curves(small)
    assert drawn
    assert [(phase.left, phase.width) for phase in drawn.phases] == [(0, 37.5), (37.5, 62.5)]
    assert drawn.ticks == tuple((12.5 * epoch, f"{epoch}") for epoch in range(9))
    high, low = 85.1 + 0.68, 76.6 - 0.68

    def height(metric: float) -> float:
        return round(100 * (high - metric) / (high - low), 2)

    assert drawn.metric.level == height(85.1)
    assert drawn.metric.cut == ((37.5, height(79.6)), (37.5, height(79.58)))
    assert drawn.metric.end == (100, height(84.88))
    assert drawn.metric.ticks == ((height(80), "80"), (height(85), "85"))
    assert drawn.metric.line.startswith(f"M0 {height(85.1):g}L6.25 {height(81.2):g}L12.5 ")
    assert f"L37.5 {height(79.6):g}L37.5 {height(79.6):g}L37.5 {height(79.58):g}L50 " in drawn.metric.line
    assert drawn.macs
    assert drawn.macs.line == "M0 0L6.25 7L12.5 19L18.75 34L25 45L31.25 50L37.5 50.28L37.5 50.28L100 50.28"
    assert picture.curves(replace(small, history=())) is None


def test_curve_drops_at_the_cut(small: Report, deep: Report) -> None:
    searched, cut_at_once = picture.curves(small), picture.curves(deep)
    assert searched
    assert cut_at_once
    assert [phase.name for phase in searched.phases] == ["search", "fine-tuning"]
    assert [x for x, _ in searched.metric.cut] == [37.5, 37.5]
    assert [x for x, _ in cut_at_once.metric.cut] == [0, 0]
    assert cut_at_once.macs is None
