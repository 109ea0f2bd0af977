"""Write a cut network as a folder of transformers, and build one from such a folder.

Where a configuration of its own class can say what the network is, the folder is one of transformers, and plain
`from_pretrained` loads it; that is done and compared before anything is moved into place. Where none can, the folder
holds the configuration of the dense network, and plan, weights and numbers in a folder inside; `mp.from_pretrained`
builds the network from that, and transformers finds no weights there that it could take for something else.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaprune.graph.arguments import wanted, wanted_cut
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.plan import Plan
from metaprune.graph.quiet import quiet
from metaprune.graph.reach import reached
from metaprune.graph.tensors import named_tensors
from metaprune.pretrained.comparing import carried, difference, other_floats, other_tensors
from metaprune.pretrained.configuration import Pretrained, dense_configuration, described, skeleton
from metaprune.pretrained.rotary import is_spare, with_frequencies
from metaprune.report.report import Report
from metaprune.report.texts import texts
from metaprune.saving import ABOUT, load, ours, save
from metaprune.train.atomic import FileError, checksum_of, read_json, write_json, write_text
from metaprune.train.checks import said
from metaprune.train.folder import LOCK, FolderError, alone_in, draft
from metaprune.train.processes import apart, leads

__all__ = ["PretrainedError", "from_pretrained", "is_pretrained", "save_pretrained"]

CONFIG = "config.json"
"""Of the network, or of the dense one."""

INSIDE = "pruned"
"""The folder with plan, weights and numbers, as `mp.save` writes them."""

DRAFT = ".pretrained-"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class PretrainedError(MetapruneError):
    """A network or folder that is none of transformers, or that cannot be written or read."""


def is_pretrained(model: object) -> bool:
    """Whether it is a network of transformers."""
    needed = ("save_pretrained", "from_pretrained", "config")
    return isinstance(model, nn.Module) and all(hasattr(model, name) for name in needed)


def save_pretrained(
    folder: str | Path, model: nn.Module, plan: Plan, graph: ChannelGraph, report: Report | None = None
) -> str | None:
    """Write a cut network of transformers; files that metaprune did not write stay as they are.

    Args:
        folder: Where to; made where there is none.
        model: The network cut by the plan, whoever trained it since; left untouched.
        plan: What was cut.
        graph: Of the network before the cut.
        report: Of `mp.prune`, where there is one: a model card and the report are written too.

    Returns:
        None where the folder is one of transformers, which plain `from_pretrained` loads; else why no configuration of
        its class can say what the network is: then `mp.from_pretrained` loads the folder, and nothing else does.

    Raises:
        PretrainedError: It is no network of transformers, or the folder cannot be written, or holds files of others
            under these names.
    """
    wanted("save_pretrained", "folder", folder, str | Path, "a path", PretrainedError)
    wanted_cut("save_pretrained", model, graph, plan)
    if not is_pretrained(model):
        raise PretrainedError(
            f"save_pretrained: {type(model).__name__} is no network of transformers; result.save(folder) writes it"
        )
    folder = Path(folder)
    if not leads():  # the first of several processes writes
        return None
    try:
        with apart(), alone_in(folder, "save_pretrained"), draft(folder, DRAFT) as unfinished:
            place = unfinished / "network"
            place.mkdir()
            with quiet():
                problem = _as_its_own(place, model, plan, graph)
                if problem is not None:
                    _as_ours(place, model, plan, graph)
            if report is not None:
                for name, text in texts(folder, report).items():
                    write_text(place / name, text)
            files = {
                path.relative_to(place).as_posix(): checksum_of(path)
                for path in sorted(place.rglob("*"))
                if path.is_file() and path.name != LOCK
            }
            about = {"network": type(model).__name__, "own": problem is None, "plan": plan.kept, "files": files}
            write_json(place / ABOUT, about)
            before = _written(folder)
            _refuse_foreign(folder, [*files, ABOUT], before)
            for name in before.keys() - files.keys():
                (folder / name).unlink(missing_ok=True)
            for name in (*files, ABOUT):
                (folder / name).parent.mkdir(exist_ok=True)
                (place / name).replace(folder / name)
            with contextlib.suppress(OSError):
                (folder / INSIDE).rmdir()  # which an earlier network filled
    except (OSError, FileError, FolderError) as error:
        raise PretrainedError(
            f"save_pretrained: cannot write to {folder} ({error}); name a folder that can be written"
        ) from error
    return problem


def from_pretrained(folder: str | Path) -> nn.Module:
    """The network in a folder that `save_pretrained` wrote, in evaluation mode; no dense weights are needed.

    Args:
        folder: The folder, or the name of a repository on the Hub, "owner/name", that such a folder was uploaded to.

    Raises:
        PretrainedError: A file is missing or damaged, or names a class that transformers does not have.
    """
    wanted("from_pretrained", "folder", folder, str | Path, "a path", PretrainedError)
    place = _at_hand(folder)
    try:
        about = read_json(place / ABOUT)
        kind = _network_class(about.get("network"))
        with quiet():
            if about.get("own") is True:
                model: nn.Module = kind.from_pretrained(place, local_files_only=True)
                return model.eval()
            return _built(kind, place).eval()
    except FileError as error:
        raise PretrainedError(
            f"from_pretrained: {error}; give a folder that result.save_pretrained wrote, others are of transformers"
        ) from error
    except MetapruneError:
        raise
    except Exception as error:  # whatever a class raises at a configuration that is damaged or of another version
        raise PretrainedError(f"from_pretrained: {folder} cannot be loaded: {said(error)}") from error


def _as_its_own(place: Path, model: Pretrained, plan: Plan, graph: ChannelGraph) -> str | None:
    """Write a folder of transformers' own and load it again; or in words why it would be another network."""
    if any(tensor.is_meta for tensor in named_tensors(model).values()):
        return "there are no values on the meta device"
    found = described(model, graph, plan)
    if isinstance(found, str):
        return found

    def loaded(network: Pretrained) -> Pretrained:
        network.config = configuration
        network.save_pretrained(place)
        return type(model).from_pretrained(place, local_files_only=True).train(model.training)

    try:
        twin: Pretrained = skeleton(model, found.configuration)
        twin.load_state_dict(model.state_dict(), assign=True)
        twin.tie_weights()
        if getattr(model, "generation_config", None) is not None:
            twin.generation_config = copy.deepcopy(model.generation_config)
        configuration = with_frequencies(found.configuration, model)
        again = loaded(twin)
        problem, folded = other_tensors(model, again, graph.tables), bool(other_floats(model, again))
        if problem is None and folded:
            spare = any(is_spare(name) for name, _ in model.named_buffers(remove_duplicate=False))
            same = configuration is found.configuration and not spare  # whose size is the dense one's
            plain = again if same else _of_these_frequencies(found.configuration, again, model)
            problem = carried(model, plain, graph, plan)
            again = loaded(plain) if problem is None else again
        problem = problem or difference(model, again, graph, plan, folded)
    except Exception as error:  # whatever a class raises
        problem = said(error)
    return _cleared(place, problem)


