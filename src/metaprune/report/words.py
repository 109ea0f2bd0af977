"""Figures and sentences that the page and the model card share: plain, and honest where the news is bad."""

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Literal, NamedTuple

from metaprune.cost.latency import Latency
from metaprune.report.report import Report

__all__ = [
    "Clause",
    "against_dense",
    "alignment",
    "byte_size",
    "change",
    "comparison",
    "conditions",
    "count",
    "counted",
    "cut",
    "difference",
    "epochs",
    "extra_epochs",
    "floor",
    "headline",
    "measured",
    "measures",
    "metric",
    "milliseconds",
    "missed",
    "quality",
    "share",
    "significant",
    "speed",
    "spread",
    "title",
    "unit",
]

NONE = "not measured"
TWO_PLACES = ("%", "dB")
"""Units whose values have two decimals, whatever their size."""


class Clause(NamedTuple):
    """A piece of a sentence, and whether it is good news."""

    text: str
    tone: Literal["good", "bad", "plain"] = "plain"


def significant(x: float, digits: int = 3) -> str:
    """`x` with that many significant digits, trailing zeros kept: 40.0, 1.25, 0.0312."""
    if not math.isfinite(x):
        return "not finite"
    exponent = int(f"{x:.{digits - 1}e}".partition("e")[2])
    return f"{x:.{max(0, digits - 1 - exponent)}f}".replace("-", "−")


def count(n: float, symbols: tuple[str, ...] = ("", "k", "M", "G", "T")) -> str:
    """A number of MACs, parameters or channels: 640, 272 k, 40.8 M."""
    for symbol in symbols[:-1]:
        if n < 999.5:
            return f"{significant(n) if symbol != symbols[0] else f'{n:.0f}'} {symbol}".rstrip()
        n /= 1000
    return f"{significant(n)} {symbols[-1]}"


def byte_size(n: float) -> str:
    """A file size, in powers of ten: 1.12 MB."""
    return count(n, ("B", "kB", "MB", "GB", "TB"))


def share(part: float, whole: float) -> str:
    """The share that stays: 0.50."""
    if not whole:
        return "-"
    ratio = part / whole
    return f"{ratio:.2f}" if ratio >= 0.095 or not ratio else significant(ratio, 2)


def epochs(n: float) -> str:
    """1 epoch, 8 epochs."""
    return f"{n:g} epoch{'s' * (n != 1)}"


# the metric


def title(report: Report) -> str:
    """The metric's name without its unit: "accuracy"."""
    return re.sub(r"\s*\([^()]*\)\s*$", "", report.metric_name)


def unit(report: Report) -> str:
    """The metric's unit, the part of its name in brackets: "%", "dB" or ""."""
    return found[1] if (found := re.search(r"\(([^()]*)\)\s*$", report.metric_name)) else ""


def metric(report: Report, value: float | None) -> str:
    """A value of the metric: 84.88 for a percentage or decibels, four digits otherwise."""
    if value is None:
        return NONE
    return f"{value:.2f}" if unit(report) in TWO_PLACES and math.isfinite(value) else significant(value, 4)


def change(report: Report, value: float | None, against: float | None) -> Clause:
    """The signed difference of two values, and whether it is for the better."""
    if value is None or against is None or not math.isfinite(delta := value - against):
        return Clause("")
    text = f"{delta:+.2f}" if unit(report) in TWO_PLACES else f"{delta:+.{_places(against)}f}"
    if not float(text):
        return Clause("±0")
    return Clause(text.replace("-", "−"), "good" if (delta > 0) == report.higher_is_better else "bad")


def extra_epochs(report: Report) -> float:
    """How many epochs the pruned network was trained longer than the dense one that it is held against."""
    return max(0.0, max((e.epoch for e in report.history), default=0.0) - report.dense_epochs)


def against_dense(report: Report, value: float | None, longer: float | None = None) -> Clause:
    """The signed difference from the dense network; better is no good news where dense was trained less.

    Args:
        report: Has the dense network.
        value: Of another network.
        longer: How many epochs that network was trained longer; by default as many as the pruned one.
    """
    found = change(report, value, report.dense.metric)
    longer = extra_epochs(report) if longer is None else longer
    return Clause(found.text) if found.tone == "good" and longer > 0 else found


def measures(report: Report, value: float | None, further: Mapping[str, float]) -> str:
    """A value of the metric and those beside it: 31.77 dB, SSIM 0.8902."""
    measure = f" {unit(report)}" if unit(report) and value is not None else ""
    rest = [f"{name} {significant(other, 4)}" for name, other in further.items()]
    return ", ".join(rest if value is None and rest else [f"{metric(report, value)}{measure}", *rest])


