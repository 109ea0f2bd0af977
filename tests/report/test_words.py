from dataclasses import replace

import pytest

from metaprune.cost.latency import Latency
from metaprune.report import words
from metaprune.report.report import Floor, Report


def said(report: Report) -> str:
    return "".join(clause.text for clause in words.headline(report))


def with_pruned(report: Report, **figures: object) -> Report:
    return replace(report, pruned=replace(report.pruned, **figures))  # type: ignore[arg-type]


def timed(report: Report, median_ms: float, **conditions: object) -> Report:
    assert report.pruned.latency
    return with_pruned(report, latency=replace(report.pruned.latency, median_ms=median_ms, **conditions))  # type: ignore[arg-type]


def test_headline_says_cost_quality_and_speed(small: Report) -> None:
    assert said(small) == "resnet20 keeps 0.50 of its MACs, accuracy 0.3 points below dense, 1.4× faster measured."


def test_headline_admits_bad_news(small: Report, deep: Report) -> None:
    assert said(timed(small, 80.4)).endswith("0.3 points below dense, and is 1.7× slower.")
    assert said(timed(with_pruned(small, metric=86.0), 80.4)).endswith("above dense, but is 1.7× slower.")
    assert said(timed(small, 46.5)).endswith("0.3 points below dense; speed within the spread.")
    assert said(with_pruned(small, metric=float("nan"))).count("no longer finite") == 1
    assert said(deep).endswith(
        "0.33 of its MACs, perplexity 0.50 above dense (worse) (dense was trained 12 epochs less); speed not measured."
    )
    assert "accuracy level with dense" in said(with_pruned(small, metric=85.36))


@pytest.mark.parametrize(
    ("metric", "verdict", "tone"),
    [
        (60.6, "accuracy 60.60 against 45.80 (dense was trained 8 epochs less)", "plain"),
        (45.8, "accuracy 45.80 against 45.80 (dense was trained 8 epochs less)", "plain"),
        (44.0, "accuracy 1.8 points below dense (dense was trained 8 epochs less)", "bad"),
    ],
)
def test_a_dense_network_that_was_trained_less_is_not_beaten(
    small: Report, metric: float, verdict: str, tone: str
) -> None:
    report = replace(with_pruned(small, metric=metric), dense=replace(small.dense, metric=45.8))
    less = replace(report, dense_epochs=0.0)
    assert words.headline(less)[1] == (verdict, tone)
    assert "dense was trained" not in said(report)
    assert ("above dense" in said(report)) == (metric > 45.8)
    assert words.against_dense(less, 60.6).tone == words.against_dense(report, 60.6, longer=3).tone == "plain"
    assert words.against_dense(report, 60.6).tone == "good"
    assert words.against_dense(less, 44.0).tone == "bad"


def test_a_network_that_was_not_trained_on_beats_dense_by_right(small: Report) -> None:
    assert "15.0 points above dense," in said(replace(with_pruned(small, metric=100.35), dense_epochs=0, history=()))


@pytest.mark.parametrize("better", [True, False])
def test_where_the_input_is_better_that_is_the_headline(small: Report, better: bool) -> None:
    report = replace(small, metric_name="PSNR (dB)", higher_is_better=better, dense=replace(small.dense, metric=29.0))
    report = replace(report, pruned=replace(small.pruned, metric=28.1), floor=Floor("bicubic", 28.43, {"SSIM": 0.8}))
    useless = said(report)
    if better:
        assert useless == (
            "PSNR is better without the network: 28.43 dB (bicubic) against 28.10 dB. "
            "resnet20 keeps 0.50 of its MACs, 1.4× faster measured."
        )
        assert words.headline(report)[0].tone == "bad"
    else:
        assert "without" not in useless
    level = said(replace(report, floor=Floor("bicubic", 28.1)))
    assert level.startswith("PSNR is no better with the network: 28.10 dB (bicubic) against 28.10 dB. resnet20")


