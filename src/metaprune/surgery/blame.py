"""Where the code of a cut network failed."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from metaprune.graph.errors import TraceError
from metaprune.graph.provenance import is_network, package

__all__ = ["Failure", "blame"]


class Failure(str):
    """What went wrong, in words, with the line of code.

    Attributes:
        paths: The modules whose code it may have been: those of the class that failed.
        others: What else went wrong in the same attempt, in words, each with its line.
        factors: By what the numbers changed that went wrong there, once for each operator.
    """

    paths: frozenset[str]
    others: tuple[str, ...]
    factors: tuple[float, ...]

    def __new__(
        cls, reason: str, paths: Iterable[str] = (), others: Iterable[str] = (), factors: Iterable[float] = ()
    ) -> Failure:
        """Words that know where they come from."""
        failure = super().__new__(cls, reason)
        failure.paths = frozenset(paths)
        failure.others = tuple(others)
        failure.factors = tuple(factors)
        return failure


def blame(error: BaseException, model: nn.Module) -> Failure:
    """The line at which the code of a network failed, and how.

    It is the innermost line in a package that one of its modules is of, or else the innermost that is neither PyTorch's
    nor ours.
    """
    cause: BaseException = error.__cause__ if isinstance(error, TraceError) and error.__cause__ is not None else error
    classes = {type(module) for module in model.modules() if package(type(module).__module__) != "torch"}
    packages = {package(cls.__module__) for cls in classes}
    lines, inner = [], []
    failed: type | None = None
    trail = cause.__traceback__
    while trail is not None:
        frame = trail.tb_frame
        if is_network(frame.f_code):
            lines.append(f"{frame.f_code.co_filename}:{trail.tb_lineno}")
            inner += lines[-1:] if package(frame.f_globals.get("__name__", "")) in packages else []
        if type(frame.f_locals.get("self")) in classes:
            failed = type(frame.f_locals["self"])
        trail = trail.tb_next
    reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    place = (inner or lines or ["a module"])[-1]
    return Failure(f"{place}: {reason}", [path for path, module in model.named_modules() if type(module) is failed])
