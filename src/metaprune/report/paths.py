"""Paths of modules with numbers in them: those that differ in the numbers alone are written as one."""

import itertools
import re
from collections.abc import Iterable, Sequence

__all__ = ["apart", "indices", "like", "runs", "spans", "template"]

# A whole part of the path, or the end of a part that holds others: `blocks.3.conv1` has one, `layer1.0.conv` has two.
_INDEX = re.compile(r"(?:(?<![^.])|(?<=[a-z_]))\d+(?=\.)|(?<![^.])\d+(?=\[|:|$)", re.IGNORECASE)


def template(path: str) -> str:
    """The path with `#` for every number: `layer1.0.conv1` becomes `layer#.#.conv1`."""
    return _INDEX.sub("#", path)


def indices(path: str) -> tuple[int, ...]:
    """The numbers that `template` takes away."""
    return tuple(map(int, _INDEX.findall(path)))


def like(path: str, own: str) -> str:
    """The template of a path, with `=` for the numbers that it shares with the path `own`, from the left."""
    shared = {m.end() for m in _INDEX.finditer(path) if path[: m.end()] == own[: m.end()]}
    return _INDEX.sub(lambda m: "=" if m.end() in shared else "#", path)


def spans(paths: Iterable[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Gather paths that differ in their numbers alone, as far as all combinations of the numbers are there.

    Returns:
        Pairs of (the paths written as one, the paths): `blocks.0–31.norm`; `layer1.0–2.conv1` and `layer2.0–3.conv1`.
    """
    alike: dict[str, list[str]] = {}
    for path in dict.fromkeys(paths):
        alike.setdefault(template(path), []).append(path)
    return [(_written(box), box) for same in alike.values() for box in _boxes(tuple(same))]


def apart(paths: Sequence[str]) -> list[str]:
    """What tells paths that `spans` gathered from one another: the numbers that differ, as `3` or `1.0`."""
    numbers = [indices(path) for path in paths]
    differ = [place for place, column in enumerate(zip(*numbers, strict=True)) if len(set(column)) > 1]
    return [".".join(str(own[place]) for place in differ) for own in numbers]


def runs(numbers: Iterable[int]) -> str:
    """Numbers in short: 0–2, 5, 7–9."""
    ordered = sorted(set(numbers))
    parts = []
    for _, run in itertools.groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        parts.append(str(members[0]) if len(members) == 1 else f"{members[0]}–{members[-1]}")
    return ",".join(parts)


def _boxes(paths: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Split paths of one template, by the first number that differs, until each lot holds every combination."""
    columns = [set(column) for column in zip(*map(indices, paths), strict=True)]
    combinations = 1
    for column in columns:
        combinations *= len(column)
    if combinations == len(paths):
        return [paths]
    first = next(place for place, column in enumerate(columns) if len(column) > 1)
    split: dict[int, list[str]] = {}
    for path in paths:
        split.setdefault(indices(path)[first], []).append(path)
    return [box for lot in split.values() for box in _boxes(tuple(lot))]


def _written(paths: Sequence[str]) -> str:
    columns = iter([runs(column) for column in zip(*map(indices, paths), strict=True)])
    return _INDEX.sub(lambda _: next(columns), paths[0])
