"""Sampled faults in the modules that decide, each judged by the tests that run its line. Run `make mutants`.

Rows are kept beside this file, in `rows.jsonl`, so that a run that was stopped goes on, here or in another clone; a
row holds for as long as its file is the same. `--again` tries survivors anew, after tests have been written;
`--count 800` goes on with the same sample. Faults that no test can see are named with the reason in `reasons.toml`.
Tests of one fault take `--seconds` of processor time at most, cheapest and nearest first: what survives has survived
those, not everything. One thread, and as many processes as `--jobs` says.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.mutants.asked import Cover
from benchmarks.mutants.faults import faults
from benchmarks.mutants.page import page, unseen
from benchmarks.mutants.trying import ROOT, Place, Verdict, Warm, imported

DECIDE = (
    *("graph", "surgery", "cost", "train", "session", "data", "methods/dhp", "methods/gates"),
    *("methods/graph_metanetwork/reading", "methods/graph_metanetwork/learning/goals", "saving.py"),
    *("report/report.py", "report/summary.py", "report/card.py", "report/drawing.py"),
)
"""Where a fault would be believed: what infers, cuts, prices, trains, keeps and says figures."""
FOLDER = ROOT / "runs" / "mutants"
ROWS = Path(__file__).parent / "rows.jsonl"


def sampled(count: int, seed: int) -> list[Place]:
    """So many faults of all, each as likely as any other; a larger count begins with the smaller one's.

    Where code changes, the other faults keep their places: each draws its own lot, from what it is.
    """
    drawn: list[tuple[str, Place]] = []
    for part in DECIDE:
        path = ROOT / "src" / "metaprune" / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            name = str(file.relative_to(ROOT))
            alike: dict[tuple[str, ...], int] = defaultdict(int)
            for fault in faults(file.read_text()):
                what = (name, fault.scope, fault.kind, fault.old, fault.new)
                drawn.append((hashlib.sha256(repr((seed, what, alike[what])).encode()).hexdigest(), Place(name, fault)))
                alike[what] += 1
    return [place for _, place in sorted(drawn, key=lambda each: each[0])[:count]]


def covered(tests: Sequence[str]) -> Cover:
    """The map of lines and tests, made by one run of the tests where there is none for the code as it is."""
    files = sorted(file for part in ("src", "tests") for file in (ROOT / part).rglob("*.py"))
    contents = [*(file.read_bytes() for file in files), *(name.encode() for name in tests)]
    state = hashlib.sha256(b"".join(contents)).hexdigest()[:12]
    folder = FOLDER / f"cover-{state}"
    if not (folder / "whole").exists():
        print("which test runs which line: one run of the tests", flush=True)
        environment = os.environ | {"COVER_INTO": str(folder)}
        arguments = ["-q", "-p", "benchmarks.mutants.cover", *tests]
        subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=environment, check=False)
        (folder / "whole").touch()
    return Cover(folder)


def ranked(place: Place, cover: Cover, most: float) -> list[str]:
    """The tests to ask about a fault: those of the mirror first, then one of each file in turn, cheap ones first.

    Tests that share what the first of them made (a traced network, a trained run) are asked, too.
    """
    lines = cover.lines[place.file]
    near = set(lines.get(place.fault.line, ())) if place.fault.scope else set().union(*lines.values())
    shared = {_group(test) for test in near}
    asked = [(test not in near, test) for test in cover.seconds if test in near or _group(test) in shared]
    by_file: dict[str, list[tuple[bool, float, str]]] = defaultdict(list)
    for far, test in asked:
        by_file[test.split("::")[0]].append((far, cover.seconds[test], test))
    turns = [
        (far, _distance(place.file, file), turn, seconds, test)
        for file, tests in by_file.items()
        for turn, (far, seconds, test) in enumerate(sorted(tests))
    ]
    mirror = sorted(each for each in turns if each[1] == 0)
    others = sorted(((far, turn, distance, seconds, test) for far, distance, turn, seconds, test in turns if distance))
    chosen, left = [], most
    for *_, seconds, test in [*mirror, *others]:
        left -= seconds + 0.02
        if left < 0 and chosen:
            break
        chosen.append(test)
    return chosen


def _group(test: str) -> str:
    """What tests share: the file, or there the network that they are about."""
    file, _, name = test.partition("::")
    return f"{file} {name.partition('[')[2].partition('-')[0]}"


def _distance(source: str, test: str) -> int:
    """0 for a test of the mirror: of the same name, in the folder of that name, or of the name of its room."""
    at, there = Path(source).relative_to("src/metaprune"), Path(test)
    same = test == str(Path("tests", at.parent, f"test_{at.name}")) or there.parent == Path("tests", at.parent)
    room = there.parent == Path("tests", at.parent.parent) and there.stem.startswith(f"test_{at.parent.name}")
    return int(not (same or room))


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge what has no row yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=40.0, help="of processor time that one fault's tests may take")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="files and folders of the tests to ask")
    parser.add_argument("--only", default="", help="files with this in their path")
    parser.add_argument("--again", action="store_true", help="try what survived once more")
    parser.add_argument("--jobs", type=int, default=1, help="faults that are judged side by side")
    parser.add_argument("--page", type=Path, default=ROOT / "benchmarks" / "mutants.md")
    asked = parser.parse_args(arguments)
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    places = [place for place in sampled(asked.count, asked.seed) if asked.only in place.file]
    rows = _read()
    again = ("survived",) if asked.again else ()
    missing = [
        place
        for place in places
        if rows.get(_key(place), {"outcome": ""})["outcome"] in again and not unseen(place.file, asdict(place.fault))
    ]
    missing += [place for place in places if _key(place) not in rows and place not in missing]
    if missing:
        cover = covered(asked.tests)
        for name in ("torch.export", "numpy", "safetensors", "PIL", "transformers"):
            __import__(name)
        side_by_side(asked.jobs, lambda job: _judge(missing[job :: asked.jobs], asked.seconds, cover, job))
        _forget_what_changed()
    rows = _read()
    asked.page.write_text(page([rows[_key(place)] for place in places if _key(place) in rows], asked.seed, len(places)))


def side_by_side(jobs: int, work: Callable[[int], None]) -> None:
    """Do parts of the work in processes of their own, which share what has been imported.

    Raises:
        RuntimeError: A process failed.
    """
    children = []
    for job in range(jobs):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work(job)
                code = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    ended = [os.waitpid(child, 0)[1] for child in children]
    if any(ended):
        raise RuntimeError("a process that judged faults failed; what it said stands above")


def _judge(places: Sequence[Place], most: float, cover: Cover, job: int) -> None:
    files = FOLDER / f"tmp-{job}"

    def tests(place: Place) -> list[str]:
        return ranked(place, cover, most)

    inside = [place for place in places if place.fault.scope and tests(place)]
    warm = Warm(inside, tests, cover.seconds, _write, files)

    if inside:
        warm.serve()
    done = _read()
    for place in places:
        row = done.get(_key(place))
        if not tests(place):
            _write(place, Verdict("survived", "", 0, 0.0))
        elif not place.fault.scope or (row and row["outcome"] == "unplaced"):
            _write(place, imported(place, tests(place), cover.seconds, files))


def _key(place: Place) -> str:
    return hashlib.sha256(f"{place.path.read_text()} {place.file} {place.fault.index}".encode()).hexdigest()[:16]


def _read() -> dict[str, dict[str, object]]:
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    return {row["key"]: row for row in rows}


def _forget_what_changed() -> None:
    """Rows of files as they no longer are; of a fault that was tried again, the last stays."""
    now = {_key(place) for place in sampled(sys.maxsize, seed=0)}
    rows = [json.dumps(row) + "\n" for key, row in _read().items() if key in now]
    ROWS.write_text("".join(sorted(rows)))


def _write(place: Place, verdict: Verdict) -> None:
    row = {"key": _key(place), "file": place.file} | asdict(place.fault) | asdict(verdict)
    with ROWS.open("a") as file:
        file.write(json.dumps(row) + "\n")  # in one piece: others write to it, too
    print(
        f"{verdict.outcome:9} {verdict.seconds:6.1f} s  {place.file}:{place.fault.line}  {place.fault.old} → "
        f"{place.fault.new}  {verdict.by}",
        flush=True,
    )


if __name__ == "__main__":
    main()
