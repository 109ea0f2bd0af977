"""The channel graph as a picture: axes are lanes that run down the network, layers are the lines between them.

A lane begins where a layer first writes the axis and ends where one last reads it; it is as wide as the axis has
channels. Blocks that repeat are drawn once. The picture is SVG text without scripts, fonts or references, in the
colours of the page, and knows the dark.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.term import Axis
from metaprune.report.paths import spans
from metaprune.report.report import Report
from metaprune.report.scene import Block, Lane, Line, Scene, compose, kind_of, stays, touches
from metaprune.report.summary import INNER, JOINED, TRUNK, Wire, roles, wiring

__all__ = ["draw", "draw_report", "figure"]

WIDE = 880
"""Width of a picture that stands alone, in pixels."""

_ROW, _HEAD, _LEGEND = 27, 25, 22
_LEAST, _TEXT, _MONO = 3.0, 6.2, 7.0
"""The narrowest lane, and the width of a letter in labels and in names."""

_SIGNS = {"read": "reads", "add": "adds", "same": "writes the same channels", "pass": "passes on"}


def figure(graph: ChannelGraph, plan: Plan | None = None, *, name: str = "") -> str:
    """Draw a graph, and what a plan leaves of it, as an SVG file.

    Args:
        graph: From `mp.trace`.
        plan: The channels that stay.
        name: What the network is called.

    Returns:
        The text of the file.

    Raises:
        PlanError: The plan does not fit the graph.
    """
    if plan is not None:
        plan.check(graph)
    svg = draw(
        graph.axes,
        roles(graph),
        wiring(graph),
        None if plan is None else plan.widths,
        name=name,
        width=WIDE,
    )
    style = (Path(__file__).parent / "templates" / "drawing.css").read_text(encoding="utf-8")
    head, body = svg.split(">", 1)
    paper = '<rect class="cg-paper" width="100%" height="100%"/>'
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{paper}{body}\n'


def draw_report(report: Report, width: int) -> str | None:
    """Draw what a report says of the graph and the cut; None if it does not know the layers."""
    if not report.wiring:
        return None
    axes = {row.name: Axis(row.name, row.before, row.fixed, row.members) for row in report.axes}
    widths = {row.name: row.after for row in report.axes}

    def known(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in axes)

    wires = [
        replace(wire, reads=known(wire.reads), writes=known(wire.writes), passes=known(wire.passes))
        for wire in report.wiring
    ]
    return draw(axes, report.roles, wires, widths, name=report.network, width=width)


def draw(
    axes: Mapping[str, Axis],
    known: Mapping[str, str],
    wires: Sequence[Wire],
    widths: Mapping[str, int] | None = None,
    *,
    name: str = "",
    width: int = WIDE,
) -> str:
    """Draw lanes and layers as an SVG element, without its style.

    Args:
        axes: Name -> axis, in order of execution.
        known: Name -> what the axis is for.
        wires: The layers, in order of execution.
        widths: Name -> the channels that stay; None where nothing was cut.
        name: What the network is called.
        width: How many pixels it may be wide; it is wider only where it would not be readable.
    """
    scene = compose(axes, known, wires, widths)
    return _paint(scene, name, width)


@dataclass(frozen=True)
class _Look:
    """Sizes in pixels that fit a width."""

    names: float
    lane: float
    words: bool
    operators: bool
    columns: tuple[float, ...]
    """Where the lanes of each column begin."""
    width: float


def _look(scene: Scene, width: int) -> _Look:
    """The largest of some looks that fits the width; the smallest, where none does."""
    titles = [len(_title(block)) + 1.5 * block.depth + 2 for block in scene.blocks]
    longest = max([len(line.label) + 1.5 * line.depth for line in scene.lines] + titles, default=0)
    operators = max((len(line.operator) for line in scene.lines), default=0) * _TEXT + 14
    for most, lane, words in ((320, 64, True), (240, 44, True), (170, 28, True), (128, 22, False), (100, 12, False)):
        names = min(longest * _MONO + 16, most)
        room = [0.0] * (max((lane.column for lane in scene.lanes.values()), default=0) + 1)
        for one in scene.lanes.values():
            label = max(map(len, _label(scene, one, words))) * _TEXT
            room[one.column] = max(room[one.column], _wide(scene, one, lane) + label + 20)
        columns, at = [], names + 18
        for space in room:
            columns.append(at)
            at += space
        if at <= width:
            break
    shown = at + operators <= width
    return _Look(names, lane, words, shown, tuple(columns), max(at + (operators if shown else 0), 320))


def _wide(scene: Scene, lane: Lane, most: float) -> float:
    """The width of a lane: as its channels are to those of the largest free axis."""
    top = max((axis.size for axis in scene.axes.values() if axis.fixed is None), default=1)
    return max(_LEAST, min(1.0, lane.axes[0].size / top) * most)


def _kept(scene: Scene, lane: Lane, most: float) -> float:
    """The width of what stays of a lane; of several axes, half-way between those that keep least and most."""
    return _wide(scene, lane, most) * sum(stays(scene, lane)) / 2 / lane.axes[0].size


def _label(scene: Scene, lane: Lane, words: bool) -> list[str]:
    """The size, or what stays of it, and what the axis is for: in two lines, where the lane is long enough."""
    axis = lane.axes[0]
    low, high = stays(scene, lane)
    text = f"{axis.size:,}"
    if low < axis.size:
        text = f"{low:,}" if low == high else f"{low:,}–{high:,}"
        text += f" of {axis.size:,}" if words else ""
    role = "fixed" if axis.fixed is not None else scene.roles.get(axis.name, INNER)
    if not words or role in (INNER, JOINED, TRUNK):  # the colours tell
        return [text]
    return [text, role] if lane.stop - lane.start > 1.4 else [f"{text} {role}"]


def _paint(scene: Scene, name: str, width: int) -> str:
    look = _look(scene, width)
    legend, used = _legend(scene, look.width)
    heads = {block: _HEAD + 12 * (len(_lines(_title(block), _title_room(block, look))) - 1) for block in scene.blocks}
    tops, y = [], used + 18.0
    for index in range(len(scene.lines)):
        y += sum(8.0 for block in scene.blocks if block.last == index - 1)
        y += sum(heads[block] for block in scene.blocks if block.first == index)
        tops.append(y + _ROW / 2)
        y += _ROW
    height = y + sum(8.0 for block in scene.blocks if block.last == len(scene.lines) - 1) + 14

    def at(row: float) -> float:
        """The height of a line; between two lines it is measured from the nearer one."""
        near = round(row)
        return tops[near] + (row - near) * _ROW

    parts = [legend]
    for block in scene.blocks:
        inside = [b for b in scene.blocks if b.first == block.first and b.depth >= block.depth]
        ends = [b for b in scene.blocks if b.last == block.last and b.depth > block.depth]
        top = tops[block.first] - _ROW / 2 - sum(heads[b] for b in inside) + 3
        bottom = tops[block.last] + _ROW / 2 + 5 + 6 * len(ends)
        x = 2 + 8.0 * block.depth
        parts.append(_rect("cg-block", x, top, look.width - 2 * x, bottom - top, 5))
        middle = top + 16 + (heads[block] - _HEAD) / 2
        parts += _named("cg-mono cg-strong", x + 8, middle, _title(block), _title_room(block, look))
    for lane in scene.lanes.values():
        x, wide = look.columns[lane.column], _wide(scene, lane, look.lane)
        kind, kept = kind_of(scene, lane), _kept(scene, lane, look.lane)
        top, tall = at(lane.start), at(lane.stop) - at(lane.start)
        bands = _rect(f"cg-{kind} cg-gone", x, top, wide, tall, 2) if kept < wide else ""
        bands += _rect(f"cg-{kind}", x, top, kept, tall, 2)
        parts.append(f"<g><title>{escape(_about(scene, lane))}</title>{bands}</g>")
        for place, words in enumerate(_label(scene, lane, look.words)):
            row = math.ceil(lane.start) + place
            below = top + 9 if row - place > lane.start and not place else at(row) + 17
            parts.append(_text(f"cg-{kind}-ink", x + wide + 5, below, words))
    for y, line in zip(tops, scene.lines, strict=True):
        x = 10 + 8.0 * line.depth
        parts += _named("cg-mono", x, y + 4, line.label, look.names - x, f"{line.label}: {line.operator}")
        if look.operators:
            parts.append(_text("cg-soft", look.width - 12, y + 4, line.operator, "end"))
        parts += _marks(scene, line, look, y)
    told = f"The channel graph{f' of {name}' if name else ''}: axes as lanes, layers as lines between them"
    return (
        f'<svg class="cg" viewBox="0 0 {_n(look.width)} {_n(height)}" width="{_n(look.width)}" height="{_n(height)}" '
        f'role="img" aria-label="{escape(told)}">{"".join(parts)}</svg>'
    )


def _title(block: Block) -> str:
    return f"{block.label} × {block.count}".strip()


def _title_room(block: Block, look: _Look) -> float:
    return look.names - 10 - 8.0 * block.depth


def _marks(scene: Scene, line: Line, look: _Look, y: float) -> Iterator[str]:
    """The line of a layer, and a sign where it touches a lane."""
    touched = [
        (lane, kind, look.columns[lane.column] + _kept(scene, lane, look.lane) / 2)
        for lane, kind in touches(scene, line)
    ]
    yield f'<path class="cg-wire" d="M{_n(look.names + 6)} {_n(y)}H{_n(max(x for _, _, x in touched))}"/>'
    for lane, kind, x in touched:
        if kind == "begin":
            start, wide = look.columns[lane.column], _wide(scene, lane, look.lane)
            yield f'<path class="cg-wire" d="M{_n(start - 2)} {_n(y)}h{_n(wide + 4)}"/>'
        else:
            yield _sign(kind, x, y)


def _sign(kind: str, x: float, y: float) -> str:
    """How a layer touches a lane: it reads it, passes it on, adds to it, or writes channels that must be the same."""
    if kind in ("read", "pass"):
        return f'<circle class="cg-{kind}" cx="{_n(x)}" cy="{_n(y)}" r="{4 if kind == "read" else 2.5}"/>'
    lines = (
        f"M{_n(x - 3)} {_n(y)}h6M{_n(x)} {_n(y - 3)}v6" if kind == "add" else f"M{_n(x - 3)} {_n(y - 1.7)}h6m-6 3.4h6"
    )
    return f'<circle class="cg-add" cx="{_n(x)}" cy="{_n(y)}" r="5.5"/><path class="cg-plus" d="{lines}"/>'


def _legend(scene: Scene, width: float) -> tuple[str, float]:
    """The key to colours and signs, in as many lines as it takes, and its height."""
    lanes = scene.lanes.values()
    kinds = {kind_of(scene, lane) for lane in lanes}
    entries = [
        (kind, words)
        for kind, words in (
            ("trunk", "trunk: a sum of layers"),
            ("inner", "inner axis"),
            ("heads", "heads and head sizes"),
            ("fixed", "fixed"),
        )
        if kind in kinds
    ]
    if any(stays(scene, lane)[0] < lane.axes[0].size for lane in lanes):
        entries.append(("gone", "cut"))
    used = {sign for line in scene.lines for _, sign in touches(scene, line)}
    entries += [(sign, words) for sign, words in _SIGNS.items() if sign in used]
    parts, x, y = [], 10.0, 16.0
    for kind, words in entries:
        space = 18 + len(words) * _TEXT + 14
        if x > 10 and x + space > width:
            x, y = 10.0, y + _LEGEND
        if kind in _SIGNS:
            parts.append(_sign(kind, x + 6, y))
        else:
            parts.append(_rect("cg-trunk cg-gone" if kind == "gone" else f"cg-{kind}", x, y - 5.5, 11, 11, 2))
        parts.append(_text("cg-soft", x + 17, y + 4, words))
        x += space
    return "".join(parts), y + 8


def _about(scene: Scene, lane: Lane) -> str:
    """The words that a pointer brings up."""
    axis = lane.axes[0]
    names = ", ".join(text for text, _ in spans(one.name for one in lane.axes))
    low, high = stays(scene, lane)
    left = "" if low == axis.size else f", of which {low:,}{f' to {high:,}' if high > low else ''} stay"
    role = scene.roles.get(axis.name, "")
    about = f"fixed: {axis.fixed}" if axis.fixed is not None else role
    return f"{names}: {axis.size:,} channels{left}{f' ({about})' if about else ''}"


def _named(kind: str, x: float, y: float, name: str, room: float, tip: str = "") -> Iterator[str]:
    """A name, on two lines where one is too short; `tip` is what a pointer brings up."""
    lines = _lines(name, room)
    tips = f"<title>{escape(tip)}</title>" if tip else ""
    for place, words in enumerate(lines):
        height = y + 12 * (place - (len(lines) - 1) / 2)
        yield f'<text class="{kind}" x="{_n(x)}" y="{_n(height)}">{escape(words)}{tips}</text>'


def _lines(name: str, room: float) -> list[str]:
    """A name in one or two lines, broken between its parts.

    Of a name that is longer still the middle goes: its beginning says where it is, its end what it is.
    """
    most = max(4, int(room / _MONO))
    if len(name) <= most:
        return [name]
    ends = [place + 1 for place, letter in enumerate(name[:most]) if letter in "._ "]
    fitting = [end for end in ends if len(name) - end <= most]
    between = [end for end in fitting if name[end - 1] != "_"]
    cut = max(between or fitting or [end for end in ends if end > most // 2] or [most])
    rest = name[cut:].strip()
    return [name[:cut].strip(), rest if len(rest) <= most else f"…{rest[1 - most :]}"]


def _rect(kind: str, x: float, y: float, width: float, height: float, round_: float) -> str:
    size = f'x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="{_n(round_)}"'
    return f'<rect class="{kind}" {size}/>'


def _text(kind: str, x: float, y: float, words: str, anchor: str = "start") -> str:
    end = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}"{end}>{escape(words)}</text>'


def _n(value: float) -> str:
    return f"{round(value, 1):g}"
