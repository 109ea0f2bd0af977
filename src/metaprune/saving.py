"""A pruned network on disk: plan, weights and report; no pickle anywhere.

What is read may come from elsewhere, so nothing in it is believed: of a network it can only say how many channels stay.
docs/security.md says what is checked.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaprune.graph.arguments import wanted, wanted_cut
from metaprune.graph.attributes import held, whole_numbers, write_numbers
from metaprune.graph.errors import MetapruneError, PlanError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.tensors import named_tensors, plain_tensors, with_tensors
from metaprune.graph.term import Term, fold, size
from metaprune.report.report import Report
from metaprune.report.texts import CARDS, card_name, is_ours, texts
from metaprune.surgery.attention import checked_calls, written_out
from metaprune.surgery.unsaid import warning_when_saved
from metaprune.train.atomic import FileError, read_json, read_safetensors, read_tensors, write_tensors, write_text
from metaprune.train.folder import FolderError, alone_in, draft, sweep_drafts
from metaprune.train.processes import apart, leads

__all__ = ["SavingError", "load", "ours", "read_weights", "save", "save_report", "taken"]

PLAN, WEIGHTS, RUN = "plan.json", "model.safetensors", "run.json"
ABOUT = "metaprune.json"
"""In a folder of transformers that metaprune wrote: what was cut, and the checksums of the files it wrote there."""

WRITTEN = (WEIGHTS, PLAN, "report.json", "report.html")
"""What is written beside the model card, in this order: a plan is there when its weights are."""

DRAFT = ".saving-"

FORMAT = 2
"""Of what the weights' header says. The first had neither a number nor a checksum, and sizes in place of terms."""

Layout = int | str | list[Any]
"""A dimension: its size, the axis that it is, or ["*", factors …] or ["+", parts …]."""


class SavingError(MetapruneError):
    """A folder or file of a pruned network that cannot be written or read."""


def save(folder: str | Path, model: nn.Module, plan: Plan, graph: ChannelGraph, report: Report | None = None) -> Path:
    """Write a pruned network and what is known of it; files that metaprune did not write stay as they are.

    Args:
        folder: Where to; made where there is none.
        model: The network cut by the plan, whoever trained it since.
        plan: What was cut.
        graph: Of the network before the cut.
        report: Of `mp.prune`, where there is one; without, a report that lies there is removed, since it is of another.

    Returns:
        The folder; `mp.load(folder, dense)` reads it.

    Raises:
        SavingError: The folder cannot be written, or holds files of others under these names.
    """
    _where("save", folder)
    wanted_cut("save", model, graph, plan)
    folder = Path(folder)
    if not leads():  # the first of several processes writes
        return folder
    modules = dict(model.named_modules())
    cut = {name: axis.size for name, axis in graph.axes.items() if name in plan.kept}
    about = {
        "format": FORMAT,
        "plan": plan.kept,
        "axes": cut,
        "tensors": {
            name: [_layout(term, cut) for term in terms] for name, terms in {**graph.tensors, **graph.tables}.items()
        },
        "numbers": {
            f"{p}:{name}": held(modules, p, name) for (p, name), term in graph.numbers.items() if size(term) > 1
        },
        "written_out": graph.written_out,
    }
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in (named_tensors(model) | plain_tensors(model, graph.tables)).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    try:
        with apart(), alone_in(folder, "save"):
            written = {PLAN: plan.to_json() + "\n", **(texts(folder, report) if report is not None else {})}
            if reason := taken(folder):
                raise SavingError(f"save: {reason}")
            sweep_drafts(folder, DRAFT, {*WRITTEN, *CARDS})
            with draft(folder, DRAFT) as unfinished:
                write_tensors(unfinished / WEIGHTS, tensors, about)
                for name, text in written.items():
                    write_text(unfinished / name, text)
                for stale in () if report is not None else (*WRITTEN[2:], card_name(folder)):
                    (folder / stale).unlink(missing_ok=True)
                for name in (WEIGHTS, *written):
                    (unfinished / name).replace(folder / name)
    except (OSError, FileError, FolderError) as error:
        raise SavingError(f"save: cannot write to {folder} ({error}); name a folder that can be written") from error
    return folder


def save_report(folder: str | Path, report: Report) -> None:
    """Write report.html and the model card anew.

    Raises:
        SavingError: The folder cannot be written, or holds files of others under these names.
    """
    folder = Path(folder)
    if not leads():
        return
    try:
        with apart(), alone_in(folder, "report"):
            if reason := taken(folder):
                raise SavingError(f"report: {reason}")
            for name, text in texts(folder, report).items():
                if name != "report.json":
                    write_text(folder / name, text)
    except (OSError, FileError, FolderError) as error:
        raise SavingError(f"report: cannot write to {folder} ({error})") from error