def cut(report: Report) -> str:
    """What the cut did on the validation split, before fine-tuning: "The cut itself took it from 79.60 to 79.58."."""
    before, raw, after = report.before_cut, report.as_cut, report.after_cut
    if after is None or (before is None and raw is None):
        return ""
    start = (
        "Right after the cut it was" if before is None else f"The cut itself took it from {metric(report, before)} to"
    )
    if raw is None:
        return f"{start} {metric(report, after)}."
    return f"{start} {metric(report, raw)}, and recalibrated statistics to {metric(report, after)}."


def difference(value: float | None, against: float) -> str:
    """The signed difference of two values of a metric beside the main one."""
    if value is None or not math.isfinite(delta := value - against):
        return ""
    return f"{delta:+.{_places(against)}f}".replace("-", "−")


def quality(report: Report, value: float | None, against: float | None, other: str) -> Clause:
    """The difference in words: "accuracy 0.3 points below dense"."""
    if value is None or against is None:
        return Clause(f"{title(report)} not measured")
    delta = value - against
    if not math.isfinite(delta):
        return Clause(f"{title(report)} no longer finite", "bad")
    percent = unit(report) == "%"
    amount = f"{abs(delta):.1f}" if percent else significant(abs(delta), 2)
    places = 1 if percent else 2 if unit(report) in TWO_PLACES else _places(against)
    if not float(f"{delta:.{places}f}"):
        return Clause(f"{title(report)} level with {other}", "good")
    measure = {"%": " points", "": ""}.get(unit(report), f" {unit(report)}")
    better = (delta > 0) == report.higher_is_better
    odd = "" if report.higher_is_better else " (better)" if better else " (worse)"
    side = "above" if delta > 0 else "below"
    return Clause(f"{title(report)} {amount}{measure} {side} {other}{odd}", "good" if better else "bad")


def _places(value: float) -> int:
    """The decimals that `metric` shows of a value that is no percentage."""
    return max(0, 3 - math.floor(math.log10(abs(value)))) if value else 3


# the time


def milliseconds(latency: Latency | None) -> str:
    """The median: 9.12 ms."""
    return NONE if latency is None else f"{significant(latency.median_ms)} ms"


def spread(latency: Latency) -> str:
    """The spread: 0.40 ms between the quartiles."""
    return f"{significant(latency.iqr_ms, 2)} ms"


def conditions(latency: Latency) -> str:
    """Where and how: "cpu, 2 threads, 32-true, contiguous tensors"."""
    if latency.backend == "measure":
        return f"as {latency.device} measures it"
    threads = [f"{latency.threads} thread{'s' * (latency.threads != 1)}"] if latency.device == "cpu" else []
    backend = [] if latency.backend == "eager" else [latency.backend]
    return ", ".join([latency.device, *threads, latency.precision, f"{latency.layout} tensors", *backend])


def measured(latency: Latency) -> str:
    """All of it: "batch 128, cpu, 2 threads, 32-true, contiguous tensors, median of 87 runs"."""
    runs = f"median of {latency.runs} run{'s' * (latency.runs != 1)}"
    return f"batch {latency.batch}, {conditions(latency)}, {runs}"


def missed(report: Report) -> Clause | None:
    """That the pruned network takes longer than it was allowed to; None where it does not, or nothing was asked."""
    bound, found = report.latency_bound, report.pruned.latency
    if bound is None or found is None or found.median_ms <= bound:
        return None
    return Clause(f"The budget of {bound:g} ms is missed: {significant(found.median_ms, 4)} ms measured.", "bad")


def speed(before: Latency | None, after: Latency | None) -> Clause:
    """The measured change in words: no verdict where the spread of either is as large as the difference."""
    if before is None or after is None:
        return Clause(NONE)
    conditions = {f.name for f in fields(before)} - {"median_ms", "iqr_ms", "runs"}
    if odd := sorted(name for name in conditions if getattr(before, name) != getattr(after, name)):
        return Clause(f"not comparable: measured at another {' and '.join(odd)}")
    gain = before.median_ms / after.median_ms
    factor = max(gain, 1 / gain)
    if abs(before.median_ms - after.median_ms) <= max(before.iqr_ms, after.iqr_ms):
        return Clause("within the spread")
    if factor < 1.005:
        return Clause("within 0.5 %")
    text = f"{factor:.2f}×" if factor < 1.095 else f"{factor:.1f}×"
    return Clause(f"{text} faster", "good") if gain > 1 else Clause(f"{text} slower", "bad")


# sentences


