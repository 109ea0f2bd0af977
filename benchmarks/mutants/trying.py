"""One fault at a time: a process that has imported everything forks, puts it in, and runs the tests of the line.

No file is changed. A fault inside of a function replaces the code of the function object, to which every reference
stays; one that runs at import is met by an import of its own (`Importing`).
"""

import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import pkgutil
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, SupportsIndex

import pytest
from benchmarks.mutants.faults import Fault, code_of, faulty

ROOT = Path(__file__).parents[2]
MEMORY = 6 << 30  # bytes that a fault may ask for
PATIENCE = 300.0  # seconds of wall for one fault: what waits for something that never comes
FILES = ROOT / "runs" / "mutants" / "tmp"


def arguments(files: Path) -> tuple[str, ...]:
    """Of pytest, with the folder for what tests write, which is emptied first."""
    early = "ignore::pytest.PytestAssertRewriteWarning"  # what was imported early is not looked into
    return ("-n0", "-p", "no:cacheprovider", "--basetemp", str(files), "-W", early)


@dataclass(frozen=True)
class Place:
    """A fault and the file that it is in, by its path from the root."""

    file: str
    fault: Fault

    @property
    def path(self) -> Path:
        return ROOT / self.file

    @property
    def module(self) -> str:
        return ".".join(Path(self.file).relative_to("src").with_suffix("").parts).removesuffix(".__init__")

    def code(self) -> CodeType:
        """The whole file, compiled with the fault."""
        return compile(faulty(self.path.read_text(), self.fault.index), str(self.path), "exec", dont_inherit=True)


@dataclass(frozen=True)
class Verdict:
    """What became of a fault: caught, survived, endless (caught, too), unplaced or broken; by what, after how many."""

    outcome: str
    by: str
    ran: int
    seconds: float


def lines_of(code: CodeType) -> range:
    """From the first line of a function to its last, what is inside included."""
    own = [line for _, _, line in code.co_lines() if line] or [code.co_firstlineno]
    inner = [lines_of(each).stop - 1 for each in code.co_consts if isinstance(each, CodeType)]
    return range(min(code.co_firstlineno, *own), max(*own, *inner, code.co_firstlineno) + 1)


def put_in(place: Place, functions: Sequence[FunctionType]) -> bool:
    """Give the functions of a file the code with the fault; whether there was any to give it to."""
    fault = place.fault
    new = [code for code in code_of(place.code(), fault.scope) if fault.line in lines_of(code)]
    old = [each for each in functions if each.__code__.co_qualname == fault.scope]
    old = [each for each in old if fault.line in lines_of(each.__code__)]
    if len(new) != 1 or not old:
        return False
    for function in old:
        function.__code__ = new[0]
    return True


def forked(run: Callable[[Callable[[str], None]], str]) -> Verdict:
    """Run something in a child that says which test is at work; what it returns is the outcome."""
    begun = time.monotonic()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            os.setsid()
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            silent = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(silent, stream)
            outcome = run(lambda test: os.write(write, f"{test}\n".encode()) and None)
            os.write(write, f"\0{outcome}\n".encode())
        except Exception as error:  # ours, for pytest lets none out
            os.write(write, f"\0broken\nby {type(error).__name__}\n".encode())
        finally:
            os._exit(0)
    os.close(write)
    said = b""
    while True:
        left = begun + PATIENCE - time.monotonic()
        if left <= 0 or not select.select([read], [], [], left)[0]:
            said += b"\0endless\n"
            break
        got = os.read(read, 1 << 16)
        if not got:
            break
        said += got
    os.close(read)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    tests, _, outcome = said.decode(errors="replace").partition("\0")
    names = tests.splitlines()
    if not outcome:  # it died: of too much time, or altogether
        outcome = "endless" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF else "caught"
    word, _, by = outcome.strip().partition("\nby ")
    last = by or (names[-1] if names else "the import")
    return Verdict(word, last if word != "survived" else "", len(names), round(time.monotonic() - begun, 1))


