"""On a tiny example: which faults there are, that one is put where it belongs, and what is said of it."""

import json
import signal
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any, cast

import pytest
from benchmarks.mutants import __main__ as main
from benchmarks.mutants import trying
from benchmarks.mutants.__main__ import _distance, ranked
from benchmarks.mutants.asked import Cover, own_name
from benchmarks.mutants.faults import code_of, faults, faulty
from benchmarks.mutants.page import page
from benchmarks.mutants.trying import Place, Verdict, Warm, forked, put_in

SOURCE = '''\
"""A file."""
LIMIT: int = 64

class Scale:
    def of(self, a, b=1.5):
        """Words are no code."""
        if a < b and not self.off:
            raise ValueError(f"{a} is below {b + 1}")
        for each in [x for x in range(a) if x % 2 == 0]:
            self.add(each, by=2)
        return min(a, -b)
'''


def test_every_kind_of_slip_is_there_once_and_words_are_left_alone() -> None:
    found = {(fault.line, fault.scope, fault.kind, fault.old, fault.new) for fault in faults(SOURCE)}
    of = "Scale.of"
    assert found == {
        (2, "", "constant", "64", "65"),
        (5, "", "constant", "1.5", "3.0"),
        (7, of, "condition", "if a < b and (not self.off):", "if not (a < b and (not self.off)):"),
        (7, of, "boolean", "a < b and (not self.off)", "a < b or not self.off"),
        (7, of, "comparison", "a < b", "a <= b"),
        (7, of, "sign", "not self.off", "self.off"),
        (9, of, "condition", "(... for x in range(a) if x % 2 == 0)", "(... for x in range(a))"),
        (9, of, "comparison", "x % 2 == 0", "x % 2 != 0"),
        (9, of, "arithmetic", "x % 2", "x // 2"),
        (9, of, "constant", "2", "3"),
        (9, of, "constant", "0", "1"),
        (10, of, "statement", "self.add(each, by=2)", "pass"),
        (10, of, "argument", "self.add(each, by=2)", "self.add(each)"),
        (10, of, "constant", "2", "3"),
        (11, of, "return", "return min(a, -b)", "return None"),
        (11, of, "swap", "min(a, -b)", "min(-b, a)"),
        (11, of, "name", "min", "max"),
        (11, of, "sign", "-b", "b"),
    }


def test_each_fault_changes_the_code_and_no_line() -> None:
    whole = compile(SOURCE, "f", "exec")
    [before] = code_of(whole, "Scale.of")
    for fault in faults(SOURCE):
        changed = compile(faulty(SOURCE, fault.index), "f", "exec")
        [after] = code_of(changed, "Scale.of")
        assert (after == before) == (fault.scope == ""), fault
        assert changed != whole, fault
        assert {line for *_, line in after.co_lines()} <= {line for *_, line in before.co_lines()}


def place(tmp_path: Path, kind: str) -> tuple[Place, Any]:
    (tmp_path / "scale.py").write_text(SOURCE)
    names: dict[str, Any] = {}
    exec(compile(SOURCE, str(tmp_path / "scale.py"), "exec"), names)
    return Place(str(tmp_path / "scale.py"), next(f for f in faults(SOURCE) if f.kind == kind)), names["Scale"]


def test_a_fault_is_put_into_the_function_that_others_hold(tmp_path: Path) -> None:
    where, scale = place(tmp_path, "name")
    held = scale.of
    with pytest.raises(AttributeError):
        scale().of(5)
    owner = SimpleNamespace(off=False, add=lambda *_, **__: None)
    assert held(owner, 5) == -1.5
    assert put_in(where, [each for each in vars(scale).values() if isinstance(each, FunctionType)])
    assert held(owner, 5) == 5
    assert not put_in(where, [])


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (lambda say: (say("one"), say("two"), "survived")[-1], ("survived", "", 2)),
        (lambda say: (say("one"), "caught")[-1], ("caught", "one", 1)),
        (lambda say: [][0], ("broken", "IndexError", 0)),
        (lambda say: (say("one"), signal.raise_signal(signal.SIGKILL))[0], ("caught", "one", 1)),
        (lambda say: (say("one"), signal.raise_signal(signal.SIGPROF))[0], ("endless", "one", 1)),
    ],
)
def test_what_becomes_of_a_child_is_said(run: Any, verdict: tuple[str, str, int]) -> None:
    found: Verdict = forked(run)
    assert (found.outcome, found.by, found.ran) == verdict


def test_tests_of_the_line_come_first_near_and_cheap_ones_before() -> None:
    """Then those that share what the first of them made; what never runs the line is not asked."""
    tests = {
        "tests/graph/test_unify.py::test_dear": 5.0,
        "tests/graph/test_unify.py::test_cheap": 1.0,
        "tests/graph/test_unify.py::test_beside": 0.5,
        "tests/laws/test_laws.py::test_one[vgg]": 2.0,
        "tests/laws/test_laws.py::test_two[vgg]": 0.1,
        "tests/laws/test_laws.py::test_one[vit]": 0.1,
    }
    names = list(tests)
    lines = {"src/metaprune/graph/unify.py": {7: [names[0], names[1], names[3]]}}
    cover: Any = SimpleNamespace(seconds=tests, lines=lines)
    fault = next(fault for fault in faults(SOURCE) if fault.kind == "comparison")
    where = Place("src/metaprune/graph/unify.py", fault)
    assert ranked(where, cover, 100.0) == [names[1], names[0], names[2], names[3], names[4]]
    assert ranked(where, cover, 1.1) == [names[1]]


