"""The texts of a result in its folder, and how those that metaprune wrote are told from those of others.

Pages and cards end with a comment that holds the checksum of what is above it: one that somebody changed is theirs.
A model card is README.md where there is none or it is ours; beside a README.md of others it is MODEL_CARD.md.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from metaprune.report.card import model_card
from metaprune.report.page import render
from metaprune.report.report import Report, to_json
from metaprune.train.atomic import utf8

__all__ = ["CARDS", "card_name", "is_ours", "texts"]

CARDS = ("README.md", "MODEL_CARD.md")
_SEAL = re.compile(rb"\n<!-- written by metaprune, ([0-9a-f]{8}) -->\n\Z")


def texts(folder: Path, report: Report) -> dict[str, str]:
    """Name -> text of each file that tells what is known of a result."""
    return {
        "report.json": to_json(report),
        "report.html": _sealed(render(report)),
        card_name(folder): _sealed(model_card(report)),
    }


def card_name(folder: Path) -> str:
    """What the model card is called in this folder."""
    first, second = CARDS
    return first if not (folder / first).exists() or is_ours(folder / first) else second


def is_ours(path: Path) -> bool:
    """Whether metaprune wrote this text, and nobody changed it since.

    Raises:
        OSError: It cannot be read.
    """
    content = path.read_bytes()
    if path.name == "report.json":
        return b'"metaprune_report"' in content
    found = _SEAL.search(content)
    if found is None:  # pages of the first version end without
        return path.name == "report.html" and b"<b>metaprune</b> report" in content
    return int(found[1], 16) == zlib.crc32(content[: found.start()])


def _sealed(text: str) -> str:
    plain = text.rstrip("\n")
    return f"{plain}\n<!-- written by metaprune, {zlib.crc32(utf8(plain)):08x} -->\n"
