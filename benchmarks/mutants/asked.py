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
        parts = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
        for part in parts:
            self.seconds |= {name: seconds for name, seconds, passed in part["tests"] if passed}
        for part in parts:
            for source, lines in part["lines"].items():
                for line, tests in lines.items():
                    known = [part["names"][test] for test in tests]
                    self.lines[source][int(line)] += [name for name in known if name in self.seconds]
