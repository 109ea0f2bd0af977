"""The format of `torch.export`: raw weights and a graph as JSON, for torch and its compilers."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from metaprune.formats.labels import Labels

__all__ = ["NEEDS", "ours", "run", "write"]

NEEDS: tuple[str, ...] = ()


def ours(path: Path) -> bool:
    """Whether metaprune wrote the weights beside a file; this format has none."""
    return False


def write(program: ExportedProgram, path: Path, labels: Labels) -> None:
    """Saves the program, less its example inputs: they alone would be pickled, and nobody needs them."""
    program.example_inputs = None
    torch.export.save(program, path)


def run(path: Path, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Returns the tensors that the file computes, in the order of the flattened output."""
    with torch.no_grad():
        outputs = tree_leaves(torch.export.load(path).module()(*args, **kwargs))
    return [y for y in outputs if isinstance(y, Tensor)]
