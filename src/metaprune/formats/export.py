"""Capture a network, write it in the format its file name asks for, run the file, compare; then keep it."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.utils._pytree import tree_leaves, tree_map_only

from metaprune.formats import onnx, pt2
from metaprune.graph.arguments import wanted
from metaprune.graph.errors import MetapruneError
from metaprune.graph.tensors import clone
from metaprune.train.folder import draft, sweep_drafts

__all__ = ["ExportError", "export", "lacking"]

FORMATS = {".onnx": onnx, ".pt2": pt2}  # each has write(program, path), run(path, args, kwargs), and packages it NEEDS
TOLERANCE = 1e-4  # of single and double precision, relative and absolute; half precision carries 2 to 3 digits
TOLERANCE_HALF = 1e-2

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class ExportError(MetapruneError):
    """A network that could not be written, or a file that does not compute what its network does."""


def export(module: nn.Module, args: tuple[Any, ...], path: str | Path, kwargs: dict[str, Any] | None = None) -> Path:
    """Writes `module` for inference to a ".onnx" or ".pt2" file, and checks what the file computes.

    The file accepts any batch where the network does, else the batch of `args` alone; a tensor whose first
    size is that of the first tensor is taken to carry it. What is at `path` is replaced only by a file that
    passed.

    Args:
        module: the network; a copy in evaluation mode, on the CPU, is what is written.
        args: example positional arguments, for the capture and for the comparison.
        path: where to write; the suffix chooses the format.
        kwargs: example keyword arguments.

    Returns:
        The path written. (An ONNX network beyond 2 GB has its weights beside it, in `<name>.data`.)

    Raises:
        ExportError: for another suffix, a folder that is not there, a network that the format cannot hold, or
            outputs that differ. No file is left behind.
    """
    wanted("export", "path", path, str | Path, "a file name such as 'model.onnx'", ExportError)
    wanted("export", "network", module, nn.Module, "an nn.Module", ExportError)
    wanted("export", "inputs", args, tuple | list, "a tuple, (x,)", ExportError)
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ExportError(f"export: file name must end in {' or '.join(FORMATS)}, got {path.name!r}")
    if not path.parent.is_dir():
        raise ExportError(f"export: folder {str(path.parent)!r} does not exist; make it first")
    network = clone(module).cpu().eval()
    examples: Arguments = tree_map_only(Tensor, lambda x: x.detach().cpu(), (args, kwargs or {}))
    try:
        names = (f"{path.name}.data", path.name)  # the weights first: a file is there when all of it is
        sweep_drafts(path.parent, f".{path.name}-", names)
        with quiet(), draft(path.parent, f".{path.name}-") as folder:
            unfinished = folder / path.name
            try:
                write(network, unfinished, examples, any_batch=True)
            except Exception:  # whatever it is, a network of one fixed batch is the other thing to try
                write(network, unfinished, examples, any_batch=False)
            for file in (folder / name for name in names):
                if file.exists():
                    file.replace(path.parent / file.name)
    except ImportError as error:
        todo = "pip install 'metaprune[export]'"
        raise ExportError(f"export: {path.suffix} needs the package {error.name!r}; do: {todo}") from error
    except Exception as error:  # torch.export, its ONNX exporter and onnxruntime share no root of errors
        who, why = type(module).__name__, reason(error)
        raise ExportError(f"export: {who} was not written to {path.name}: {why}") from error
    return path


def lacking(path: str | Path) -> list[str]:
    """The packages that writing such a file needs and that are not installed."""
    needed = FORMATS[Path(path).suffix].NEEDS
    return [name for name in needed if importlib.util.find_spec(name) is None]


def write(network: nn.Module, path: Path, examples: Arguments, *, any_batch: bool) -> None:
    """Captures, writes and checks one file; `any_batch` leaves the batch size open, and checks two of it."""
    file_format = FORMATS[path.suffix]
    twice = doubled(examples) if any_batch else examples
    file_format.write(capture(network, twice, any_batch=any_batch), path)
    for args, kwargs in (examples, twice) if any_batch else (examples,):
        with torch.no_grad():
            expected = tree_leaves(network(*args, **kwargs))
        compare(file_format.run(path, args, kwargs), [y for y in expected if isinstance(y, Tensor)])


def capture(network: nn.Module, examples: Arguments, *, any_batch: bool) -> ExportedProgram:
    """Returns the exported program of `network`, without the examples, which no receiver needs."""
    args, kwargs = examples
    shapes = ShapesCollection()  # type: ignore[no-untyped-call]
    for x in batched(examples) if any_batch else ():
        shapes[x] = {0: Dim.AUTO}
    with torch.no_grad():
        sizes = shapes.dynamic_shapes(network, args, kwargs)  # type: ignore[no-untyped-call]
        return torch.export.export(network, args, kwargs, dynamic_shapes=sizes, strict=False)


def batched(examples: Arguments) -> list[Tensor]:
    """Returns the tensors that carry the batch: those whose first size is the first tensor's."""
    tensors = [x for x in tree_leaves(examples) if isinstance(x, Tensor) and x.dim()]
    return [x for x in tensors if x.shape[0] == tensors[0].shape[0]]


def doubled(examples: Arguments) -> Arguments:
    """Returns the examples with every batch twice: a batch of 1 would be captured as the constant 1."""
    chosen = {id(x) for x in batched(examples)}

    def double(x: Tensor) -> Tensor:
        return torch.cat([x, x]) if id(x) in chosen else x

    result: Arguments = tree_map_only(Tensor, double, examples)
    return result


def compare(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Raises unless the file's outputs equal the network's, in number, shape, type and value."""
    if len(actual) != len(expected):
        raise ExportError(f"the file gives {len(actual)} outputs, the network {len(expected)}")
    for number, (a, e) in enumerate(zip(actual, expected, strict=True)):
        tolerance = TOLERANCE_HALF if e.dtype in (torch.float16, torch.bfloat16) else TOLERANCE
        try:
            torch.testing.assert_close(a, e, rtol=tolerance, atol=tolerance)
        except AssertionError as error:
            raise ExportError(f"output {number} differs: {error}") from None


def reason(error: BaseException) -> str:
    """Returns one line of what went wrong first: exporters wrap it in advice on how to debug them."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps warnings and log lines about torch's inner workings from the user, for as long as it lasts."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
