"""The table of few-shot arms: run by run, to the page, on drawings of noise and few steps."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import few_shot

    monkeypatch.setattr(few_shot, "PAGE", tmp_path / "page.md")
    return few_shot


def drawings(folder: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    for character in range(16):
        place = folder / "alphabet" / f"character{character}"
        place.mkdir(parents=True)
        for each in range(8):
            noise = torch.randint(256, (8, 8), dtype=torch.uint8, generator=generator)
            Image.fromarray(noise.numpy()).save(place / f"{each}.png")
    return folder


def test_from_runs_to_the_page(bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Channels at zero are cut; runs that are there are not run again."""
    options = (
        "--arms dense|channels, IHT 0.5, cut|--shots 1|--ways 2|--seeds 1|--filters 4|--epochs 1|--steps 2|--tasks 1"
    )
    few = "--test-steps|2|--train-shots|2|--episodes|2|--size|8"
    few += f"|--data|{drawings(tmp_path / 'drawings')}|--out|{tmp_path / 'runs'}"
    flat = [word for part in options.split("|") for word in ([part] if "," in part else part.split())]
    monkeypatch.setattr(sys, "argv", ["few_shot.py", *flat, *few.split("|")])
    bench.main()
    page = (tmp_path / "page.md").read_text()
    dense, cut = (line for line in page.splitlines() if line.startswith("| 2-way 1-shot"))
    assert "| dense |" in dense
    assert int(cut.split("|")[7].replace(",", "")) < int(dense.split("|")[7].replace(",", ""))
    assert "2 episodes of each, not transductive" in page
    monkeypatch.setattr(bench, "row_of", lambda *run: pytest.fail("it was there"))
    bench.main()
    assert (tmp_path / "page.md").read_text() == page
