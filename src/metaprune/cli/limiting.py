"""Limits of widths, as options of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from metaprune.cli.errors import UsageError

if TYPE_CHECKING:
    from metaprune.graph.limits import Limits

__all__ = ["Alike", "AlikeChannels", "Keep", "Least", "Most", "Together", "limits_of"]

Keep = Annotated[
    list[str] | None, typer.Option(help="Axes or modules that stay whole: a pattern, as stem.*; may be given again.")
]
Least = Annotated[
    list[str] | None,
    typer.Option(help="Smallest widths, PATTERN=WIDTH: a share up to 1, or a number; may be given again."),
]
Most = Annotated[list[str] | None, typer.Option(help="Largest widths, PATTERN=WIDTH; may be given again.")]
Alike = Annotated[
    list[str] | None, typer.Option(help="Axes of equal blocks that get one width: a pattern, as layers.*.")
]
AlikeChannels = Annotated[list[str] | None, typer.Option(help="The same, and they keep the same channels.")]

Together = Annotated[
    list[str] | None,
    typer.Option(
        "--together", help="Axes of which the same share stays: patterns, as 'embed,*attn*'; may be given again."
    ),
]


def limits_of(
    keep: Sequence[str] | None,
    least: Sequence[str] | None,
    most: Sequence[str] | None,
    alike: Sequence[str] | None,
    alike_channels: Sequence[str] | None,
    together: Sequence[str] | None = None,
) -> Limits | None:
    """The limits that the options say; None where they say nothing.

    Raises:
        UsageError: A width is no number.
        LimitsError: A width is no share and no number of channels.
    """
    from metaprune.graph.limits import Limits

    if not any((keep, least, most, alike, alike_channels, together)):
        return None
    return Limits(
        keep=tuple(keep or ()),
        least=_widths("--least", least),
        most=_widths("--most", most),
        alike=tuple(alike or ()),
        alike_channels=tuple(alike_channels or ()),
        together=tuple(tuple(pattern.strip() for pattern in group.split(",")) for group in together or ()),
    )


def _widths(option: str, given: Sequence[str] | None) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in given or ():
        pattern, equals, value = text.rpartition("=")
        try:
            if not equals or not pattern:
                raise ValueError
            found[pattern] = float(value)
        except ValueError:
            raise UsageError(f"{option}: expected PATTERN=WIDTH, as 'stem.*=0.5' or head=16, got {text!r}") from None
    return found
