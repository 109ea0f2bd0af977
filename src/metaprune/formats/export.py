"""Capture a network, write it in the format its file name asks for, run the file, compare; then keep it."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from metaprune.formats import onnx, pt2
from metaprune.formats.labels import Labels
from metaprune.graph.arguments import wanted
from metaprune.graph.errors import MetapruneError
from metaprune.graph.quiet import quiet as without_prints
from metaprune.graph.refusal import depends_on_values, place_of
from metaprune.graph.tensors import clone
from metaprune.train.folder import draft, sweep_drafts
from metaprune.train.processes import leads

__all__ = ["ExportError", "export", "lacking"]

FORMATS = {".onnx": onnx, ".pt2": pt2}
"""Each has write(program, path, labels), run(path, args, kwargs), ours(path) and the packages it NEEDS."""

TOLERANCE = 1e-4  # of single and double precision, relative and absolute; half precision carries 2 to 3 digits
TOLERANCE_HALF = 1e-2

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Sizes = Literal["none", "batch", "all"]
Places = dict[int, tuple[int, ...]]
"""Place of a tensor among the examples -> the dimensions that stay open."""


class ExportError(MetapruneError):
    """A network that could not be written, or a file that does not compute what its network does."""


def export(
    module: nn.Module,
    args: tuple[Any, ...],
    path: str | Path,
    kwargs: dict[str, Any] | None = None,
    *,
    open_sizes: Sizes = "batch",
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    opset: int | None = None,
    half: bool = False,
) -> Path:
    """Writes `module` for inference to a ".onnx" or ".pt2" file, and checks what the file computes.

    The file accepts any batch where the network does, else the batch of `args` alone; a tensor whose first
    size is that of the first tensor is taken to carry it. What is at `path` is replaced only by a file that
    passed, and a file of weights beside it (`<name>.data`) only where metaprune wrote that.

    Args:
        module: the network; a copy in evaluation mode, on the CPU, is what is written.
        args: example positional arguments, for the capture and for the comparison.
        path: where to write; the suffix chooses the format.
        kwargs: example keyword arguments.
        open_sizes: which sizes of the inputs stay open: "batch", "all" (those of pictures and sequences too, where the
            network takes others: it is compared at twice each), or "none".
        inputs: names of the inputs in the file, in order (ONNX); by default those of the parameters of `forward`.
        outputs: names of the outputs in the file, in order (ONNX).
        opset: version of ONNX's operators; by default what the exporter likes.
        half: whether weights and inputs are of half precision.

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
    labels = _labels(path, open_sizes, inputs, outputs, opset)
    if not path.parent.is_dir():
        raise ExportError(f"export: folder {str(path.parent)!r} does not exist; make it first")
    if not leads():  # the first of several processes writes
        return path
    network = clone(module).cpu().eval()
    examples: Arguments = tree_map_only(Tensor, lambda x: x.detach().cpu(), (args, kwargs or {}))
    if half:
        network = network.half()
        examples = tree_map_only(Tensor, lambda x: x.half() if x.is_floating_point() else x, examples)
    try:
        names = (f"{path.name}.data", path.name)  # the weights first: a file is there when all of it is
        sweep_drafts(path.parent, f".{path.name}-", names)
        with quiet(), draft(path.parent, f".{path.name}-") as folder:
            unfinished = folder / path.name
            _write_as_open_as_can_be(network, unfinished, examples, open_sizes, labels)
            ours = FORMATS[path.suffix].ours(path)
            beside = path.with_name(names[0])
            if (folder / names[0]).exists() and beside.exists() and not ours:
                raise ExportError(f"{beside} was not written by metaprune; move it away, or choose another name")
            if ours and not (folder / names[0]).exists():
                beside.unlink(missing_ok=True)
            for file in (folder / name for name in names):
                if file.exists():
                    file.replace(path.parent / file.name)
    except ImportError as error:
        todo = "pip install 'metaprune[export]'"
        raise ExportError(f"export: {path.suffix} needs the package {error.name!r}; do: {todo}") from error
    except Exception as error:  # torch.export, its ONNX exporter and onnxruntime share no root of errors
        who, why = type(module).__name__, reason(error)
        raise ExportError(f"export: {who} was not written to {path.name}: {why}{_way_out(error)}") from error
    return path


def _labels(path: Path, open_sizes: Any, inputs: Any, outputs: Any, opset: Any) -> Labels:
    """What the user wants of the file, checked."""
    if open_sizes not in get_args(Sizes):
        raise ExportError(f"export: expected open_sizes {', '.join(map(repr, get_args(Sizes)))}, got {open_sizes!r}")
    for name, given in (("inputs", inputs), ("outputs", outputs)):
        several = not isinstance(given, str) and all(isinstance(one, str) and one for one in given)
        if not several or len(set(given)) != len(given):
            raise ExportError(f"export: expected {name} as different names, got {given!r}; write {name}=('images',)")
    if opset is not None and not (type(opset) is int and opset >= 1):
        raise ExportError(f"export: expected opset as a whole number from 1, got {opset!r}")
    if path.suffix != ".onnx" and (inputs or outputs or opset):
        raise ExportError(f"export: names and opset belong to .onnx, got {path.name!r}; leave them out")
    return Labels(tuple(inputs), tuple(outputs), opset)


