"""What the benchmark of MetaPruning computes beside training: correlations, groups of vectors, the page."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import metapruning

    return metapruning


def test_rank_correlations(module: Any) -> None:
    """1 - 6 sum d^2 / (n^3 - n) without ties; with ties, the correlation of mean ranks."""
    for order in itertools.permutations(range(5)):
        by_hand = 1 - 6 * sum((place - value) ** 2 for place, value in enumerate(order)) / (5**3 - 5)
        assert module.spearman([10.0, 20, 30, 40, 50], [v**3 for v in order]) == pytest.approx(by_hand)
    assert module.spearman([1, 1, 2], [1, 1, 2]) == pytest.approx(1.0)
    assert module.spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(0.75**0.5)
    assert module.spearman([1, 1, 1], [1, 2, 3]) != module.spearman([1, 1, 1], [1, 2, 3])  # no number


def test_groups_of_vectors(module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All within the budget and near to it; the uniform one in the first, and equal nearness in the second."""
    monkeypatch.setattr(module, "DRAWS", 30)
    loader = DataLoader(TensorDataset(torch.zeros(4, 3, 32, 32), torch.arange(4)), batch_size=2)
    data = SimpleNamespace(train=loader, val=loader, test=loader, shape=(3, 32, 32))
    bench = module.Bench(data, module.Setting(1, None, 6, 2, 1), tmp_path)
    groups = bench.vectors()
    assert [len(set(vectors)) for vectors in groups.values()] == [6, 6]
    for vectors in groups.values():
        assert all(module.SHARE - 0.02 < bench.genes.share(widths) <= module.SHARE for widths in vectors)
    near = {name: [bench.nearness(widths) for widths in vectors] for name, vectors in groups.items()}
    assert near["all"][0] == max(near["all"])
    assert max(near["equally near"]) - min(near["equally near"]) < 0.5 * (max(near["all"]) - min(near["all"]))


def rows() -> list[dict[str, Any]]:
    said = [{"recalibrated": 40.0 + place, "not": 10.0} for place in range(3)]
    found: list[dict[str, Any]] = [
        {"what": "asked", "kind": "shared", "seed": 0, "said": {"all": said, "equally near": said}, "widths": [1]}
    ]
    for group, place, seed in itertools.product(("all", "equally near"), range(3), range(2)):
        found.append(
            {
                "what": "scratch",
                "group": group,
                "place": place,
                "seed": seed,
                "nearness": -place,
                "val": 50.0 + place + seed,
            }
        )
    for arm in ("uniform", "shared"):
        found.append({"what": "final", "arm": arm, "seed": 0, "nearness": -0.1, "share": 0.3, "test": 60.0})
    points = {"hard budgets": [(0.2, 40.0), (0.3, 45.0)]}
    return [*found, {"what": "fronts", "kind": "shared", "points": points}]


def test_the_page(module: Any, tmp_path: Path) -> None:
    page = module.page(rows())
    assert "| pruning network, shared, seed 0 | 1.00 | 1.00 | 3 | 2 |" in page
    assert "| nearness to uniform widths, no training at all | -1.00 | -1.00 | 3 | 2 |" in page
    assert "| scratch seed 0 against seed 1 | 1.00 | 1.00 | 3 | 1 |" in page
    assert "| shared | 41.00 ± 0.89 | 10.00 ± 0.00 |" in page
    assert "| searched, shared | 60.00 | -0.100 | 0.3000 | 1 |" in page
    assert "0.200: 40.00, 0.300: 45.00" in page
    module.picture(rows(), tmp_path / "page.svg")
    assert "<svg" in (tmp_path / "page.svg").read_text()
