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
        self.lonely_tables = 0
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
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

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


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


def test_every_figure_is_there(report: Report) -> None:
    page = Page(render(report))
    html, text = render(report), page.words
    for figures in (report.dense, report.pruned, *(arm.figures for arm in report.arms)):
        assert words.count(figures.macs) in text
        assert f"{figures.macs:,}" in html
        assert words.count(figures.params) in text
        assert words.byte_size(figures.bytes) in text
        assert words.metric(report, figures.metric) in text
        if figures.latency:
            assert words.milliseconds(figures.latency) in text
            assert words.spread(figures.latency) in text
    for axis in report.axes:
        assert axis.name in text
        assert axis.fixed is None or axis.fixed in text
        assert axis.fixed is not None or axis.after == axis.before or f"{axis.before} to {axis.after}" in text
        assert all(member in text for member in axis.members)
    for layer in report.layers:
        assert words.count(layer.macs_before) in text
        assert words.count(layer.macs_after) in text
    for epoch in report.history:
        assert words.metric(report, epoch.metric) in text
    if report.pruned.latency:
        assert words.measured(report.pruned.latency) in text
    if report.alignment:
        assert words.count(report.alignment.macs_unaligned) in text
        assert words.milliseconds(report.alignment.latency_unaligned) in text
    strings = [*report.notes, *report.commands, report.reference, report.budget]
    for name, value in {**report.settings, **report.environment}.items():
        strings += [name, value]
    for string in strings:
        assert " ".join(string.split()) in text


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
    assert [drawn.kept.count("M"), drawn.cut.count("M")] == [2, 3]


def test_skyline_names_what_neighbours_share() -> None:
    names = ["net.stem", *(f"net.layer{i}.{j}" for i in (1, 2) for j in range(20))]
    drawn = picture.skyline([(name, 8.0, 4.0, name) for name in names])
    assert [group[0] for group in drawn.groups] == ["stem", "layer1", "layer2"]
    assert drawn.bars[0].before == 100
    assert drawn.bars[0].after == 50


def test_curve_drops_at_the_cut(small: Report, deep: Report) -> None:
    searched, cut_at_once = picture.curves(small), picture.curves(deep)
    assert searched
    assert cut_at_once
    assert [phase.name for phase in searched.phases] == ["search", "fine-tuning"]
    assert [x for x, _ in searched.metric.cut] == [37.5, 37.5]
    assert [x for x, _ in cut_at_once.metric.cut] == [0, 0]
    assert cut_at_once.macs is None
