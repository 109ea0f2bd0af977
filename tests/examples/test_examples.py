"""The examples run, with the real libraries."""

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SHARES = {"lightning_trainer": 40, "plain_loop": 40, "transformers_trainer": 50}
"""Per cent of the MACs that each is asked to leave."""
RUN = [path.stem for path in sorted(EXAMPLES.glob("*.py")) if "main" in path.read_text(encoding="utf-8")]


@pytest.mark.filterwarnings("ignore")  # what these libraries say of themselves
@pytest.mark.usefixtures("trainers_collect_nothing")
@pytest.mark.parametrize("name", RUN)
def test_an_example_runs(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "digits", raising=False)
    accuracy = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](epochs=1)
    said = capsys.readouterr().out
    [(share, told)] = re.findall(r"^(\d+)% of the MACs: ([\d.]+) %$", said, re.MULTILINE)
    assert SHARES[name] - 5 <= int(share) <= SHARES[name]
    assert float(told) == pytest.approx(accuracy, abs=0.051)
    assert accuracy > 15, "one digit in ten is chance"
    assert ("written for plain from_pretrained" in said) == (name == "transformers_trainer")


def test_there_are_all_three() -> None:
    assert RUN == ["lightning_trainer", "plain_loop", "transformers_trainer"]
