import pytest

from metaprune.report.paths import like, runs, spans, template


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("blocks.3.mlp.0", "blocks.#.mlp.#"),
        ("layer1.0.conv2", "layer#.#.conv2"),
        ("blocks.12.attn.q[1]", "blocks.#.attn.q[1]"),
        ("x:1", "x:1"),
        ("0[1]", "#[1]"),
        ("conv2d.weight:0", "conv2d.weight:0"),
        ("features.denseblock1.denselayer12.conv1", "features.denseblock#.denselayer#.conv1"),
    ],
)
def test_template_takes_the_numbers_of_blocks_away(path: str, expected: str) -> None:
    assert template(path) == expected


def test_like_knows_what_lies_in_the_same_block() -> None:
    own = "stages.1.blocks.2.conv1"
    assert like("stages.1.blocks.2.conv2", own) == "stages.=.blocks.=.conv2"
    assert like("stages.1.blocks.3.conv1", own) == "stages.=.blocks.#.conv1"
    assert like("stages.0.blocks.2.conv1", own) == "stages.#.blocks.#.conv1"
    assert like("stages.11.blocks.2.conv1", own) == "stages.#.blocks.#.conv1"


def test_runs() -> None:
    assert runs([3, 0, 1, 2, 5, 8, 7]) == "0–3,5,7–8"


def test_spans_writes_equal_paths_as_one_in_order() -> None:
    paths = ["stem", *(f"blocks.{i}.fc" for i in range(32)), "head"]
    assert spans(paths) == [("stem", ("stem",)), ("blocks.0–31.fc", tuple(paths[1:-1])), ("head", ("head",))]


def test_spans_says_no_path_that_is_not_there() -> None:
    paths = [*(f"layer1.{i}.conv" for i in range(3)), *(f"layer2.{i}.conv" for i in range(4))]
    assert [text for text, _ in spans(paths)] == ["layer1.0–2.conv", "layer2.0–3.conv"]
    assert [text for text, _ in spans([path for path in paths if "3" not in path])] == ["layer1–2.0–2.conv"]