def _of_these_frequencies(configuration: Any, loaded: Pretrained, model: Pretrained) -> Pretrained:
    """The loaded network as `configuration` makes it, with the frequencies of the cut one and no rule for them."""
    plain: Pretrained = skeleton(model, configuration)
    plain.load_state_dict(loaded.state_dict(), assign=True)
    plain.tie_weights()
    made = {name: tensor.detach().clone() for name, tensor in dict(model.named_buffers(remove_duplicate=False)).items()}
    for name, buffer in list(plain.named_buffers(remove_duplicate=False)):
        if buffer.is_meta:
            path, _, last = name.rpartition(".")
            plain.get_submodule(path)._buffers[last] = made[name]
    if hasattr(loaded, "generation_config"):
        plain.generation_config = loaded.generation_config
    return plain.train(model.training)


def _cleared(place: Path, problem: str | None) -> str | None:
    """What is in the way; then nothing stays that was written."""
    if problem is not None:
        for path in place.iterdir():
            path.unlink()
    return problem


def _as_ours(place: Path, model: Pretrained, plan: Plan, graph: ChannelGraph) -> None:
    """Write a folder of ours and load it again.

    Raises:
        PretrainedError: What would be loaded is another network.
    """
    save(place / INSIDE, model, plan, graph)
    configuration = dense_configuration(model, graph)
    configuration.architectures = [type(model).__name__]
    configuration.save_pretrained(place)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(place)
    if any(tensor.is_meta for tensor in named_tensors(model).values()):
        return
    loaded = _built(type(model), place).train(model.training)
    if (problem := difference(model, loaded, graph, plan, False)) is not None:
        raise PretrainedError(
            f"save_pretrained: {type(model).__name__} is not what its configuration builds: {problem}; "
            "result.save(folder) writes it, and mp.load(folder, dense) reads it"
        )