def taken(folder: Path) -> str | None:
    """Why a result cannot be written into a folder: one of its names is that of a file which is not ours.

    A README.md of others is no reason: the model card is then called otherwise.
    """
    for path in (folder / name for name in (*WRITTEN, *CARDS)):
        if path.is_dir():
            return f"cannot write to {folder} ({path.name} is a folder); name a folder that can be written"
    for path in (folder / name for name in (*WRITTEN, card_name(folder))):
        if path.exists() and not ours(path):
            if (folder / ABOUT).is_file():
                return (
                    f"{folder} holds a network of transformers, as result.save_pretrained writes it, whose {path.name} "
                    "stays; name another folder"
                )
            return f"{path} was not written by metaprune, or was changed since; move it away, or name another folder"
    return None


def ours(path: Path) -> bool:
    """Whether metaprune wrote a file; a plan says nothing of that, so it is ours beside weights or a run of ours."""
    try:
        if path.name == WEIGHTS:
            return read_tensors(path)[1] is not None
        if path.name == PLAN:
            text = path.read_bytes().decode("utf-8")
            neighbours = (path.with_name(WEIGHTS), path.with_name(RUN))
            return Plan.from_json(text).to_json() + "\n" == text and any(map(_marked, neighbours))
        return is_ours(path)
    except (OSError, ValueError):
        return False


def _marked(path: Path) -> bool:
    try:
        return ours(path) if path.name == WEIGHTS else "method" in read_json(path)
    except MetapruneError:
        return False


def _where(who: str, folder: object) -> None:
    wanted(who, "folder", folder, str | Path, "a path", SavingError)


def load(folder: str | Path, model: nn.Module, *, device: str | torch.device | None = None) -> nn.Module:
    """The pruned network that `Result.save` wrote, as a copy of the user's own `model` with fewer channels.

    Args:
        folder: What `Result.save` was given.
        model: A dense network of the class that was pruned; its weights do not matter, and it may lie on the meta
            device. Left untouched.
        device: Where the tensors of the pruned network go; by default where those of the dense one are.

    Raises:
        SavingError: A file is missing or damaged, or they are of another network.
    """
    _where("load", folder)
    wanted("load", "network", model, nn.Module, "the dense network, an nn.Module", SavingError)
    path = Path(folder) / WEIGHTS
    try:
        kept, about = read_tensors(path)
    except FileError as error:
        raise SavingError(f"load: {error}; give a folder that Result.save wrote (pickles are never opened)") from error
    if about is None:
        raise SavingError(f"load: {path} was not written by Result.save; give plain weights to model.load_state_dict")
    try:
        if about.get("format", 1) not in (1, FORMAT):
            raise ValueError(f"its format is {about['format']!r}, of another version of metaprune")
        small = _small(model, kept, about, _plan(Path(folder) / PLAN), device)
    except SavingError:
        raise
    except _Misfit as error:
        raise SavingError(
            f"load: {path} does not fit this {type(model).__name__}: {error}; give the network that was pruned"
        ) from error
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        raise SavingError(
            f"load: {path} is damaged, or does not fit this {type(model).__name__} ({type(error).__name__}: {why})"
        ) from error
    return small


class _Misfit(Exception):
    """In words, what a network and a file do not agree on."""


def _plan(path: Path) -> Plan:
    """The plan in a folder."""
    try:
        return Plan.from_json(path.read_bytes().decode("utf-8"))
    except FileNotFoundError as error:
        raise SavingError(f"load: there is no file {path}; give a folder that Result.save wrote") from error
    except (OSError, PlanError, UnicodeDecodeError) as error:
        raise SavingError(f"load: {path} is damaged ({' '.join(str(error).split())[:200]})") from error


def _small(
    model: nn.Module,
    kept: dict[str, Tensor],
    about: Mapping[str, Any],
    plan: Plan,
    device: str | torch.device | None,
) -> nn.Module:
    """The network with fewer channels, after every check.

    Raises:
        _Misfit: The file is of another network.
        Exception: What the file says is not what `save` says.
    """
    model = written_out(model, checked_calls(about.get("written_out", {})))
    first = about.get("format", 1) == 1
    dense = about["dense"] if first else about["tensors"]
    known = named_tensors(model) | plain_tensors(model, dense)
    axes = {} if first else {name: _whole(count) for name, count in about["axes"].items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in known.items()}
    for name in dense:
        was, here = tuple(_width(layout, axes) for layout in dense[name]), shapes.get(name, "missing")
        if was != here:
            raise _Misfit(f"{name} is {here} here and was {was} before it was pruned")
    if sorted(id(known[name]) for name in kept) != sorted({id(tensor) for tensor in known.values()}):
        more = next((name for name in shapes if name not in dense), None)
        raise _Misfit(f"{more} was not there before it was pruned" if more else "the tying of its weights is other")
    if not first:
        _agree(plan, about["plan"], axes)
    for name, tensor in kept.items():
        wanted = None if first else tuple(_width(layout, plan.widths) for layout in dense[name])
        _check(name, tensor, known[name], wanted)
    numbers = _numbers(about["numbers"], model)
    small = with_tensors(model, {name: tensor.to(device or known[name].device) for name, tensor in kept.items()})
    write_numbers(small, numbers)
    return warning_when_saved(small)


