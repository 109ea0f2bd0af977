"""Which tests are asked about a line: what `cover.py` wrote, read again."""

import json
import re
from collections import defaultdict
from pathlib import Path


def own_name(test: str) -> str:
    """What a test is called where no worker runs it: those add the group that it is of."""
    return re.sub(r"@[^\]@]*$", "", test)


class Cover:
    """The map that was written: tests with their seconds, and the tests of each line."""

    def __init__(self, folder: Path) -> None:
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        for file in sorted(folder.glob("*.json")):
            part = json.loads(file.read_text())
            names = [name for name, _, _ in part["tests"]]
            self.seconds |= {name: seconds for name, seconds, passed in part["tests"] if passed}
            for source, lines in part["lines"].items():
                for line, tests in lines.items():
                    self.lines[source][int(line)] += [names[test] for test in tests if names[test] in self.seconds]
