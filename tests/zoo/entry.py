"""What the zoo knows of a network: how to build it, how to call it, and what must be free."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, nn

__all__ = ["Entry", "Example", "floats", "pictures", "randomise", "tokens"]

Example = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Entry:
    """A small network as a user would write it.

    `free` are the sizes of axes, found by thinking, that a trace must report as free and a slice must cut
    (there may be others). `fixed` are sizes of axes that must not be free, each with a word of the reason
    ("" for any). `undo` says why a slice may undo some of its cuts; everywhere else that is a failure.
    `statistics` are sizes of axes whose channels zero parameters do not make invisible, because a
    statistic, or a product of two activations that are not zero at zero, runs over them. `slow` networks take long,
    and are made of what smaller ones of the zoo have, too.
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    inputs: Callable[[Generator], Example]
    free: tuple[int, ...]
    fixed: Mapping[int, str] = field(default_factory=dict)
    cnn: bool = False
    undo: str | None = None
    statistics: tuple[int, ...] = ()
    count_macs: bool = True
    slow: bool = False

    def example(self, seed: int = 0) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        """The network in float64 and evaluation mode, randomised, and a batch of two."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.build().double().eval()
        generator = torch.Generator().manual_seed(seed)
        randomise(model, generator)
        args, kwargs = self.inputs(generator)
        return model, args, kwargs


@torch.no_grad()
def randomise(model: nn.Module, generator: Generator) -> None:
    """Give weights, biases, affine parameters and statistics random values, so that a wrong channel shows."""
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        if parameter.dim() > 1:
            parameter.copy_(noise * (parameter[0].numel() ** -0.5))
        else:
            parameter.add_(0.3 * noise)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator, dtype=buffer.dtype))
        elif name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator, dtype=buffer.dtype))


def floats(*shapes: tuple[int, ...]) -> Callable[[Generator], Example]:
    """Positional inputs with random normal values, one for each shape (the batch first)."""

    def inputs(generator: Generator) -> Example:
        return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes), {}

    return inputs


def pictures(channels: int = 3, size: int = 8) -> Callable[[Generator], Example]:
    """Two square pictures."""
    return floats((2, channels, size, size))


def tokens(length: int, vocabulary: int) -> Callable[[Generator], Example]:
    """Two sentences of token numbers."""

    def inputs(generator: Generator) -> Example:
        return (torch.randint(vocabulary, (2, length), generator=generator),), {}

    return inputs
