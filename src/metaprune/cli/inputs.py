"""Example inputs of a network, from words on the command line or from the network itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metaprune.cli.errors import UsageError

__all__ = ["Inputs", "inputs_of", "taken_by"]

KINDS = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
PART = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?:(?P<kind>[a-z]+\d*)(?:<(?P<below>\d+))?:)?(?P<sizes>[^=:<]*)")
MOST = 1 << 31
"""Elements of an input."""


@dataclass(frozen=True)
class Part:
    """One input."""

    name: str | None  # of the argument; None where it is given by its place
    kind: torch.dtype
    sizes: tuple[int, ...]
    below: int | None  # whole numbers are drawn below it

    def tensor(self, sizes: tuple[int, ...], drawn: torch.Generator) -> Tensor:
        """Normal numbers; whole ones from 0; ones for whatever is called a mask, and for truth values."""
        if self.kind is torch.bool or (self.below is None and "mask" in (self.name or "")):
            return torch.ones(sizes, dtype=self.kind)
        if self.kind.is_floating_point:
            return torch.randn(sizes, generator=drawn).to(self.kind)
        return torch.randint(2 if self.below is None else self.below, sizes, generator=drawn).to(self.kind)


@dataclass(frozen=True)
class Inputs:
    """Example inputs in words.

    Either the sizes of one example, `3x32x32`, for one picture or the like; or whole inputs with their batch, by place
    or by name, `int64:8x32` or `ids=int64<1000:8x32,mask=int64:8x32`.
    """

    words: str
    parts: tuple[Part, ...]
    plain: bool  # sizes of one example, without a batch

    @classmethod
    def of(cls, words: str) -> Inputs:
        """Read them.

        Raises:
            UsageError: They are none.
        """
        plain = not re.search("[=:]", words) and "," not in words
        parts = tuple(_part(word, words, plain) for word in words.split(","))
        named = [part.name is not None for part in parts]
        names = [part.name for part in parts if part.name is not None]
        if named != sorted(named) or len(set(names)) < len(names):
            raise UsageError(f"--input: expected inputs by place before those by name, each name once, got {words!r}")
        return cls(words, parts, plain)

    @property
    def sizes(self) -> tuple[int, ...] | None:
        """Of one example, where that is what was given."""
        return self.parts[0].sizes if self.plain else None

    def example(self, batch: int | None = None, inputs: int = 1) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Random inputs, the same each time: args and kwargs.

        Args:
            batch: So many examples; by default 2 of one example, and as many as were written of whole inputs.
            inputs: How many inputs of its sizes one example has, where sizes are what was given.

        Raises:
            UsageError: No examples, or more than memory holds.
        """
        if batch is not None and batch < 1:
            raise UsageError(f"--batch: expected 1 or more examples, got {batch}")
        drawn = torch.Generator().manual_seed(0)
        whole = self.parts[0].sizes[:1]
        args, kwargs = [], {}
        for part in self.parts * (inputs if self.plain else 1):
            sizes = (2 if batch is None else batch, *part.sizes) if self.plain else part.sizes
            if not self.plain and batch is not None and sizes[:1] == whole:
                sizes = (batch, *sizes[1:])
            try:
                tensor = part.tensor(sizes, drawn)
            except RuntimeError as error:
                of = "x".join(map(str, sizes))
                raise UsageError(f"--input: inputs of {of} do not fit in memory; give fewer or smaller ones") from error
            if part.name is None:
                args.append(tensor)
            else:
                kwargs[part.name] = tensor
        return tuple(args), kwargs


def inputs_of(net: nn.Module, batch: int | None = None) -> tuple[tuple[Tensor, ...], dict[str, Tensor]] | None:
    """The example inputs that a network of Hugging Face's has of its own; None for other networks.

    Raises:
        UsageError: It has some, and they cannot be made.
    """
    theirs: Any = net
    config, main = getattr(theirs, "config", None), getattr(theirs, "main_input_name", None)
    if config is None or not isinstance(main, str):
        return None
    try:
        own: Mapping[str, Any] = theirs.dummy_inputs
    except Exception as error:
        raise UsageError(f"--input: the network makes no example inputs of its own ({error}); give some") from error
    if main not in own and (size := getattr(config, "image_size", None)) is not None:
        height, width = size if isinstance(size, list | tuple) else (size, size)
        own = {main: torch.randn(1, getattr(config, "num_channels", 3), height, width)}
    if main not in own or not all(isinstance(value, Tensor) for value in own.values()):
        raise UsageError(f"--input: the network takes {main!r} and makes no example of it; give one, {main}=float32:…")
    return (), {name: _repeated(value, batch) for name, value in own.items()}


def taken_by(net: nn.Module) -> int:
    """How many inputs the forward of a network must be given, by place; 1 where it does not say."""
    try:
        parameters = inspect.signature(net.forward).parameters.values()
    except (TypeError, ValueError):
        return 1
    needed = [each for each in parameters if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD]
    return max(1, len(needed))


def _repeated(value: Tensor, batch: int | None) -> Tensor:
    """The same examples until there are so many."""
    wanted = max(2, len(value)) if batch is None else batch
    return value[torch.arange(wanted) % len(value)]


def _part(word: str, words: str, plain: bool) -> Part:
    found = PART.fullmatch(word)
    inputs = "inputs like ids=int64:8x32,mask=int64:8x32"
    expected = f"sizes like 3x32x32, got {words!r}; or {inputs}" if plain else f"{inputs}, got {words!r}"
    if found is None or not found["sizes"]:
        raise UsageError(f"--input: expected {expected}")
    if (kind := found["kind"] or "float32") not in KINDS:
        raise UsageError(f"--input: expected one of {', '.join(KINDS)}, got {kind!r} in {words!r}")
    try:
        sizes = tuple(int(size) for size in found["sizes"].split("x"))
    except ValueError as error:
        raise UsageError(f"--input: expected {expected}") from error
    total = 1
    for size in sizes:
        total *= size
    if min(sizes) < 1 or total > MOST:
        raise UsageError(f"--input: expected sizes from 1, of up to {MOST:,} numbers, got {words!r}")
    below = None if found["below"] is None else int(found["below"])
    whole = not KINDS[kind].is_floating_point and kind != "bool"
    if below is not None and (below < 1 or not whole or below > torch.iinfo(KINDS[kind]).max):
        raise UsageError(f"--input: expected a bound from 1 for whole numbers, got {word!r}")
    return Part(found["name"], KINDS[kind], sizes, below)
