"""What checks the shapes that signatures state: beartype, on the functions that state any."""

from collections.abc import Callable
from typing import Any, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

tolerant = beartype(conf=BeartypeConf(is_pep484_tower=True))  # as for mypy, an int is a float


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Leaves functions without shapes alone: wrong types are theirs to report, in their own words."""
    stated = any(mentions_shape(hint) for hint in function.__annotations__.values())
    return tolerant(function) if stated else function


def mentions_shape(hint: Any) -> bool:
    array = isinstance(hint, type) and issubclass(hint, AbstractArray)
    return array or any(mentions_shape(part) for part in get_args(hint))
