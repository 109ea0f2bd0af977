"""Numbers that a module makes others of when it is copied, pickled or loaded: they follow a cut as the others do.

A layer of einops keeps the arguments it was built with beside what its forward pass reads, and is built anew from them
wherever it is copied. Were only what is read brought into line with a cut, every copy of the cut network would have the
old sizes again.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from metaprune.graph.attributes import held, whole_numbers, write_numbers
from metaprune.graph.copying import clone, copies_its_own_way
from metaprune.graph.term import Term

__all__ = ["remade"]


def remade(model: nn.Module, numbers: Mapping[tuple[str, str], Term]) -> dict[tuple[str, str], Term]:
    """The numbers that copies of modules are made of, each with the term of what it becomes in a copy.

    Args:
        model: The network; left untouched.
        numbers: What its code was followed to: (module, attribute) -> the dimension whose size it is.
    """
    found: dict[tuple[str, str], Term] = {}
    for path, module in model.named_modules():
        if not copies_its_own_way(type(module)):
            continue
        read = {name: term for (place, name), term in numbers.items() if place == path}
        if read:
            found |= {(path, name): term for name, term in _sources(module, read).items()}
    return found


def _sources(module: nn.Module, read: Mapping[str, Term]) -> dict[str, Term]:
    """Of one module: each is changed, and what becomes of the others in a copy is looked at."""
    values = {name: value for (path, name), value in whole_numbers(module).items() if not path}
    return {
        name: term
        for name, value in values.items()
        if name not in read
        for other, term in read.items()
        if values.get(other) == value and _becomes(module, name, other, value + 1)
    }


def _becomes(module: nn.Module, name: str, other: str, value: int) -> bool:
    """Whether a copy holds under one name what was held under another; what copies share is put back."""
    try:
        changed = clone(module)
        before = held({"": changed}, "", name)
        try:
            write_numbers(changed, {("", name): value})
            return bool(held({"": clone(changed)}, "", other) == value)
        finally:
            write_numbers(changed, {("", name): before})
    except Exception:  # whatever the code of a module raises where a size does not suit it
        return False
