import itertools
from dataclasses import replace
from typing import Any

import yaml

from metaprune.report.card import model_card
from metaprune.report.report import Report


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


def table(card: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    lines = [line for line in card.partition(f"## {heading}")[2].splitlines() if line or not heading]
    rows = list(itertools.takewhile(lambda line: line.startswith("|"), lines[lines[0][:1] != "|" :]))
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def test_figures_stand_in_their_columns(small: Report) -> None:
    dense, pruned = (replace(f, further={"F1": v}) for f, v in ((small.dense, 0.847), (small.pruned, 0.83)))
    assert table(model_card(replace(small, dense=dense, pruned=pruned)), "Figures") == [
        ["MACs of one example", "40,813,184", "20,291,584", "×0.50"],
        ["parameters", "272,474", "150,218", "×0.55"],
        ["bytes on disk", "1,101,112", "612,344", "×0.56"],
        ["accuracy (%), test split", "85.35", "85.02", "−0.33"],
        ["F1, test split", "0.8470", "0.8300", "−0.0170"],
        ["latency (median, spread)", "47.3 ms, 1.1 ms", "33.6 ms, 0.90 ms", "1.4× faster"],
    ]


def test_every_arm_has_a_row(small: Report) -> None:
    assert table(model_card(small), "Comparison") == [
        ["dense", "8", "40.8 M", "272 k", "1.10 MB", "85.35", "47.3 ms, 1.1 ms"],
        ["DHP", "8", "20.3 M", "150 k", "612 kB", "85.02", "33.6 ms, 0.90 ms"],
        ["magnitude", "8", "20.4 M", "142 k", "579 kB", "85.27", "34.0 ms, 1.3 ms"],
        ["uniform", "8", "20.4 M", "137 k", "560 kB", "83.91", "33.1 ms, 0.80 ms"],
    ]


def test_the_headline_is_the_first_sentence(small: Report) -> None:
    _, _, body = model_card(replace(small, dense_epochs=0.0)).split("---\n", 2)
    assert body.strip().splitlines()[2] == (
        "resnet20 keeps 0.50 of its MACs, accuracy 0.3 points below dense (dense was trained 8 epochs less), "
        "1.4× faster measured."
    )
    late = model_card(replace(small, latency_bound=30.0))
    assert "1.4× faster measured. The budget of 30 ms is missed: 33.60 ms measured.\n" in late


def test_card_says_how_to_load_and_what_it_costs(report: Report) -> None:
    card = model_card(report)
    for expected in ('mp.load("path/to/this/folder", dense)', "## Figures", "## Limits", *report.commands):
        assert expected in card
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