def _built(kind: Any, place: Path) -> nn.Module:
    """The cut network from the configuration of the dense one, without its weights."""
    configuration = kind.config_class.from_json_file(place / CONFIG)
    with torch.device("meta"):
        dense = kind(configuration)
    small: nn.Module = load(place / INSIDE, dense, device="cpu")
    if any(isinstance(value, torch.Tensor) and value.is_meta for value in reached(small)):
        small = load(place / INSIDE, kind(configuration))  # a tensor that no file holds
    if (place / "generation_config.json").is_file():
        settings: Any = small.generation_config
        small.generation_config = type(settings).from_pretrained(place, local_files_only=True)
    return small


def _network_class(name: object) -> Any:
    """A class of transformers by its name, and nothing else.

    Raises:
        PretrainedError: There is none.
    """
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise PretrainedError("from_pretrained: needs the package transformers: pip install transformers") from error
    kind = getattr(transformers, name, None) if isinstance(name, str) and name.isidentifier() else None
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise PretrainedError(
            f"from_pretrained: transformers {transformers.__version__} has no network {str(name)[:60]!r}; for a class "
            "of your own, mp.load(folder, dense) reads what result.save wrote"
        )
    return kind


def _at_hand(folder: str | Path) -> Path:
    """The folder; one on the Hub is downloaded."""
    place = Path(folder)
    if place.is_dir() or not (isinstance(folder, str) and _REPOSITORY.fullmatch(folder)):
        return place
    try:
        hub: Any = importlib.import_module("huggingface_hub")
        return Path(hub.snapshot_download(folder, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # no such repository, no network, no library
        raise PretrainedError(
            f"from_pretrained: there is no folder {folder}, and the Hub gives none of this name ({said(error)})"
        ) from error


def _written(folder: Path) -> dict[str, int]:
    """The files that metaprune wrote into a folder of this kind, and that nobody changed since."""
    if not (folder / ABOUT).is_file():
        return {}
    try:
        files = dict(read_json(folder / ABOUT).get("files", {}))
    except (FileError, TypeError, ValueError):
        return {}
    inside = (folder, folder / INSIDE)
    found = {name: check for name, check in files.items() if (folder / name).parent in inside}
    return {
        name: check
        for name, check in found.items()
        if (folder / name).is_file() and checksum_of(folder / name) == check
    }


def _refuse_foreign(folder: Path, names: list[str], known: Mapping[str, int]) -> None:
    """See that nothing of others is in the way.

    Raises:
        PretrainedError: Something is.
    """
    for name in names:
        path = folder / name
        if not (path.exists() or path.is_symlink()) or name in known:
            continue
        if (name == ABOUT and _is_about(path)) or (path.is_file() and ours(path)):
            continue
        raise PretrainedError(
            f"save_pretrained: {path} was not written by metaprune, or was changed since; move it away, or name "
            "another folder"
        )


def _is_about(path: Path) -> bool:
    try:
        return "files" in read_json(path)
    except FileError:
        return False
