"""Which tests are asked about a line: what `cover.py` wrote, read again."""

import json
import re
from collections import defaultdict
from pathlib import Path


def own_name(test: str) -> str:
    """What a test is called where no worker runs it: those add the group that it is of."""
    return re.sub(r"@[^\]@]*$", "", test)


class Cover:
    """The map that was written: tests with their seconds, and the tests of each line.

    What copies of the tests' process run is of all cases of the test that had them made: they look at what came of it.
    """

    def __init__(self, folder: Path) -> None:
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        parts = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
        for part in parts:
            self.seconds |= {name: seconds for name, seconds, passed in part["tests"] if passed}
        cases: dict[str, list[str]] = defaultdict(list)
        for test in self.seconds:
            cases[_function(test)].append(test)
        for part in parts:
            of_a_copy = not part["tests"]
            for source, lines in part["lines"].items():
                for line, tests in lines.items():
                    names = [part["names"][test] for test in tests]
                    asked = [test for name in names for test in (cases[_function(name)] if of_a_copy else [name])]
                    self.lines[source][int(line)] += [test for test in asked if test in self.seconds]


def _function(test: str) -> str:
    """A test without the case."""
    return test.partition("[")[0]