def counted(report: Report) -> str:
    """What MACs are, and for which inputs: "… of one example, here 3×128×128"."""
    return "MACs are multiply-accumulates of one example" + (f", here {report.example}" if report.example else "")


def headline(report: Report) -> list[Clause]:
    """The result in a sentence or two, in clauses that know whether they are good news: the worst news first."""
    kept = share(report.pruned.macs, report.dense.macs)
    pace = speed(report.dense.latency, report.pruned.latency)
    late = missed(report)
    if (useless := _useless(report)) is not None:
        start = [useless, Clause(f" {report.network} keeps {kept} of its MACs")]
        tone = "bad"
    else:
        verdict = _verdict(report)
        start = [Clause(f"{report.network} keeps {kept} of its MACs, "), verdict]
        tone = verdict.tone
    end = {
        "good": [Clause(", "), Clause(f"{pace.text} measured", "good"), Clause(".")],
        "bad": [Clause(", and is " if tone == "bad" else ", but is "), Clause(pace.text, "bad"), Clause(".")],
        "plain": [Clause(f"; speed {pace.text}.")],
    }
    return [*start, *end[pace.tone], *([Clause(" "), late] if late else [])]


def _verdict(report: Report) -> Clause:
    """How good the pruned network is, against a dense one that may have been trained less."""
    value, against = report.pruned.metric, report.dense.metric
    found = quality(report, value, against, "dense")
    longer = extra_epochs(report)
    if not longer or value is None or against is None or not math.isfinite(value - against):
        return found
    if found.tone == "bad":
        return Clause(f"{found.text} (dense was trained {epochs(longer)} less)", "bad")
    text = f"{title(report)} {metric(report, value)} against {metric(report, against)}"
    return Clause(f"{text} (dense was trained {epochs(longer)} less)")


def _useless(report: Report) -> Clause | None:
    """That the inputs are as good without a network, where they are."""
    without, value = floor(report), report.pruned.metric
    if report.floor is None or without is None or without.tone != "bad":
        return None
    name, found = report.floor.name, measures(report, report.floor.metric, {})
    how = "no better with the network" if report.floor.metric == value else "better without the network"
    return Clause(f"{title(report)} is {how}: {found} ({name}) against {measures(report, value, {})}.", "bad")


def floor(report: Report) -> Clause | None:
    """What there is without a network, and whether that is better than the pruned one: then the network is no use."""
    if (found := report.floor) is None:
        return None
    text = f"Without a network ({found.name}): {measures(report, found.metric, found.further)}"
    value = report.pruned.metric
    better = value is not None and (value > found.metric if report.higher_is_better else value < found.metric)
    if value is None or better:
        return Clause(f"{text}.")
    return Clause(f"{text}, no worse than with the pruned one.", "bad")


def comparison(report: Report) -> str:
    """Who came out ahead among the cut networks, and whether the comparison is fair."""
    cut = [a for a in report.arms if a.figures.macs < report.dense.macs and a.figures.metric is not None]
    mine = next((a for a in cut if a.name == report.method), None)
    others = [a for a in cut if a is not mine and math.isfinite(a.figures.metric or 0.0)]
    sentences = []
    if mine and others:
        pick = max if report.higher_is_better else min
        best = pick(others, key=lambda a: a.figures.metric or 0.0)
        verdict = quality(report, mine.figures.metric, best.figures.metric, best.name)
        lead = "next best" if verdict.tone == "good" else "best of the others"
        sentences.append(f"{mine.name}: {verdict.text}, the {lead}.")
    lengths = {a.epochs for a in report.arms if a.figures != report.dense}
    if len(lengths) == 1:
        sentences.append(f"Every pruned row had {epochs(lengths.pop())} after the dense network.")
    else:
        sentences.append("Rows differ in epochs: compare with care.")
    return " ".join(sentences)


def alignment(report: Report) -> list[Clause]:
    """What alignment cost and what it won."""
    if report.alignment is None:
        return []
    macs, unaligned = report.pruned.macs, report.alignment.macs_unaligned
    percent = 100 * (macs / unaligned - 1) if unaligned else 0.0
    more = f"{abs(percent):.1f} % {'more' if percent > 0 else 'fewer'} MACs than"
    cost = more if abs(percent) >= 0.05 else "as many MACs as"
    pace = speed(report.alignment.latency_unaligned, report.pruned.latency)
    won = {
        "good": Clause(f"It won: {pace.text} than unaligned widths, measured.", "good"),
        "bad": Clause(f"It did not pay here: {pace.text} than unaligned widths.", "bad"),
        "plain": Clause(f"Its gain in time: {pace.text}."),
    }
    return [Clause(f"It cost: {cost} with unaligned widths."), won[pace.tone]]
