"""The page about time: rows, those that no network can meet among them, and what budgets are missed by."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import clock

    met = {"plan s": 0.1, "first": {}, "missed": dict(zip(clock.METHODS, (1.0, -3.0, 2.0), strict=True))}
    row = {
        "network": "resnet20", "batch": 1, "precision": "32-true", "machine": "a CPU", "ms": 3.0, "least ms": 1.0,
        "table s": 4.0, "again s": 0.1, "form": {"mean": 2.0, "most": 4.0}, "macs": {"mean": 5.0, "most": 9.0},
        "speed 1.4": met, "speed 2.0": None,
    }  # fmt: skip
    page = clock.page([row])
    assert "| 5.0, 9.0 | +1.0, -3.0, +2.0 | cannot |" in page
    assert "by 2.0 % on average, by 3.0 % at most (3 results); 1 of 2 ask" in page
    assert "on one thread of a CPU" in page
    nothing = clock.page([row | {"speed 1.4": None}])
    assert "| cannot | cannot |" in nothing
    assert "Of the budgets 2 of 2 ask for more" in nothing
