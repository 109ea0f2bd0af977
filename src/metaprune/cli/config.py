"""Options from a file: `--config run.toml` stands for every option that it names; the command line overrides it."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["Config", "take"]


def take(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make what the file holds the defaults of a command.

    The file has the names of the options, `batch-size = 64`, and the arguments by theirs, `model = "resnet20"`; what
    stands in a table named after a command, `[prune]`, is for that command alone.

    Raises:
        UsageError: The file cannot be read, or names something that is no option, or not of its kind.
    """
    from metaprune.cli.errors import UsageError

    if path is None:
        return None
    try:
        tree = tomllib.loads(path.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--config: {path} cannot be read as TOML ({' '.join(str(error).split())[:150]})") from error
    command = str(ctx.info_name)
    own = {name: value for name, value in tree.items() if not isinstance(value, dict)}
    commands = getattr(ctx.parent and ctx.parent.command, "commands", {command: None})
    for name, table in tree.items():
        if isinstance(table, dict) and name not in commands:
            raise UsageError(f"--config: {path} has a table [{name}]; expected the name of a command or no table")
        if isinstance(table, dict) and name == command:
            own |= table
    options = {name: option for option in ctx.command.params for name in _names(option)}
    defaults: dict[str, Any] = {}
    for name, value in own.items():
        option = options.get(name.replace("_", "-"))
        if option is None:
            near = difflib.get_close_matches(name, options, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(options))}"
            raise UsageError(f"--config: {path} names {name!r}, which {command} has no option for; {hint}")
        defaults[str(option.name)] = _value(option, name, value, path)
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return path


Config = Annotated[
    Path | None,
    typer.Option("--config", callback=take, is_eager=True, help="A TOML file with options by name, batch-size = 64."),
]


def _names(option: Any) -> list[str]:
    """How a file may call an option: its long names, or an argument's own."""
    if option.name == "config" or "--help" in option.opts:
        return []
    long = [word.removeprefix("--") for word in [*option.opts, *option.secondary_opts] if word.startswith("--")]
    return long or [str(option.name).replace("_", "-")]


def _value(option: Any, name: str, value: Any, path: Path) -> Any:
    """The value as the command line would have it: words, lists of words, or yes and no.

    Raises:
        UsageError: It is of another kind.
    """
    from metaprune.cli.errors import UsageError

    flag, several = getattr(option, "is_flag", False), option.multiple or option.nargs != 1
    fits = isinstance(value, list) if several else isinstance(value, bool) == flag and not isinstance(value, list)
    if several and isinstance(value, list) and any(isinstance(part, list | dict | bool) for part in value):
        fits = False
    if not fits or isinstance(value, dict):
        kind = "a list" if several else ("true or false" if flag else "one value")
        raise UsageError(f"--config: {path}: expected {name} as {kind}, got {value!r:.60}")
    if several:
        return [str(part) for part in value]
    return value if flag else str(value)
