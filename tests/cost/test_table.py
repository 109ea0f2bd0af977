"""Tables of measured operators: straight between their points, steps kept, on disk."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from metaprune.cost.signature import Operand, Signature
from metaprune.cost.table import CLASSES, Entry, Table, class_of, few, ladder, straight
from metaprune.cost.table_sum import TableSum
from metaprune.graph.term import Axis

CPU = torch.device("cpu")


def signature(time: Callable[..., float], *full: int, quanta: tuple[int, ...] = (), smooth: bool = False) -> Signature:
    """An operator that says itself how long it takes."""
    operands = [Operand((("s", place),), "float32", (0,)) for place in range(len(full))]
    return Signature(
        f"{time}", lambda *xs: time(*map(len, xs)), tuple((f"x{i}", x) for i, x in enumerate(operands)), full,
        quanta or (1,) * len(full), smooth,
    )  # fmt: skip


def table(path: Path | None = None) -> Table:
    return Table(lambda call: call(), CPU, path)


def read(one: Signature, *sizes: float) -> float:
    """What a sum of this operator alone says."""
    known = table()
    known.learn([one])
    axes = tuple(Axis(f"a{place}", full) for place, full in enumerate(one.full))
    whole = TableSum([("here", one.key, axes, known[one])])
    return float(whole.at(torch.tensor(sizes, dtype=torch.float64)[:, None])[0])


@pytest.mark.parametrize("channels", [1, 2, 7, 8, 9, 12, 16, 20, 64, 65, 96, 512, 2048])
def test_a_ladder_goes_from_few_to_all(channels: int) -> None:
    found = ladder(channels)
    assert list(found) == sorted(set(found))
    assert found[-1] == channels
    assert found[0] <= max(8, channels // 10)
    assert len(found) <= 16
    if 9 <= channels <= 64:
        assert set(range(8, channels + 1, 8)) <= set(found)


@pytest.mark.parametrize(
    ("most", "kept"), [(1, (8, 64)), (2, (8, 64)), (3, (8, 32, 64)), (4, (8, 16, 32, 64)), (5, (8, 16, 32, 64))]
)
def test_the_few_of_a_ladder_are_its_ends_the_half_and_the_quarter(most: int, kept: tuple[int, ...]) -> None:
    assert few((8, 16, 24, 32, 40, 64), most) == kept


def test_straight_lines_by_hand() -> None:
    found = straight((4, 8, 20), torch.tensor([2.0, 6.0, 8.0, 14.0, 20.0, 26.0], dtype=torch.float64))
    assert found.tolist() == [[1.5, -0.5, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1], [0, -0.5, 1.5]]


@pytest.mark.parametrize("full", [(1,), (64,), (1, 1), (48, 64), (12, 64), (512, 256), (16, 24, 64)])
def test_what_is_straight_is_foretold_exactly(full: tuple[int, ...]) -> None:
    def time(*sizes: int) -> float:
        return 3.0 + 0.5 * sum(sizes) + math.prod(sizes)

    one = signature(time, *full)
    for sizes in itertools.product(*({whole, max(1, whole // 2), max(1, whole // 4)} for whole in full)):
        assert read(one, *sizes) == pytest.approx(time(*sizes))


def test_steps_are_kept() -> None:
    """Sixteen output channels at once, as convolutions on CPUs have it: at every multiple of 8."""

    def time(inputs: int, outputs: int) -> float:
        return 1e-3 * (1.0 + inputs * -(-outputs // 16) * 16)

    one = signature(time, 64, 64)
    for inputs, outputs in itertools.product((16, 32, 64), range(8, 65, 8)):
        assert read(one, inputs, outputs) == pytest.approx(time(inputs, outputs), rel=0.1), (inputs, outputs)
    assert read(one, 64, 40) == pytest.approx(read(one, 64, 48))


def test_widths_that_a_machine_dislikes_take_longer() -> None:
    def time(width: int) -> float:
        return width * (1.0 if width % 8 == 0 else 1.5)

    one = signature(time, 256)
    assert [round(read(one, width) / width, 1) for width in (192, 128, 131, 97, 100)] == [1, 1, 1.5, 1.5, 1.5]
    assert class_of(48) == len(CLASSES)
    assert [CLASSES[class_of(width)] for width in (31, 30, 28, 24)] == [1, 2, 4, 8]


def test_what_classes_take_more_is_kept_to_the_last_digit() -> None:
    """Also as the mean of two operators over the same dimension, by their times at full size."""
    odd = [((4.0, 8.0), (1.1, 1.0, 1.0, 1.0)), ((1.0, 3.0), (1.7, 1.0, 1.0, 1.0))]
    entries = [Entry(((4, 8),), ((4, 8),), times, (times,), (slower,)) for times, slower in odd]
    axis = Axis("a", 8)
    whole = TableSum([(f"{place}", f"{place}", (axis,), entry) for place, entry in enumerate(entries)])
    assert float(whole.at(torch.tensor([[5.0]], dtype=torch.float64))[0]) == pytest.approx(
        (5.0 + 1.5) * (8.0 * 1.1 + 3.0 * 1.7) / 11.0, rel=1e-14
    )


def test_open_sizes_keep_their_multiples() -> None:
    asked = []

    def time(size: int) -> float:
        asked.append(size)
        return float(size)

    assert read(signature(time, 49 * 64, quanta=(49,)), 49 * 20) == pytest.approx(49 * 20)
    assert {size % 49 for size in asked} == {0}


def test_what_cannot_run_is_a_copy_of_its_operands() -> None:
    def broken(_: int) -> float:
        raise RuntimeError("only at 64")

    one = signature(broken, 64)
    known = Table(lambda call: float(sum(t.numel() for t in call())), CPU)
    known.learn([one])
    assert known[one].lines[0][-1] == 64


def test_what_was_disturbed_is_timed_again() -> None:
    """Other work made the first reading of wide ones three times as long."""
    asked: dict[int, int] = {}

    def disturbed(width: int) -> float:
        asked[width] = asked.get(width, 0) + 1
        return width / 32 * (3.0 if width > 32 and asked[width] == 1 else 1.0)

    one = signature(disturbed, 64)
    known = Table(lambda call: call(), CPU)
    known.learn([one])
    assert known[one].lines[0] == tuple(width / 32 for width in known[one].knots[0])
    assert {asked[width] for width in known[one].knots[0] if width <= 32} == {2}
    assert {asked[width] for width in known[one].knots[0] if width > 32} == {3}


def test_long_calls_are_timed_at_fewer_points_and_none_again() -> None:
    """And what is straight is foretold as well."""
    calls = {}
    for name, ms in (("short", 0.001), ("long", 1.0)):
        asked: list[tuple[int, int]] = []

        def time(inputs: int, outputs: int, ms: float = ms, asked: Any = asked) -> float:
            asked.append((inputs, outputs))
            return ms * (1 + inputs * outputs) * (1 + 0.2 * (len(asked) % 2))  # never twice alike

        one = signature(time, 64, 64)
        known = Table(lambda call: call(), CPU)
        known.learn([one])
        calls[name] = len(asked)
        assert {64} <= set(known[one].knots[0])
        if name == "long":
            assert max(asked.count(point) for point in set(asked) - {(64, 64)}) == 2
    assert calls["long"] < 0.45 * calls["short"]
    one = signature(lambda a, b: 10.0 + a * b, 48, 64)
    assert read(one, 24, 40) == pytest.approx(10 + 24 * 40)


def test_a_second_start_measures_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "times.json"
    one, other = signature(float, 32, 16), signature(float, 16)
    first = Table(lambda call: 1.0, CPU, path)
    first.learn([one, one])
    assert first.measured > 0
    assert list(path.parent.iterdir()) == [path]
    second = Table(lambda call: pytest.fail("measured again"), CPU, path)
    second.learn([one])
    assert second[one] == first[one]
    assert second.measured == 0
    beside = Table(lambda call: 2.0, CPU, path)  # two processes add to one file
    beside.known.clear()
    beside.learn([other])
    assert {one.key, other.key} <= Table(lambda call: 1.0, CPU, path).known.keys()


def damaged(change: Callable[[dict[str, Any]], Any]) -> Callable[[str], str]:
    def apply(text: str) -> str:
        tree = json.loads(text)
        change(next(iter(tree["times"].values())))
        return json.dumps(tree)

    return apply


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[1, 2]",
        lambda text: '{"cached": true}',
        lambda text: '{"format": "metaprune.times.2", "times": {"a": 3}}',
        lambda text: "[" * 100_000,
        damaged(lambda entry: entry.update(grid=[])),
        damaged(lambda entry: entry["grid"].__setitem__(0, -1)),
        damaged(lambda entry: entry["grid"].__setitem__(0, math.nan)),
        damaged(lambda entry: entry["grid"].__setitem__(0, "fast")),
        damaged(lambda entry: entry["knots"][0].reverse()),
        damaged(lambda entry: entry.update(knots=[[]])),
        damaged(lambda entry: entry.update(more=1)),
        damaged(lambda entry: entry["lines"].pop()),
    ],
)
def test_a_damaged_or_foreign_file_is_made_anew(damage: Callable[[str], str], tmp_path: Path) -> None:
    path, one = tmp_path / "times.json", signature(float, 32)
    first = Table(lambda call: call(), CPU, path)
    first.learn([one])
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    again = Table(lambda call: call(), CPU, path)
    assert again.note is not None
    assert "\n" not in again.note
    assert str(path) in again.note
    again.learn([one])
    assert again[one] == first[one]
    assert Table(lambda call: call(), CPU, path).note is None


def test_a_folder_that_cannot_be_written_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    one = signature(float, 32)
    known = Table(lambda call: call(), CPU, tmp_path / "file" / "times.json")
    known.learn([one])
    assert known[one].grid[-1] == 32
    assert known.note is not None
    assert "could not be kept" in known.note


def test_rungs_are_near_where_steps_are_small_and_even_beyond() -> None:
    assert ladder(100) == (4, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 100)
    assert ladder(512) == (48, 56, 64, 128, 192, 256, 320, 384, 448, 512)
    assert ladder(1000) == (96, 224, 352, 480, 608, 736, 864, 1000)