@pytest.mark.parametrize(("bound", "is_missed"), [(33.5, True), (33.6, False), (40.0, False), (None, False)])
def test_a_missed_latency_is_in_the_headline(small: Report, bound: float | None, is_missed: bool) -> None:
    late = words.missed(replace(small, latency_bound=bound))
    assert late == (("The budget of 33.5 ms is missed: 33.60 ms measured.", "bad") if is_missed else None)
    assert said(replace(small, latency_bound=bound)).endswith("missed: 33.60 ms measured.") == is_missed


@pytest.mark.parametrize("other", [{"batch": 1}, {"device": "cuda"}, {"threads": 1}, {"precision": "bf16-mixed"}])
def test_times_taken_elsewhere_are_not_compared(small: Report, other: dict[str, object]) -> None:
    clause = words.speed(small.dense.latency, timed(small, 1.0, **other).pruned.latency)
    assert clause.tone == "plain"
    assert clause.text == f"not comparable: measured at another {next(iter(other))}"


@pytest.mark.parametrize(
    ("median", "text"),
    [
        (100.0, "within the spread"),
        (99.0, "within the spread"),
        (101.0, "within the spread"),
        (98.9, "1.01× faster"),
        (96.0, "1.04× faster"),
        (104.0, "1.04× slower"),
        (50.0, "2.0× faster"),
    ],
)
def test_speed_is_held_against_the_spread(median: float, text: str) -> None:
    def at(ms: float) -> Latency:
        return Latency(ms, 1.0, runs=5, batch=1, device="cpu", precision="32-true", threads=1)

    assert words.speed(at(100.0), at(median)).text == text


def test_the_larger_spread_decides() -> None:
    def at(ms: float, iqr: float) -> Latency:
        return Latency(ms, iqr, runs=5, batch=1, device="cpu", precision="32-true", threads=1)

    for one, other in ((4.0, 0.1), (0.1, 4.0)):
        assert words.speed(at(10.0, one), at(6.5, other)) == ("within the spread", "plain")
    assert words.speed(at(10.0, 0.01), at(9.96, 0.01)) == ("within 0.5 %", "plain")


def test_comparison_names_the_winner_and_unequal_epochs(small: Report) -> None:
    assert words.comparison(small) == (
        "DHP: accuracy 0.2 points below magnitude, the best of the others. "
        "Every pruned row had 8 epochs after the dense network."
    )
    dense, *cut = small.arms
    assert dense.figures == small.dense  # its epochs came before: they are no matter here
    assert words.comparison(replace(small, arms=(replace(dense, epochs=0), *cut))) == words.comparison(small)
    arms = (dense, replace(cut[0], epochs=0), *cut[1:])
    assert words.comparison(replace(small, arms=arms)).endswith("compare with care.")


def test_alignment_admits_that_it_did_not_pay(small: Report) -> None:
    assert small.alignment
    assert small.alignment.latency_unaligned
    won = [clause.text for clause in words.alignment(small)]
    assert won == [
        "It cost: 1.4 % more MACs than with unaligned widths.",
        "It won: 1.8× faster than unaligned widths, measured.",
    ]
    faster = replace(small.alignment, latency_unaligned=replace(small.alignment.latency_unaligned, median_ms=30.0))
    assert words.alignment(replace(small, alignment=faster))[1].text.startswith("It did not pay here: 1.1× slower")
    assert words.alignment(replace(small, alignment=None)) == []


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0"), (640, "640"), (999, "999"), (1000, "1.00 k"), (272_474, "272 k"), (999_600, "1.00 M")],
)
def test_counts_have_three_digits(n: int, text: str) -> None:
    assert words.count(n) == text


def test_byte_sizes_and_shares() -> None:
    assert words.byte_size(1_101_112) == "1.10 MB"
    assert [words.share(part, 1000) for part in (497, 95, 31, 0)] == ["0.50", "0.10", "0.031", "0.00"]
    assert words.share(1, 0) == "-"


def test_conditions_name_what_ran_the_network(small: Report) -> None:
    time = small.pruned.latency
    assert time is not None
    assert words.conditions(time).endswith("contiguous tensors")
    assert words.conditions(replace(time, backend="onnxruntime")).endswith("contiguous tensors, onnxruntime")
    assert words.conditions(replace(time, backend="measure", device="phone")) == "as phone measures it"
    assert "another backend" in words.speed(time, replace(time, backend="compiled")).text
