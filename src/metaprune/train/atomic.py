"""Files that are there whole or not at all, whatever is killed while they are written."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

__all__ = ["replacing", "write_json", "write_weights"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to; when the block ends without an error, that file takes its place.

    Processes that may write one file at a time must agree among themselves.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    yield unfinished
    unfinished.replace(path)


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Writes JSON, whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(tree, indent=1), encoding="utf-8")


def write_weights(model: nn.Module, path: Path) -> None:
    """Writes weights and buffers as safetensors, whole or not at all; a tied tensor under each of its names."""
    tensors = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    with replacing(path) as unfinished:
        save_file(tensors, unfinished)
