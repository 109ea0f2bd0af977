"""ONNX, by torch's exporter, for runtimes that know nothing of torch."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

__all__ = ["NEEDS", "run", "write"]

NEEDS = ("onnx", "onnxscript", "onnxruntime")


def write(program: ExportedProgram, path: Path) -> None:
    """Saves the program as ONNX, its open size under the name "batch"."""
    import onnxruntime  # noqa: F401  so that the lack of a package shows before the work is done

    converted = torch.onnx.export(program, dynamo=True, verbose=False)
    assert converted is not None
    converted.rename_axes({str(symbol): "batch" for symbol in program.range_constraints})
    converted.save(path)


def run(path: Path, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Returns what onnxruntime computes on the CPU; what is no tensor is a constant of the file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    tensors = [x.numpy() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    feed = dict(zip((i.name for i in session.get_inputs()), tensors, strict=True))
    return [torch.as_tensor(y) for y in session.run(None, feed)]
