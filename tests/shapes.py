"""What checks the shapes that signatures state: beartype, on the functions that state any."""

import inspect
import sys
from collections.abc import Callable
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

tolerant = beartype(conf=BeartypeConf(is_pep484_tower=True))  # as for mypy, an int is a float
_jaxtyped = jaxtyping.jaxtyped


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Leaves functions without shapes alone: wrong types are theirs to report, in their own words."""
    return tolerant(function) if states_a_shape(function) else function


def jaxtyped(*, typechecker: Callable[..., Any]) -> Callable[[Any], Any]:
    """What jaxtyping's import hook puts on each function and class: it would bind the arguments of each call."""
    return lambda annotated: _jaxtyped(annotated, typechecker=typechecker) if states_a_shape(annotated) else annotated


jaxtyping.jaxtyped = jaxtyped  # type: ignore[assignment]


def states_a_shape(annotated: Any) -> bool:
    """Whether an annotation of a function or a class mentions a shape."""
    names = getattr(annotated, "__globals__", None) or vars(sys.modules[annotated.__module__])
    return any(mentions_shape(_read(hint, names)) for hint in inspect.get_annotations(annotated).values())


def mentions_shape(hint: Any) -> bool:
    array = isinstance(hint, type) and issubclass(hint, AbstractArray)
    return array or any(mentions_shape(part) for part in get_args(hint))


def _read(hint: Any, names: dict[str, Any]) -> Any:
    """An annotation, which postponed evaluation leaves as a string; None where it names what only mypy imports."""
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, names)
    except NameError:
        return None
