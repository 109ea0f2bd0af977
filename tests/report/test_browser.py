"""Pages as a browser shows them: on a desk and in a hand, by day and by night (`make browser`)."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from metaprune.report.page import render
from metaprune.report.report import Report
from tests.report.runs import RUNS, run

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore")]

SCREENS = [(width, theme) for width in (390, 1400) for theme in ("light", "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium and its driver, both of the system: nothing is downloaded."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no driver: pip install 'metaprune[browser]'")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield opened
    opened.quit()


class Shown(NamedTuple):
    """A report, and the browser that shows its page."""

    report: Report
    browser: Any
    width: int
    theme: str

    def asked(self, script: str) -> Any:
        """What a script returns."""
        return self.browser.execute_script(script)


@pytest.fixture(
    scope="module",
    params=[(name, *screen) for name in RUNS for screen in SCREENS],
    ids=lambda param: "-".join(map(str, param)),
)
def shown(request: pytest.FixtureRequest, browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    name, width, theme = request.param
    report = run(name)
    page: Path = tmp_path_factory.mktemp(name) / "report.html"
    page.write_text(render(report), encoding="utf-8")
    sizes = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())
    return Shown(report, browser, width, theme)


def test_the_console_is_silent_and_the_script_ran(shown: Shown) -> None:
    shown.asked("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    buttons = shown.asked("return document.querySelectorAll('.command button').length")
    shown.asked("document.querySelectorAll('details').forEach(part => { part.open = false; })")
    assert buttons == len(shown.report.commands) == 1
    assert shown.browser.get_log("browser") == []


def test_the_theme_is_that_of_the_system(shown: Shown) -> None:
    colour = shown.asked("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour)[:3])) < 300) == (shown.theme == "dark")


def test_nothing_scrolls_sideways(shown: Shown) -> None:
    """Neither the page nor any part of it, but for tables that are folded away."""
    assert shown.asked("return innerWidth") == shown.width
    for part in ("document.documentElement", "document.body"):
        assert shown.asked(f"return {part}.scrollWidth") <= shown.width
    wide = """
        return [...document.querySelectorAll('.scroll')]
            .filter(part => part.checkVisibility() && !part.closest('details') && part.scrollWidth > part.clientWidth)
            .map(part => part.closest('section').innerText.slice(0, 40) + part.scrollWidth)
    """
    assert shown.asked(wide) == []


TEXTS = """
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode, own = node.parentElement;
        if (!node.data.trim() || !own.checkVisibility() || own.closest('title, script, style')) continue;
        if (own.closest('details') && !own.closest('summary')) continue;
        const range = document.createRange();
        range.selectNodeContents(node);
        const inside = [];
        for (let box = own; box; box = box.parentElement) {
            const hides = getComputedStyle(box).overflow !== 'visible' || box.tagName === 'svg';
            if (hides || box === document.documentElement)
                inside.push(box.getBoundingClientRect());
        }
        const style = getComputedStyle(own);
        for (const rect of range.getClientRects())
            found.push({
                words: node.data.trim(), seen: style.color !== 'rgba(0, 0, 0, 0)' || own.closest('svg') !== null,
                rect: [rect.left, rect.top, rect.right, rect.bottom],
                inside: inside.map(box => [box.left, box.top, box.right, box.bottom]),
            });
    }
    return found.filter(text => text.seen);
"""


def test_no_text_is_cut_off(shown: Shown) -> None:
    texts = shown.asked(TEXTS)
    assert len(texts) > 100
    for text in texts:
        left, top, right, bottom = text["rect"]
        assert -1 <= left <= right <= shown.width + 1, text
        for box in text["inside"]:
            assert box[0] - 2 <= left, text
            assert right <= box[2] + 2, text
            assert box[1] - 3 <= top, text
            assert bottom <= box[3] + 3, text


def test_no_text_lies_on_another(shown: Shown) -> None:
    texts = sorted((*text["rect"], text["words"]) for text in shown.asked(TEXTS))
    for place, (left, top, right, bottom, words) in enumerate(texts):
        for other in texts[place + 1 :]:
            if other[0] >= right - 2:
                break
            over = min(bottom, other[3]) - max(top, other[1])
            assert over < 4 or right - left < 1, (words, other[4], over)


def test_columns_are_of_bounded_height(shown: Shown) -> None:
    script = "return [...document.querySelectorAll('svg.skyline')].map(one => one.getBoundingClientRect().height)"
    assert all(100 <= height <= 220 for height in shown.asked(script))


def test_every_axis_has_a_name_of_its_own(shown: Shown) -> None:
    """Where equal blocks share a line, by the numbers in it."""
    script = """
        const own = [...document.querySelectorAll('.lots > li')].flatMap(lot =>
            [...lot.querySelectorAll('.list > li')].map(row =>
                [lot.querySelector('.mono').innerText, row.querySelector('.mono').innerText, row.innerText]));
        const strips = [...document.querySelectorAll('.strips > li')].map(row =>
            [row.querySelector('.mono').innerText, '', row.innerText]);
        return [...own, ...strips];
    """
    rows = shown.asked(script)
    free = [axis for axis in shown.report.axes if axis.fixed is None]
    assert len({(name, label) for name, label, _ in rows}) == len(rows) == len(free)
    widths = sorted(re.findall(r"\d+ (?:to \d+|whole)", row)[-1] for _, _, row in rows)
    said = (f"{a.before} whole" if a.before == a.after else f"{a.before} to {a.after}" for a in free)
    assert widths == sorted(said)


def number(text: str) -> float:
    """12.7 ms → 12.7; −0.88 → -0.88."""
    found = re.search(r"[-−]?[\d.]+", text)
    assert found, text
    return float(found[0].replace("−", "-"))


def test_the_figures_of_the_headline_are_those_of_the_table(shown: Shown) -> None:
    cells = """
        return [...document.querySelectorAll('.figures tbody tr')].map(row =>
            [...row.children].slice(0, 4).map(cell => cell.firstChild ? cell.childNodes[0].textContent.trim() : ''));
    """
    table = {name: row for name, *row in shown.asked(cells)}
    headline = shown.asked("return document.querySelector('h1').innerText.replace(/\\s+/g, ' ')")
    dense, pruned, _ = table[shown.report.metric_name]
    assert f"keeps {number(table['MACs'][2][1:]):.2f} of its MACs" in headline
    if below := re.search(r"([\d.]+)(?: points| dB) below dense", headline):
        assert math.isclose(float(below[1]), number(dense) - number(pruned), abs_tol=0.06)
    elif against := re.search(r"([\d.]+) against ([\d.]+) \(dense was trained", headline):
        assert against.groups() == (pruned, dense)
    else:
        without = re.search(r"([\d.]+) dB \((.*)\) against ([\d.]+) dB", headline)
        assert without, headline
        assert without[3] == pruned
        assert f"Without a network ({without[2]}): {without[1]} dB" in shown.asked("return document.body.innerText")
    before, after, change = table["Latency"]
    if pace := re.search(r"([\d.]+)× (faster|slower)", headline):
        ratio = number(after) / number(before)
        assert math.isclose(float(pace[1]), ratio if pace[2] == "slower" else 1 / ratio, rel_tol=0.05)
        assert math.isclose(number(change[1:]), ratio, abs_tol=0.011)
    else:
        assert "within" in headline
        assert "within" in change
    if late := re.search(r"is missed: ([\d.]+) ms measured", headline):
        assert math.isclose(float(late[1]), number(after), rel_tol=0.01)
    assert (late is not None) == (shown.report.latency_bound is not None)
