from dataclasses import replace
from typing import Any

import pytest

from metaprune.report.card import model_card
from metaprune.report.report import Report

yaml = pytest.importorskip("yaml")


def front_matter(card: str) -> dict[str, Any]:
    block: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return block


def test_front_matter_is_what_hubs_read(small: Report) -> None:
    block = front_matter(model_card(small))
    assert block["library_name"] == "metaprune"
    assert block["datasets"] == ["cifar10"]
    (result,) = block["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "name": "accuracy (%)", "value": 85.02}]
    assert result["dataset"]["split"] == "test"


def test_card_says_how_to_load_and_what_it_costs(report: Report) -> None:
    card = model_card(report)
    for expected in ('mp.load("path/to/this/folder", dense)', "## Figures", "## Limits", *report.commands):
        assert expected in card
    for figures in (report.dense, report.pruned):
        assert f"{figures.macs:,}" in card
        assert f"{figures.params:,}" in card
    assert ("Speed was not measured" in card) == (report.pruned.latency is None)
    assert ("no test split" in card) == (report.split != "test")


def test_names_are_no_markup(deep: Report) -> None:
    name = 'a|b`c`<script>: "x"\n---\n# d'
    card = model_card(replace(deep, network=name, method=name, commands=("echo ```",)))
    _, _, body = card.split("---\n", 2)
    assert [line[:13] for line in body.splitlines() if "<script>" in line] == ["dense = ...  "]  # in a code block
    assert front_matter(card)["model-index"][0]["name"] == f"{name}, pruned by {name}"
    assert "\n# d" not in card
    assert "````bash\necho ```\n````" in card
    for line in card.splitlines():
        if line.startswith("| "):
            assert line.replace("\\|", "").count("|") == 5