def limited(seconds: float) -> None:
    """Processor time that the test which begins now may take, before the process dies."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, 20 + 10 * seconds)


class Warm:
    """A plugin of pytest's: in place of running the collected tests once, it runs some of them for each fault."""

    def __init__(
        self,
        places: Sequence[Place],
        tests: Callable[[Place], list[str]],
        seconds: dict[str, float],
        say: Callable[[Place, Verdict], None],
        files: Path = FILES,
    ) -> None:
        self.places, self.tests, self.seconds, self.say, self.files = places, tests, seconds, say, files
        self.sound: dict[str, bool] = {}

    def serve(self) -> None:
        """Judge all, in a process of its own, so that this one has imported nothing of metaprune."""
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = int(pytest.main([*arguments(self.files), "-p", "no:terminal"], plugins=[self]))
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code:
            raise RuntimeError(f"the tests could not be collected: pytest ended with {code}")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for module in pkgutil.walk_packages([str(ROOT / "src" / "metaprune")], "metaprune."):
            importlib.import_module(module.name)
        _first_trace()
        self.items = {item.nodeid: item for item in session.items}
        gc.unfreeze()  # what is frozen is not listed
        functions: dict[str, list[FunctionType]] = {}
        for each in gc.get_objects():
            if type(each) is FunctionType:  # to ask some objects for their class is a warning
                functions.setdefault(each.__code__.co_filename, []).append(each)
        gc.freeze()
        for place in self.places:
            self.say(place, self.judged(session, place, functions.get(str(place.path), [])))
        return True

    def judged(self, session: pytest.Session, place: Place, functions: Sequence[FunctionType]) -> Verdict:
        """The verdict on one fault; a test that fails without it, too, when it is alone, is none to ask."""
        asked = self.tests(place)
        if unknown := set(asked) - self.items.keys():
            raise RuntimeError(f"tests that ran a line are not there: {', '.join(sorted(unknown)[:3])}")
        while True:
            tests = [test for test in asked if self.sound.get(test, True)]
            verdict = forked(
                lambda say, tests=tests: self.run(session, tests, say) if put_in(place, functions) else "unplaced"
            )
            test = verdict.by
            if verdict.outcome in ("survived", "unplaced") or test not in self.items:
                return verdict
            if test not in self.sound:
                self.sound[test] = forked(lambda say, test=test: self.run(session, [test], say)).outcome == "survived"
            if self.sound[test]:
                return verdict

    def run(self, session: pytest.Session, tests: Sequence[str], say: Callable[[str], None]) -> str:
        items = [self.items[test] for test in tests]
        if any("forks" in getattr(item, "fixturenames", ()) for item in items):
            _copy_anew(session)
        for item, following in zip_longest(items, items[1:]):
            say(item.nodeid)
            limited(self.seconds[item.nodeid])
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                return "caught"
        return "survived"


def _copy_anew(session: pytest.Session) -> None:
    """Have tests that start copies of their process start copies of this one, as it is with the fault."""
    for plugin in session.config.pluginmanager.get_plugins():
        if forks := getattr(plugin, "_FORKS", None):
            before = forks.pop()
            before._asking.close()  # it is another's to end
            forks.append(type(before)())


def _first_trace() -> None:
    """What PyTorch imports when it first exports, so that no child has to."""
    from torch import nn, ones

    import metaprune as mp

    mp.trace(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), (ones(2, 2),))


class _First(list[Any]):
    """Finders, of which the first stays the first, whatever plugins put before it."""

    def insert(self, place: SupportsIndex, finder: Any) -> None:
        super().insert(max(1, int(place)) if int(place) >= 0 else place, finder)


class Importing(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Finds the one module that has the fault, and loads it so; a plugin of pytest's that keeps some tests."""

    def __init__(
        self, place: Place | None, tests: Sequence[str], seconds: dict[str, float], say: Callable[[str], None]
    ) -> None:
        if place is not None:
            super().__init__(place.module, str(place.path))
        self.place, self.tests, self.seconds, self.say = place, tests, seconds, say

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if self.place is None or name != self.place.module:
            return None
        return importlib.util.spec_from_file_location(name, self.place.path, loader=self)

    def get_code(self, fullname: str) -> CodeType:
        assert self.place is not None
        return self.place.code()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        wanted = {item.nodeid: item for item in items}
        items[:] = [wanted[test] for test in self.tests if test in wanted]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        self.say(item.nodeid)
        limited(self.seconds[item.nodeid])
        return (yield)


def imported(place: Place, tests: Sequence[str], seconds: dict[str, float], files: Path = FILES) -> Verdict:
    """The verdict on a fault that runs at import, from a process that has not imported metaprune.

    A test that fails without the fault, too, when it is alone, is none to ask.
    """

    def run(place: Place | None, tests: Sequence[str], say: Callable[[str], None]) -> str:
        os.chdir(ROOT)
        where = list(dict.fromkeys(test.split("::")[0] for test in tests))
        plugin = Importing(place, tests, seconds, say)
        sys.meta_path = _First([plugin, *sys.meta_path])
        code = pytest.main([*arguments(files), "-x", *where], plugins=[plugin])
        if code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            return "survived"
        fails = (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR)
        return "caught" if code in fails else "broken"  # the last is what a conftest that cannot be imported is

    asked = list(tests)
    while True:
        verdict = forked(lambda say: run(place, asked, say))
        if verdict.outcome != "caught" or verdict.by not in asked:
            return verdict
        by = verdict.by
        if forked(lambda say, by=by: run(None, [by], say)).outcome == "survived":
            return verdict
        asked.remove(by)
