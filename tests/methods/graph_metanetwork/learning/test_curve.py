"""The course of a meta-training: drawn where it was, said in words, and read again."""

import json
import re
from pathlib import Path

from metaprune.methods.graph_metanetwork.learning.curve import SURPRISE, Check, Curve, Step, written_in


def curve(metric_name: str = "accuracy (%)") -> Curve:
    steps = [Step(1, "a", 0.1, {"loss": 4.0}), Step(2, "b", 0.05, {"loss": 2.0, "penalty": 0.5})]
    checks = [Check(0, 50.0, {"held": (40.0, 60.0)}), Check(2, 54.0, {"held": (44.0, 64.0)})]
    return Curve("Paper(<1>)", metric_name, steps, checks, chosen=2)


def test_points_lie_where_they_were_measured() -> None:
    """To the right with the steps, upwards with the values; what was taken has a dot."""
    page = curve().page()
    lines = re.findall('<polyline points="(.*?)"/>(.*?)</svg>', page)
    assert [line for line, _ in lines] == ["350.0,10.0 630.0,150.0", "630.0,10.0", "70.0,150.0 630.0,10.0"]
    assert [re.findall('<circle cx="(.*?)" cy="(.*?)"', dots) for _, dots in lines] == [[], [], [("630.0", "10.0")]]
    extremes = re.findall('<text x="2" y="(?:18|152)">(.*?)</text>', page)
    assert extremes == ["4", "2", "0.5", "0.5", "54", "50"]
    assert re.findall("<h2>(.*?)</h2>", page)[:2] == ["loss", "penalty"]
    assert "Paper(&lt;1&gt;). 2 steps; taken: the parameters after step 2.</p>" in page


def test_where_it_is_in_words() -> None:
    assert curve().note == "loss 2.000, penalty 0.500, area 54.00 (50.00 without edits)"
    assert curve(SURPRISE).note.endswith("surprise 54.00 (50.00 without edits)")
    assert curve().best.area == 54.0
    assert Curve("", "").note == ""


def test_it_is_read_as_it_was_written_and_known_again(tmp_path: Path) -> None:
    one = curve()
    one.write(tmp_path / "new")
    assert Curve.of(json.loads((tmp_path / "new" / "curve.json").read_text())) == one
    assert all(ours(path) for path, ours in written_in(tmp_path / "new"))
    for path, ours in written_in(tmp_path):
        path.write_text('{"goal": 1, "steps": []}')
        assert not ours(path)