def test_a_room_without_tests_of_its_own_has_those_of_its_name() -> None:
    near = ["tests/methods/test_dhp.py", "tests/methods/test_dhp_budgets.py", "tests/methods/dhp/test_search.py"]
    far = ["tests/methods/test_taylor.py", "tests/laws/test_dhp.py", "tests/test_dhp.py"]
    assert [_distance("src/metaprune/methods/dhp/search.py", test) for test in near + far] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("there", "name"),
    [
        ("tests/test_a.py::test_b@tests/test_a.py", "tests/test_a.py::test_b"),
        ("tests/test_a.py::test_b[vgg]@vgg", "tests/test_a.py::test_b[vgg]"),
        ("tests/test_a.py::test_b[a@b]", "tests/test_a.py::test_b[a@b]"),
        ("tests/test_a.py::test_b", "tests/test_a.py::test_b"),
    ],
)
def test_a_test_has_one_name_in_all_processes(there: str, name: str) -> None:
    assert own_name(there) == name


def test_what_a_copy_runs_is_of_all_cases_of_its_test(tmp_path: Path) -> None:
    own = {"names": ["t.py::test_a[x]", "t.py::test_b"], "tests": [["t.py::test_a[x]", 1.0, True]], "lines": {}}
    other = {"names": [], "tests": [["t.py::test_a[y]", 2.0, True], ["t.py::test_b", 1.0, False]], "lines": {}}
    copy = {"names": ["t.py::test_a[x]"], "tests": [], "lines": {"src/f.py": {"3": [0]}}}
    own["lines"] = {"src/f.py": {"4": [0, 1]}}
    for name, part in (("gw0", own), ("gw1", other), ("copy-7", copy)):
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    cover = Cover(tmp_path)
    assert cover.seconds == {"t.py::test_a[x]": 1.0, "t.py::test_a[y]": 2.0}
    assert dict(cover.lines["src/f.py"]) == {3: ["t.py::test_a[x]", "t.py::test_a[y]"], 4: ["t.py::test_a[x]"]}


def test_the_finder_of_the_fault_stays_the_first() -> None:
    finders = trying._First(["ours", "a"])
    finders.insert(0, "b")
    finders.insert(-1, "c")
    finders.append("d")
    assert finders == ["ours", "b", "c", "a", "d"]


def test_the_sample_stays_where_code_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "src" / "metaprune" / "cost"
    folder.mkdir(parents=True)
    monkeypatch.setattr(main, "ROOT", tmp_path)
    monkeypatch.setattr(main, "DECIDE", ("cost",))
    lines = [f"def f{each}(a, b):\n    return a + b < {each} * a\n" for each in range(9)]

    def drawn(text: str, seed: int = 0) -> list[tuple[str, str, str]]:
        (folder / "a.py").write_text(text)
        return [(place.fault.scope, place.fault.old, place.fault.new) for place in main.sampled(1000, seed)]

    before, after = drawn("".join(lines)), drawn("def g(a):\n    return a - 7\n" + "".join(lines))
    assert [each for each in after if each[0] != "g"] == before
    assert len(before) == len(set(before)) > 30
    assert before[:9] != sorted(before)[:9]
    assert drawn("".join(lines), seed=1) != before
    assert sorted(drawn("".join(lines), seed=1)) == sorted(before)


def test_tests_that_are_not_there_are_not_passed_over() -> None:
    """A fault that nobody was asked about would count as survived, or as broken."""
    fault = next(fault for fault in faults(SOURCE) if fault.kind == "comparison")
    warm = Warm([], lambda _: ["tests/test_gone.py::test_it"], {}, lambda *_: None)
    warm.items = {}
    with pytest.raises(RuntimeError, match="test_gone"):
        warm.judged(cast(Any, None), Place("src/metaprune/graph/unify.py", fault), [])


def test_work_is_done_side_by_side_and_a_failure_is_not_passed_over(tmp_path: Path) -> None:
    main.side_by_side(2, lambda job: (tmp_path / str(job)).touch())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    with pytest.raises(RuntimeError, match="a process that judged faults failed"):
        main.side_by_side(2, lambda job: [][job])


def test_rows_hold_for_as_long_as_their_file_is_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "src" / "metaprune" / "cost"
    folder.mkdir(parents=True)
    for module in (main, trying):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(main, "DECIDE", ("cost",))
    monkeypatch.setattr(main, "ROWS", tmp_path / "rows.jsonl")
    for name in ("a.py", "b.py"):
        (folder / name).write_text(SOURCE)
    places = main.sampled(1000, 0)
    for outcome in ("survived", "caught"):
        for place in places:
            main._write(place, Verdict(outcome, "", 1, 1.0))
    (folder / "a.py").write_text(SOURCE + "\n")
    main._forget_what_changed()
    assert len(main.ROWS.read_text().splitlines()) == len(places) / 2
    assert {(row["file"], row["outcome"]) for row in main._read().values()} == {("src/metaprune/cost/b.py", "caught")}


def test_the_page_counts_and_names_what_survived() -> None:
    row = {"file": "src/metaprune/graph/unify.py", "line": 3, "scope": "f", "kind": "sign", "old": "-b | c", "new": "b"}
    text = page([row | {"outcome": "survived"}, row | {"outcome": "caught"}, row | {"outcome": "endless"}], 0, 7)
    assert "**2: 67%**" in text
    assert "3 faults judged of 7," in text
    assert "--count 7`" in text
    assert "| graph | 3 | 0 | 1 | 67% |" in text
    assert "| `graph/unify.py:3` f | `-b \\| c` → `b` |  |" in text
