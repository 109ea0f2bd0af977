"""The examples run, with the real libraries."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {"lightning_trainer": "lightning", "transformers_trainer": "accelerate"}
RUN = [path.stem for path in sorted(EXAMPLES.glob("*.py")) if "main" in path.read_text(encoding="utf-8")]


@pytest.mark.filterwarnings("ignore")  # what these libraries say of themselves
@pytest.mark.parametrize("name", RUN)
def test_an_example_runs(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "digits", raising=False)
    accuracy = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](epochs=1)
    assert 0 < accuracy <= 100
    assert "of the MACs" in capsys.readouterr().out


def test_there_are_all_three() -> None:
    assert RUN == ["lightning_trainer", "plain_loop", "transformers_trainer"]