def _write_as_open_as_can_be(
    network: nn.Module, path: Path, examples: Arguments, open_sizes: Sizes, labels: Labels
) -> None:
    """Writes one file, with as many sizes open as were asked for and as the network takes; the first error counts."""
    order: tuple[Sizes, ...] = ("all", "batch", "none")
    first: Exception | None = None
    for sizes in order[order.index(open_sizes) :]:
        try:
            return write(network, path, examples, open_sizes=sizes, labels=labels)
        except ImportError:
            raise
        except Exception as error:  # whatever it is, a network of fewer open sizes is the other thing to try
            first = first or error
            if path.exists():
                path.unlink()
            path.with_name(f"{path.name}.data").unlink(missing_ok=True)
            last = error
    if last is first:  # the only one that was tried, which is no cause of itself
        raise last
    raise last from first


def _way_out(error: BaseException) -> str:
    """What to do where the code decides by values: as a detector's tail does, of boxes and their suppression."""
    if not depends_on_values(error):
        return ""
    at = place_of(error)
    where = f" at {at}" if at else ""
    return (
        f";\nthe code{where} decides by the values of a tensor. Wrap what comes before it (raw scores and boxes) in a "
        "module,\nexport that, and run the rest in the program that reads the file"
    )


def lacking(path: str | Path) -> list[str]:
    """The packages that writing such a file needs and that are not installed."""
    needed = FORMATS[Path(path).suffix].NEEDS
    return [name for name in needed if importlib.util.find_spec(name) is None]


def write(network: nn.Module, path: Path, examples: Arguments, *, open_sizes: Sizes, labels: Labels) -> None:
    """Captures, writes and checks one file; open sizes are captured, and checked, at twice those of the examples."""
    file_format = FORMATS[path.suffix]
    places = opened(network, examples, open_sizes)
    twice = doubled(examples, places)
    file_format.write(capture(network, twice, places), path, labels)
    for args, kwargs in (examples, twice) if places else (examples,):
        with torch.no_grad():
            expected = tree_leaves(network(*args, **kwargs))
        compare(file_format.run(path, args, kwargs), [y for y in expected if isinstance(y, Tensor)])


def capture(network: nn.Module, examples: Arguments, places: Places) -> ExportedProgram:
    """Returns the exported program of `network`, without the examples, which no receiver needs."""
    args, kwargs = examples
    shapes = ShapesCollection()  # type: ignore[no-untyped-call]
    for place, x in enumerate(tree_leaves(examples)):
        if place in places:
            shapes[x] = dict.fromkeys(places[place], Dim.AUTO)
    with torch.no_grad():
        sizes = shapes.dynamic_shapes(network, args, kwargs)  # type: ignore[no-untyped-call]
        return torch.export.export(network, args, kwargs, dynamic_shapes=sizes, strict=False)


def opened(network: nn.Module, examples: Arguments, open_sizes: Sizes) -> Places:
    """Returns the dimensions that stay open, of each tensor by its place among the examples.

    The batch is the first size of the first tensor, and of all with the same first size. Others are those that the
    network takes twice as large: all that are equal together (a sequence and its mask), else each by itself.
    """
    tensors = {place: x for place, x in enumerate(tree_leaves(examples)) if isinstance(x, Tensor) and x.dim()}
    if open_sizes == "none" or not tensors:
        return {}
    batch = next(iter(tensors.values())).shape[0]
    places: Places = {place: (0,) for place, x in tensors.items() if x.shape[0] == batch}
    groups: dict[int, list[tuple[int, int]]] = {}
    for place, x in tensors.items() if open_sizes == "all" else ():
        for dim in range(1 if place in places else 0, x.dim()):
            groups.setdefault(x.shape[dim], []).append((place, dim))

    def larger(found: Places, more: Sequence[tuple[int, int]]) -> Places:
        return found | {
            place: (*found.get(place, ()), *(dim for at, dim in more if at == place))
            for place in {at for at, _ in more}
        }

    for group in groups.values():
        if _takes(network, doubled(examples, larger(places, group))):
            places = larger(places, group)
            continue
        for one in group if len(group) > 1 else ():
            if _takes(network, doubled(examples, larger(places, [one]))):
                places = larger(places, [one])
    return places


def _takes(network: nn.Module, examples: Arguments) -> bool:
    """Whether a network runs on inputs."""
    args, kwargs = examples
    try:
        with torch.no_grad():
            network(*args, **kwargs)
    except Exception:  # whatever its code raises
        return False
    return True


def doubled(examples: Arguments, places: Places) -> Arguments:
    """Returns the examples with every open size twice: a size of 1 would be captured as the constant 1."""
    leaves, tree = tree_flatten(examples)
    for place, dims in places.items():
        for dim in dims:
            leaves[place] = torch.cat([leaves[place], leaves[place]], dim)
    result: Arguments = tree_unflatten(leaves, tree)
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
        with warnings.catch_warnings(), without_prints():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
