"""What all commands share: how they end, whom they keep out, and what is said of an error."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

__all__ = ["app", "command_line", "say", "set_threads", "together", "writable"]


class Commands(TyperGroup):
    """All commands: what the package refuses is one line on standard error, and exit code 2."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let `--debug` stand anywhere on the line."""
        try:
            return super().parse_args(ctx, sorted(args, key=lambda word: word != "--debug"))
        except Exception as error:
            _misused(error)
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        from metaprune.graph.errors import MetapruneError

        try:
            with contextlib.ExitStack() as ending:
                _ending.set(ending)
                return super().invoke(ctx)
        except MetapruneError as error:
            if ctx.params["debug"]:
                raise
            say(str(error))
            raise typer.Exit(2) from None
        except OSError as error:
            if ctx.params["debug"] or error.errno in (None, errno.EPIPE):
                raise
            say(f"{error}; free space, or name a folder that can be written, and start the same command again")
            raise typer.Exit(2) from None
        except KeyboardInterrupt as error:
            number = error.args[0] if error.args else signal.SIGINT
            ended = "terminated" if number == signal.SIGTERM else "interrupted"
            say(f"{ended}; start the same command again to go on")
            raise typer.Exit(128 + number) from None
        except Exception as error:
            _misused(error)
            raise


_ending: ContextVar[contextlib.ExitStack] = ContextVar("ending")
"""What is undone when a command ends."""


def _misused(error: Exception) -> None:
    """Say in one line what is wrong with a command line; anything else is left alone.

    Typer brings its own copy of Click, or not; so its errors are known by what they can do. The one for a line without
    any command shows the help.
    """
    said = getattr(error, "format_message", None)
    if said is None or type(error).__name__ == "NoArgsIsHelpError":
        return
    command = getattr(getattr(error, "ctx", None), "command_path", "metaprune")
    say(f"{said().rstrip('.')}; see {command} --help")
    raise typer.Exit(2) from None


def say(text: str) -> None:
    """One line on standard error, if there is room for it."""
    with contextlib.suppress(OSError):
        typer.echo(f"metaprune: {' '.join(text.split())}", err=True)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        from metaprune import __version__

        typer.echo(f"metaprune {__version__}")
        raise typer.Exit


@app.callback()
def settings(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="METAPRUNE_DEBUG", help="Show where an error came from.")
    ] = False,
) -> None:
    """Cut any PyTorch network down to a budget, with learned pruning."""


def command_line() -> str:
    """What was typed, for the report."""
    return shlex.join(["metaprune", *sys.argv[1:]])


def set_threads(threads: int | None) -> None:
    """Bound the CPU threads of this process."""
    import torch

    from metaprune.cli.resolve import UsageError

    if threads is not None and threads < 1:
        raise UsageError(f"--threads: expected 1 or more, got {threads}")
    if threads:
        torch.set_num_threads(threads)


def together(recipe: Any, who: str) -> None:
    """Until the command ends all processes that the recipe asks for do the same; the first one speaks."""
    from metaprune.train.several.launching import fabric_of, group_of, is_alone

    if is_alone(recipe):
        return
    group = group_of(fabric_of(recipe))
    _ending.get().enter_context(group.together(who))
    if not group.leads:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def writable(folder: Path, *, shared: bool = False) -> None:
    """Make a folder, see that it can be written to, and keep others out until the command ends, unless it is shared."""
    import tempfile

    from metaprune.cli.resolve import UsageError
    from metaprune.train.folder import FolderError, alone_in

    try:
        if not shared:
            _ending.get().enter_context(alone_in(folder, "--out"))
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FolderError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"--out: cannot write to {folder} ({error}); name another folder") from error
