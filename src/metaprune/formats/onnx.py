"""ONNX, by torch's exporter, for runtimes that know nothing of torch."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from metaprune.formats.labels import Labels
from metaprune.train.atomic import checksum_of

__all__ = ["NEEDS", "ours", "run", "write"]

NEEDS = ("onnx", "onnxscript", "onnxruntime")

MARK = "metaprune.data"
"""Where a file says what the checksum of its weights beside it is."""


def write(program: ExportedProgram, path: Path, labels: Labels) -> None:
    """Saves the program as ONNX, its open sizes under names: "batch", and those of the inputs with their place."""
    import onnxruntime  # noqa: F401  so that the lack of a package shows before the work is done

    converted = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=labels.inputs or None,
        output_names=labels.outputs or None,
        opset_version=labels.opset,
    )
    assert converted is not None
    converted.rename_axes(_size_names(program))
    if labels.opset not in (None, converted.model.opset_imports.get("")):
        raise ValueError(
            f"the exporter cannot write it with opset {labels.opset}; leave it out, or ask for a later one"
        )
    converted.save(path)
    _mark(path)


def _size_names(program: ExportedProgram) -> dict[Any, str]:
    """Symbol -> name: the first size of an input is the batch, others are the input's, as "pixels_2"."""
    names: dict[str, str] = {}
    for node in program.graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        for dim, size in enumerate(value.shape if isinstance(value, Tensor) else ()):
            if isinstance(size, torch.SymInt):
                names.setdefault(str(size), "batch" if dim == 0 else f"{node.name}_{dim}")
    used: dict[Any, str] = {}
    for symbol, name in names.items():
        used[symbol] = name if name not in used.values() else f"{name}_{symbol}"
    return used


def _mark(path: Path) -> None:
    """Note the checksum of the weights beside a file in the file."""
    import onnx

    beside = path.with_name(f"{path.name}.data")
    if not beside.exists():
        return
    model = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(model, {MARK: str(checksum_of(beside))})
    onnx.save(model, path)


def ours(path: Path) -> bool:
    """Whether metaprune wrote the weights that lie beside a file, and nobody changed them since."""
    beside = path.with_name(f"{path.name}.data")
    if not (path.is_file() and beside.is_file()):
        return False
    try:
        import onnx

        model = onnx.load(path, load_external_data=False)
    except Exception:  # another file, damaged, or no package
        return False
    marks = {prop.key: prop.value for prop in model.metadata_props}
    return marks.get(MARK) == str(checksum_of(beside))


def run(path: Path, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Returns what onnxruntime computes on the CPU; what is no tensor is a constant of the file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    tensors = [x.numpy() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    feed = dict(zip((i.name for i in session.get_inputs()), tensors, strict=True))
    return [torch.as_tensor(y) for y in session.run(None, feed)]
