"""Which test runs which line: a plugin of pytest's that notes it (`-p benchmarks.mutants.cover`, COVER_INTO=FOLDER).

Each worker writes a file of its own, and so does each copy of it that a test makes (`tests/forks.py`). What runs in
other processes that a test starts is not seen, but its time is counted.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import coverage
import pytest
from benchmarks.mutants.asked import own_name

SOURCE = Path(__file__).parents[2] / "src" / "metaprune"

_watch = coverage.Coverage(data_file=None, config_file=False, source=[str(SOURCE)], messages=False)
_watch.set_option("run:core", "ctrace")  # the one that knows contexts, whatever the version of Python
_spent: dict[str, float] = defaultdict(float)
_failed: set[str] = set()


def pytest_sessionstart(session: pytest.Session) -> None:
    _watch.start()  # before the tests are collected, so that what runs at import is seen, too


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    name = own_name(item.nodeid)
    _watch.switch_context(name)
    begun = sum(os.times()[:4])  # of this process and of those that it started and has seen end
    result = yield
    _spent[name] += sum(os.times()[:4]) - begun
    _watch.switch_context("")
    return result


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _failed.add(own_name(report.nodeid))


def pytest_sessionfinish(session: pytest.Session) -> None:
    _watch.stop()
    if not _spent:  # what hands the tests out runs none
        return
    data = _watch.get_data()
    number = {name: place for place, name in enumerate(_spent)}
    lines = {
        _short(file): {
            line: sorted(number[each] for each in contexts if each in number)
            for line, contexts in data.contexts_by_lineno(file).items()
        }
        for file in data.measured_files()
    }
    tests = [(name, round(seconds, 3), name not in _failed) for name, seconds in _spent.items()]
    _write(os.environ.get("PYTEST_XDIST_WORKER", "alone"), {"names": list(_spent), "tests": tests, "lines": lines})


def _in_a_copy() -> None:
    """A copy of this process notes what it runs for the test that had it made, and writes it when it ends."""
    _watch.stop()
    _watch.erase()
    _watch.start()
    _spent.clear()
    leave = os._exit
    if getattr(leave, "notes", False):
        return

    def noting(code: int) -> NoReturn:
        with suppress(Exception):  # a copy ends as it would
            test = own_name(os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0])
            _watch.stop()
            data = _watch.get_data()
            lines = {_short(file): {line: [0] for line in data.lines(file) or ()} for file in data.measured_files()}
            _write(f"copy-{os.getpid()}", {"names": [test], "tests": [], "lines": lines})
        leave(code)

    ends: Callable[[int], NoReturn] = noting
    ends.notes = True  # type: ignore[attr-defined]
    os._exit = ends


def _short(file: str) -> str:
    return str(Path(file).relative_to(SOURCE.parents[1]))


def _write(name: str, found: dict[str, Any]) -> None:
    into = Path(os.environ["COVER_INTO"])
    into.mkdir(parents=True, exist_ok=True)
    unfinished = into / f"{name}.unfinished"  # a copy may be killed here
    unfinished.write_text(json.dumps(found))
    unfinished.rename(into / f"{name}.json")


os.register_at_fork(after_in_child=_in_a_copy)
