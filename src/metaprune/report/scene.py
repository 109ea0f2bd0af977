"""What a picture of the channel graph shows, before it has sizes: lines, blocks that repeat, and lanes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from metaprune.graph.term import Axis
from metaprune.report.paths import spans, template
from metaprune.report.summary import INNER, JOINED, TRUNK, Wire, alike

__all__ = ["Block", "Lane", "Line", "Scene", "compose", "kind_of", "stays", "touches"]


@dataclass(frozen=True)
class _Row:
    """Layers one after the other that read and write the same axes."""

    wires: tuple[Wire, ...]


@dataclass(frozen=True)
class _Repeat:
    """Copies of the same rows."""

    copies: tuple[tuple["_Row | _Repeat", ...], ...]


_Item = _Row | _Repeat


@dataclass
class Lane:
    """Axes that are drawn as one lane; positions are in rows, then columns."""

    axes: list[Axis]
    start: float = -1.0
    stop: float = -1.0
    column: int = 0


@dataclass(frozen=True)
class Line:
    """A row of the picture: a row of the network that stands for its copies too."""

    place: int
    label: str
    operator: str
    wires: tuple[Wire, ...]
    depth: int


@dataclass(frozen=True)
class Block:
    """Lines that repeat."""

    label: str
    count: int
    first: int
    last: int
    depth: int


@dataclass
class Scene:
    """What is drawn, before it has a size."""

    axes: Mapping[str, Axis]
    roles: Mapping[str, str]
    widths: Mapping[str, int] | None
    written: frozenset[str]
    """The axes that some layer writes."""
    lines: list[Line] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    one: dict[str, str] = field(default_factory=dict)
    """Axis -> the axis that stands for it."""
    touched_at: dict[str, list[int]] = field(default_factory=dict)
    """Axis -> the lines that touch it, those of copies too."""
    lanes: dict[str, Lane] = field(default_factory=dict)
    """The axis that stands for others -> its lane."""

    def stands_for(self, name: str) -> str:
        """The axis that is drawn for an axis."""
        while self.one.get(name, name) != name:
            name = self.one[name]
        return name

    def given(self, wire: Wire) -> list[str]:
        """The axes that a layer meets, and that no layer writes: they come from inputs, tables and bare parameters."""
        return [name for name in (*wire.reads, *wire.passes) if name not in self.written]


def compose(
    axes: Mapping[str, Axis],
    roles: Mapping[str, str],
    wires: Sequence[Wire],
    widths: Mapping[str, int] | None = None,
) -> Scene:
    """Work out the lines, the blocks that repeat, and the lanes.

    Args:
        axes: Name -> axis, in order of execution.
        roles: Name -> what the axis is for.
        wires: The layers, in order of execution.
        widths: Name -> the channels that stay; None where nothing was cut.
    """
    scene = Scene(axes, roles, widths, frozenset(name for wire in wires for name in wire.writes))
    group = {axis: index for index, (_, names) in enumerate(alike(axes.values(), roles)) for axis in names}
    _lay(scene, [_folded(scene, _rows(wires), group)])
    _run_lanes(scene)
    return scene


def _rows(wires: Sequence[Wire]) -> list[_Item]:
    """Neighbours that touch the same axes, in the same way, share a row; layers that touch none have none."""
    rows: list[_Item] = []
    last: tuple[object, ...] | None = None
    for wire in wires:
        how = (set(wire.reads), set(wire.writes), set(wire.passes))
        if not any(how):
            continue
        if how == last and isinstance(rows[-1], _Row):
            rows[-1] = _Row((*rows[-1].wires, wire))
        else:
            rows.append(_Row((wire,)))
        last = how
    return rows


def _folded(scene: Scene, items: list[_Item], group: Mapping[str, int]) -> list[_Item]:
    """The items, with those that repeat one after the other folded into one, the shortest first."""

    known: dict[object, int] = {}

    def key(item: _Item) -> int:
        """A number that equal items share."""
        return known.setdefault(pattern(item), len(known))

    def pattern(item: _Item) -> object:
        if isinstance(item, _Repeat):
            return (len(item.copies), *map(key, item.copies[0]))
        return tuple(
            (
                template(wire.name),
                wire.operator,
                tuple(group[axis] for axis in (*wire.writes, *scene.given(wire))),
                frozenset(group[axis] for axis in wire.reads),
                frozenset(group[axis] for axis in wire.passes),
            )
            for wire in item.wires
        )

    def count(start: int, length: int) -> int:
        """How often the `length` items from `start` on come in a row."""
        times = 1
        while keys[start : start + length] == keys[start + times * length : start + (times + 1) * length]:
            times += 1
        return times

    def copies(start: int, length: int) -> tuple[tuple[_Item, ...], ...]:
        stop = start + count(start, length) * length
        return tuple(tuple(items[at : at + length]) for at in range(start, stop, length))

    keys = [key(item) for item in items]
    length = 1
    while 2 * length <= len(items):
        start, found = 0, False
        while start + 2 * length <= len(items):
            if keys[start] == keys[start + length] and count(start, length) > 1:
                shifts = [at for at in range(start, start + length) if count(at, length) > 1]
                start = next((at for at in shifts if _block_label(copies(at, length))), start)
                repeat = _Repeat(copies(start, length))
                stop = start + len(repeat.copies) * length
                items = [*items[:start], repeat, *items[stop:]]
                keys = [*keys[:start], key(repeat), *keys[stop:]]
                found = True
            start += 1
        length = 1 if found else length + 1
    return items


def _lay(scene: Scene, copies: Sequence[Sequence[_Item]], prefix: str = "", depth: int = 0) -> None:
    """Give the items of the first copy their lines; what its copies touch is noted on the same lines."""
    for same in zip(*copies, strict=True):
        first = same[0]
        if isinstance(first, _Repeat):
            inner = [copy for item in same if isinstance(item, _Repeat) for copy in item.copies]
            label = _block_label(inner)
            start = len(scene.lines)
            place = len(scene.blocks)
            _lay(scene, inner, label or prefix, depth + 1)
            shown = label.removeprefix(prefix).strip(".")
            block = Block(shown, len(first.copies), start, len(scene.lines) - 1, depth)
            scene.blocks.insert(place, block)
            continue
        rows = [row for row in same if isinstance(row, _Row)]
        at = len(scene.lines)
        for row in rows:
            for wire, own in zip(row.wires, first.wires, strict=True):
                counterparts = ((*one.writes, *scene.given(one)) for one in (wire, own))
                for other, axis in zip(*counterparts, strict=True):
                    if scene.stands_for(other) != scene.stands_for(axis):
                        scene.one[scene.stands_for(other)] = scene.stands_for(axis)
                for axis in (*wire.reads, *wire.writes, *wire.passes):
                    scene.touched_at.setdefault(axis, []).append(at)
        operators = dict.fromkeys(wire.operator for wire in first.wires)
        label = _line_label([path for row in rows for path in _paths(row)], prefix) or ", ".join(operators)
        scene.lines.append(Line(at, label, ", ".join(operators), first.wires, depth))


def _flat(copies: Sequence[Sequence[_Item]]) -> Iterator[_Row]:
    for copy in copies:
        for item in copy:
            if isinstance(item, _Row):
                yield item
            else:
                yield from _flat(item.copies)


def _paths(row: _Row) -> list[str]:
    return [wire.name for wire in row.wires]


def _block_label(copies: Sequence[Sequence[_Item]]) -> str:
    """What the paths of all copies begin with, up to the numbers that tell them apart, and a dot; or nothing."""
    written = [text for text, _ in spans(path for row in _flat(copies) for path in _paths(row))]
    heads = {match[0] for text in written if (match := re.match(r".*?\d[–,][\d–,]*(?=\.|$)", text))}
    whole = len(heads) == 1 and all(text.startswith(next(iter(heads))) for text in written)
    return f"{heads.pop()}." if whole else ""


def _line_label(paths: Sequence[str], prefix: str) -> str:
    """The paths as one, without the part that the block says, and each without what it shares with the one before."""
    texts = [text.removeprefix(prefix).removeprefix(prefix[:-1]) for text, _ in spans(paths)]
    parents = [text.rpartition(".")[0] for text in texts]
    parts = [
        text.rpartition(".")[2] if index and parents[index] == parents[index - 1] else text
        for index, text in enumerate(texts)
    ]
    return ", ".join(parts)


def _run_lanes(scene: Scene) -> None:
    """Give the scene its lanes: from where an axis is first written, or from above, to where it is last touched.

    Trunks have columns of their own, on the left; what is fixed takes any column that is free.
    """
    for name in scene.touched_at:
        scene.lanes.setdefault(scene.stands_for(name), Lane([])).axes.append(scene.axes[name])
    for name, lane in scene.lanes.items():
        own = [(i, wire) for i, line in enumerate(scene.lines) for wire in line.wires if name in _of(scene, wire)]
        first = min(i for i, _ in own)
        last = max(at for axis in lane.axes for at in scene.touched_at[axis.name])
        given = any(name in _of(scene, wire, read=True) for i, wire in own if i == first)
        left = not any(name in _of(scene, wire, read=True) for i, wire in own if i == last)
        lane.start = first - (0.45 if given else 0)
        lane.stop = last + (0.45 if left else 0)
    scene.lanes = dict(sorted(scene.lanes.items(), key=lambda pair: (pair[1].start, pair[1].start - pair[1].stop)))
    trunks = [lane for lane in scene.lanes.values() if kind_of(scene, lane) == "trunk"]
    taken: list[list[Lane]] = []
    for lane in [*trunks, *(lane for lane in scene.lanes.values() if lane not in trunks)]:
        first = len({trunk.column for trunk in trunks}) if kind_of(scene, lane) in ("inner", "heads") else 0
        lane.column = next(
            column
            for column in range(first, len(taken) + 1)
            if column == len(taken) or all(o.stop <= lane.start or lane.stop <= o.start for o in taken[column])
        )
        taken.extend([] for _ in range(lane.column + 1 - len(taken)))
        taken[lane.column].append(lane)


def _of(scene: Scene, wire: Wire, *, read: bool = False) -> set[str]:
    """The lanes that a layer touches, or only those that it reads, by the axes that stand for them."""
    read_only = set(wire.reads) - set(wire.writes)
    return {scene.stands_for(name) for name in (read_only if read else (*wire.reads, *wire.writes, *wire.passes))}


def kind_of(scene: Scene, lane: Lane) -> str:
    """The colour of a lane: trunk, inner, heads or fixed."""
    axis = lane.axes[0]
    role = scene.roles.get(axis.name, INNER)
    return "fixed" if axis.fixed is not None else {TRUNK: "trunk", INNER: "inner", JOINED: "inner"}.get(role, "heads")


def stays(scene: Scene, lane: Lane) -> tuple[int, int]:
    """The fewest and the most channels that stay of the axes of a lane."""
    left = [axis.size if scene.widths is None else scene.widths.get(axis.name, axis.size) for axis in lane.axes]
    return min(left), max(left)


def touches(scene: Scene, line: Line) -> Iterator[tuple[Lane, str]]:
    """The lanes that a line touches, each once, and how."""
    kinds: dict[str, str] = {}
    for wire in line.wires:
        for kind, names in (("pass", wire.passes), ("read", wire.reads), ("write", wire.writes)):
            kinds |= {scene.stands_for(name): kind for name in names}
    for name, kind in kinds.items():
        lane = scene.lanes[name]
        if kind != "write":
            yield lane, kind
        elif line.place == lane.start:
            yield lane, "begin"
        else:
            yield lane, "add" if kind_of(scene, lane) == "trunk" else "same"
