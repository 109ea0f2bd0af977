"""What a user wants of a file besides what it computes."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Labels"]


class Labels(NamedTuple):
    """Names and version.

    Attributes:
        inputs: Names of the inputs, in order; none for the exporter's own.
        outputs: Names of the outputs, in order.
        opset: Version of the operators; None for the exporter's own.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    opset: int | None = None
