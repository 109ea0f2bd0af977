"""Where a run logs its losses and metrics: `--log`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["Log", "LogKind", "loggers_of"]

FOLDER = "logs"


class LogKind(StrEnum):
    """What a log is read with."""

    csv = "csv"
    tensorboard = "tensorboard"


Log = Annotated[LogKind | None, typer.Option(help="Log losses and metrics of those epochs into OUT/logs.")]


def loggers_of(log: LogKind | None, out: Path) -> list[Any]:
    """The loggers of a run: those of Lightning Fabric.

    Raises:
        UsageError: tensorboard is not installed.
    """
    if log is None:
        return []
    from lightning_fabric.loggers.csv_logs import CSVLogger
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    from metaprune.cli.errors import UsageError

    try:
        kind = CSVLogger if log is LogKind.csv else TensorBoardLogger
        return [kind(out, name=FOLDER)]
    except ModuleNotFoundError as error:
        raise UsageError("--log tensorboard: it is not installed; pip install tensorboard, or --log csv") from error
