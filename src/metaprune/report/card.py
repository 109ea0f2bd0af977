"""The report as a model card: a README with the front matter that model hubs read."""

import json
import math
import re
from collections.abc import Iterable

from metaprune.report import words
from metaprune.report.report import Figures, Report

__all__ = ["model_card"]


def model_card(report: Report) -> str:
    """Write the README that lies beside the weights: what it is, how to load it, figures, origin, limits."""
    parts = [
        _front_matter(report),
        f"# {_text(report.network)}, pruned by {_text(report.method)}",
        _text("".join(clause.text for clause in words.headline(report))),
        f"metaprune cut the network for a budget of {_text(report.budget)} on {_text(report.data)}. "
        "Whole channels went, so it is a plain, smaller network that needs no special kernels. "
        "`report.html` shows it all.",
        "## Load it",
        _fence(
            "import metaprune as mp\n\n"
            f"dense = ...  # the network this one was cut from: {_one_line(report.network)}\n"
            'small = mp.load("path/to/this/folder", dense)',
            "python",
        ),
        "The folder holds `plan.json` (the channels that stay) and `model.safetensors` (their weights), "
        "no pickle. The weights of `dense` do not matter.",
        "## Figures",
        _figures(report),
        *_measured(report),
        *_comparison(report),
        "## How it was made",
        _origin(report),
    ]
    if report.commands:
        parts += ["Commands:", _fence("\n".join(report.commands), "bash")]
    if report.environment:
        parts.append(_bullets(f"{_text(name)}: {_text(value)}" for name, value in report.environment.items()))
    parts += ["## Limits", _bullets(_limits(report))]
    return "\n\n".join(parts) + "\n"


def _front_matter(report: Report) -> str:
    """The YAML block; strings are written as JSON, which YAML reads, so that nothing needs escaping twice."""

    def quote(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)

    dataset = report.data if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", report.data) else None
    lines = ["library_name: metaprune", "tags:", "- pruning", f"- {quote(report.method)}"]
    if dataset:
        lines += ["datasets:", f"- {quote(dataset)}"]
    lines += ["metrics:", f"- {quote(words.title(report))}"]
    if report.pruned.metric is not None and math.isfinite(report.pruned.metric):
        lines += [
            "model-index:",
            f"- name: {quote(f'{report.network}, pruned by {report.method}')}",
            "  results:",
            "  - task:",
            "      type: other",
            "    dataset:",
            f"      name: {quote(report.data)}",
            f"      type: {quote(dataset or 'other')}",
            f"      split: {quote(report.split)}",
            "    metrics:",
            f"    - type: {quote(words.title(report))}",
            f"      name: {quote(report.metric_name)}",
            f"      value: {report.pruned.metric!r}",
        ]
    return "\n".join(["---", *lines, "---"])


def _figures(report: Report) -> str:
    dense, pruned = report.dense, report.pruned
    counted = [
        (f"MACs of one example{f' ({report.example})' if report.example else ''}", dense.macs, pruned.macs),
        ("parameters", dense.params, pruned.params),
        ("bytes on disk", dense.bytes, pruned.bytes),
    ]
    rows = [
        *([n, f"{was:,}", f"{now:,}", f"×{words.share(now, was)}"] for n, was, now in counted),
        [
            f"{report.metric_name}, {report.split} split",
            words.metric(report, dense.metric),
            words.metric(report, pruned.metric),
            words.against_dense(report, pruned.metric).text,
        ],
        *(_beside(report, name) for name in dense.further),
        [
            "latency (median, spread)",
            _time(dense),
            _time(pruned),
            words.speed(dense.latency, pruned.latency).text if pruned.latency else "",
        ],
    ]
    return _table(["", "dense", "pruned", "change"], rows)


def _beside(report: Report, name: str) -> list[str]:
    """The row of a metric beside the one that chooses."""
    was, now = report.dense.further[name], report.pruned.further.get(name)
    written = words.NONE if now is None else words.significant(now, 4)
    return [f"{name}, {report.split} split", words.significant(was, 4), written, words.difference(now, was)]


def _measured(report: Report) -> list[str]:
    lines = []
    if (floor := words.floor(report)) is not None:
        lines.append(_text(floor.text))
    if (latency := report.pruned.latency) is not None:
        inputs = f", inputs of {_text(report.example)}" if report.example else ""
        lines.append(
            f"Latency: {_text(words.measured(latency))}{inputs}; "
            "the spread is the distance between the quartiles of the runs."
        )
    return lines


def _comparison(report: Report) -> list[str]:
    if not report.arms:
        return []
    rows = [
        [
            arm.name,
            str(arm.epochs),
            words.count(arm.figures.macs),
            words.count(arm.figures.params),
            words.byte_size(arm.figures.bytes),
            words.metric(report, arm.figures.metric),
            _time(arm.figures),
        ]
        for arm in report.arms
    ]
    head = ["network", "epochs", "MACs", "parameters", "on disk", report.metric_name, "latency"]
    return ["## Comparison", _text(words.comparison(report)), _table(head, rows)]


def _origin(report: Report) -> str:
    method = _text(report.method) + (f" ({_text(report.reference)})" if report.reference else "")
    settings = (f"{_text(name)}: {_text(value)}" for name, value in report.settings.items())
    return _bullets([f"method: {method}", f"budget: {_text(report.budget)}", *settings])


def _limits(report: Report) -> list[str]:
    """What the reader should know before relying on the figures."""
    limits = []
    if report.split != "test":
        limits.append(
            f"The {_text(words.title(report))} is that of the {_text(report.split)} split; "
            "there was no test split, so it may flatter."
        )
    if report.pruned.latency is None:
        limits.append("Speed was not measured: fewer MACs are not always less time.")
    else:
        limits.append("Latency holds for the device, batch and precision above; measure it on your own.")
    limits.append("A mean hides who pays: a cut network can lose more on rare inputs. Check it on your data.")
    limits += [_text(clause.text) for clause in words.alignment(report) if clause.tone == "bad"]
    limits += [_text(note) for note in report.notes]
    return limits


def _time(figures: Figures) -> str:
    if figures.latency is None:
        return words.NONE
    return f"{words.milliseconds(figures.latency)}, {words.spread(figures.latency)}"


# Markdown


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _text(text: str) -> str:
    """Running text in which nothing is markup."""
    plain = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|#]|(?<!\w)_|_(?!\w))", r"\\\1", plain)


def _table(head: list[str], rows: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    lines = [[_text(cell) for cell in head], rule, *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _fence(text: str, language: str) -> str:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
