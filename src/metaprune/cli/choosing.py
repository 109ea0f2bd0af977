"""A method from words on the command line: its fields are its settings, whoever wrote it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from metaprune.cli.errors import UsageError
from metaprune.graph.errors import MetapruneError
from metaprune.methods.method import Method
from metaprune.methods.registry import METHODS, others
from metaprune.train.checks import said

__all__ = ["Setting", "chosen_method", "known_methods", "settings_of_method"]


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field of a method."""

    name: str
    kind: Any  # its annotation
    default: Any  # dataclasses.MISSING where it must be given

    @property
    def needed(self) -> bool:
        """Whether it must be given."""
        return self.default is dataclasses.MISSING

    def __str__(self) -> str:
        return self.name if self.needed else f"{self.name}={json.dumps(self.default, default=str)}"


def known_methods(say: Callable[[str], None]) -> dict[str, type[Method]]:
    """All methods by name, those of other packages last; `say` is given a line for each that cannot be used."""
    offered = others()
    for line in offered.broken.values():
        say(line)
    return {**METHODS, **offered.methods}


def settings_of_method(method: type[Method]) -> dict[str, Setting]:
    """What can be set, by name."""
    try:
        kinds = get_type_hints(method)
    except Exception:  # annotations of another package may name what is not there
        kinds = {}
    found = {}
    for field in dataclasses.fields(method):  # type: ignore[arg-type]
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if field.init:
            found[field.name] = Setting(field.name, kinds.get(field.name, Any), default)
    return found


def chosen_method(name: str, settings: Sequence[str], files: Mapping[str, Path | None] | None = None) -> Method:
    """A method with its settings, `field=value` each.

    Args:
        name: Of a method of this package, or of an entry point of another.
        settings: As typed after `--set`.
        files: What options of their own give, by field; None where they were not used.

    Raises:
        UsageError: There is no such method or field, or the value is of another kind.
    """
    method = _named(name)
    known = settings_of_method(method)
    values: dict[str, Any] = {}
    for key, value in (files or {}).items():
        if value is not None and key not in known:
            owners = [f"--method {each}" for each, one in METHODS.items() if key in settings_of_method(one)]
            raise UsageError(f"--{key}: belongs to {' or '.join(owners)}, got --method {name}")
        if value is not None:
            values[key] = str(value)
    for text in settings:
        key, _, value_text = text.partition("=")
        if key not in known or not value_text:
            raise UsageError(f"--set {text}: {name} takes {', '.join(known) or 'no settings'}, as field=value")
        values[key] = _read(known[key], value_text, text)
    if missing := [each.name for each in known.values() if each.needed and each.name not in values]:
        raise UsageError(f"method {name!r}: give --set {missing[0]}=VALUE; it has no default")
    try:
        return method(**values)
    except MetapruneError:
        raise
    except Exception as error:
        raise UsageError(f"method {name!r}: {said(error)}; see `metaprune methods {name}`") from error


def _named(name: str) -> type[Method]:
    """The class; the packages of others are asked only where no method of this one has the name."""
    if name in METHODS:
        return METHODS[name]
    offered = others()
    if name in offered.methods:
        return offered.methods[name]
    if name in offered.broken:
        raise UsageError(offered.broken[name])
    raise UsageError(f"method {name!r} is not known; there are {', '.join([*METHODS, *offered.methods])}")


def _read(setting: Setting, text: str, typed: str) -> Any:
    """The value that a text stands for, of the kind that the field has."""
    like = f"like {setting.default!r}" if not setting.needed and setting.default is not None else _kind(setting.kind)
    for value in _readings(text):
        try:
            return _as(setting.kind, value, setting.default)
        except ValueError:
            continue
    shown = next(iter(_readings(text)))
    got = f", got {shown!r}" if not isinstance(shown, str) else ""
    raise UsageError(f"--set {typed}: expected a value {like}{got}")


def _readings(text: str) -> list[Any]:
    """What a text may stand for: JSON (True and None as Python writes them too), or itself."""
    found: list[Any] = []
    for form in (text, text.lower().replace("none", "null")):
        try:
            found.append(json.loads(form))
            break
        except ValueError:
            continue
    return [*found, text]


def _as(kind: Any, value: Any, default: Any = None) -> Any:
    """The value as its annotation wants it.

    Raises:
        ValueError: It is of another kind.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value if default in (dataclasses.MISSING, None) else _as(type(default), value)
    if origin in (Union, types.UnionType):
        return _first(inner, value)
    if (origin or kind) in (list, tuple, Sequence):
        return _several(list if (origin or kind) is list else tuple, inner, value)
    if origin is Literal:
        fits = value in inner or (isinstance(default, str) and isinstance(value, str))  # the method says what it knows
    elif kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    elif isinstance(kind, type) and issubclass(kind, str | Path):
        fits = isinstance(value, str)
        value = kind(value) if fits else value
    else:
        fits = type(value) is (type(None) if kind is None else origin or kind)
    if not fits:
        raise ValueError
    return value


def _first(kinds: Sequence[Any], value: Any) -> Any:
    """The value as the first of the kinds that takes it."""
    for kind in kinds:
        with contextlib.suppress(ValueError):
            return _as(kind, value)
    raise ValueError


def _several(container: Callable[[Any], Any], kinds: Sequence[Any], value: Any) -> Any:
    """A list as its annotation wants it: of one kind, or of one kind for each place."""
    if not isinstance(value, list):
        raise ValueError
    if len(kinds) > 1 and kinds[-1] is not Ellipsis:
        if len(kinds) != len(value):
            raise ValueError
        return container([_as(kind, each) for kind, each in zip(kinds, value, strict=True)])
    return container([_as(kinds[0] if kinds else Any, each) for each in value])


def _kind(kind: Any) -> str:
    """A kind in words."""
    return f"of the kind {kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else kind}"