def _agree(plan: Plan, said: Any, axes: Mapping[str, int]) -> None:
    """Check that plan.json is the plan of the weights, and that the axes have its channels."""
    if plan != Plan(said):
        raise _Misfit(f"{PLAN} beside it is another plan than that of the weights")
    for name, stays in plan.kept.items():
        if not stays or stays[0] < 0 or stays[-1] >= axes[name]:
            raise ValueError(f"axis {name!r} of {axes[name]} channels cannot keep {stays[:3]} …")


def _check(name: str, tensor: Tensor, dense: Tensor, shape: tuple[int, ...] | None) -> None:
    """Check the shape of a tensor, its type, and that it is finite where that of the dense network is."""
    if shape is None:
        fits = tensor.dim() == dense.dim() and all(
            0 < now <= was or now == was for now, was in zip(tensor.shape, dense.shape, strict=True)
        )
    else:
        fits = tuple(tensor.shape) == shape
    if not fits:
        wanted = f"at most {tuple(dense.shape)}" if shape is None else f"{shape} by the plan"
        raise _Misfit(f"{name} is {tuple(tensor.shape)} in the file, and would be {wanted}")
    if tensor.dtype != dense.dtype:
        raise _Misfit(f"{name} is {tensor.dtype} in the file and {dense.dtype} here (model.to(...) changes that)")
    if not _finite(tensor) and (dense.is_meta or _finite(dense)):
        raise _Misfit(f"{name} holds values that are not finite")


def _finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    small = tensor.element_size() < 2  # of a type with 8 bits, that few operators take
    return bool((tensor.detach().float() if small else tensor.detach()).isfinite().all())


def _numbers(given: Mapping[str, Any], model: nn.Module) -> dict[tuple[str, str], int]:
    """The numbers of modules in a file: only those that the network lists, and none above what it holds.

    Nothing is walked by the names in the file. The first format had numbers that are 1, which are not listed and stay.

    Raises:
        ValueError: There are others.
    """
    listed = {f"{path}:{name}": ((path, name), most) for (path, name), most in whole_numbers(model).items()}
    ones = {
        f"{path}:{name}"
        for path, m in model.named_modules()
        for name, one in vars(m).items()
        if type(one) is int and one == 1
    }
    numbers: dict[tuple[str, str], int] = {}
    for key, value in given.items():
        place, most = listed.get(key, (None, 0))
        if type(value) is int and value == 1 and key in ones:
            continue
        if place is None or type(value) is not int or not 1 <= value <= most:
            raise ValueError(f"{key[:80]!r} cannot be set to {value!r:.20}")
        numbers[place] = value
    return numbers


def _layout(term: Term, axes: Mapping[str, int]) -> Layout:
    """A term as JSON: sizes, and the names of those axes."""

    def inner(sign: str, of: Sequence[Layout]) -> Layout:
        return [sign, *of]

    layout = fold(
        term,
        lambda axis: axis.name if axis.name in axes else axis.size,
        lambda factors: inner("*", factors),
        lambda parts: inner("+", parts),
    )
    return layout if any(name in axes for name in _names(layout)) else size(term)


def _names(layout: Layout) -> list[str]:
    if isinstance(layout, list):
        return [name for inner in layout[1:] for name in _names(inner)]
    return [layout] if isinstance(layout, str) else []


def _width(layout: Any, widths: Mapping[str, int]) -> int:
    """How many entries a dimension has at these widths.

    Raises:
        ValueError: It is no layout.
        KeyError: It is of another axis.
    """
    if isinstance(layout, str):
        return widths[layout]
    if isinstance(layout, list) and layout and layout[0] in ("*", "+"):
        result = 1 if layout[0] == "*" else 0
        for inner in layout[1:]:
            count = _width(inner, widths)
            result = result * count if layout[0] == "*" else result + count
        return result
    return _whole(layout)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a size, got {value!r:.40}")
    return value


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a file by name, and its header.

    Files that end in .pt or .pth are opened by `torch.load(weights_only=True)`, all others as safetensors.

    Raises:
        SavingError: It is missing or damaged, or holds anything but tensors.
    """
    path = Path(path)
    if path.suffix not in (".pt", ".pth"):
        try:
            read_tensors(path)  # which sees whether it is damaged
            return read_safetensors(path)
        except FileError as error:
            raise SavingError(
                f"weights: {error}; pickles are never opened, but for .pt and .pth with tensors alone: "
                "torch.save(model.state_dict(), ...) or safetensors.torch.save_file"
            ) from error
    if not path.is_file():
        raise SavingError(f"weights: there is no file {path}")
    return _unpickled(path), {}


def _unpickled(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of torch's; nothing but tensors and plain containers is made."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's, on old kinds of files
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile file brings about
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise SavingError(
            f"weights: {path} cannot be opened with weights_only=True ({why}); "
            "save it with torch.save(model.state_dict(), ...)"
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise SavingError(
            f"weights: {path} holds no state dict of tensors; save it with torch.save(model.state_dict(), ...)"
        )
    return dict(state)
