"""Checkpoints that survive a kill: safetensors only, atomic, checked, and the one before is kept.

A file holds a tree of dictionaries and lists with tensors and plain values as leaves. The tensors are stored
as such; the rest is JSON in the header, beside a checksum of everything.
"""

import json
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaprune.graph.errors import MetapruneError
from metaprune.train.atomic import checksum, replacing
from metaprune.train.folder import sweep

__all__ = ["Checkpoint", "CheckpointError"]

FORMAT = "metaprune-checkpoint-2"


class CheckpointError(MetapruneError):
    """A checkpoint that cannot be written, read, or used for this run."""


@dataclass(frozen=True)
class Checkpoint:
    """The newest state of a run, in a folder of its own, and the one before it."""

    folder: Path | str
    seconds: float = 30.0  # between two saves inside an epoch

    @property
    def newest(self) -> Path:
        """The file that `save` writes."""
        return Path(self.folder) / "checkpoint.safetensors"

    @property
    def previous(self) -> Path:
        """The file that was the newest one before."""
        return Path(self.folder) / "previous.safetensors"

    def prepare(self) -> None:
        """Makes the folder, sweeps it, and sees that it can be written to: better now than after an epoch.

        Raises:
            CheckpointError: it cannot.
        """
        try:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            sweep(Path(self.folder))
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise CheckpointError(f"checkpoint {self.folder}: the folder cannot be written to ({error})") from error

    def save(self, tree: Any) -> None:
        """Writes a tree of dicts, lists and tuples with tensors, numbers, strings and None as leaves.

        A kill leaves either the old state or the new one. The tensors are copied to the CPU.

        Raises:
            CheckpointError: a leaf of another kind, or a folder that cannot be written to.
        """
        import safetensors.torch

        tensors: dict[str, Tensor] = {}
        text = json.dumps(_encode(tree, tensors))
        header = {"format": FORMAT, "tree": text, "crc32": str(checksum(text, tensors))}
        try:
            self.newest.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.newest) as unfinished:
                with unfinished.open("wb") as file:
                    file.write(safetensors.torch.save(tensors, header))
                    file.flush()
                    os.fsync(file.fileno())
                if self.newest.exists():
                    self.newest.replace(self.previous)
            _sync(self.newest.parent)
        except OSError as error:
            raise CheckpointError(f"checkpoint {self.folder}: cannot be written ({error}); free space?") from error

    def load(self) -> Any | None:
        """Reads the newest tree; if that file is damaged, warns and goes back to the one before.

        Returns:
            The tree, with tensors on the CPU, or None if there is no checkpoint yet.

        Raises:
            CheckpointError: there are files, but none is a whole checkpoint.
        """
        found = [path for path in (self.newest, self.previous) if path.exists()]
        troubles = []
        for path in found:
            try:
                tree = _read(path)
            except CheckpointError as error:
                troubles.append(str(error))
                continue
            if troubles:
                warnings.warn(f"{troubles[0]}; going back to the checkpoint before it", stacklevel=2)
                path.replace(self.newest)  # so that the next save keeps this one and not the damaged one
            return tree
        if troubles:
            raise CheckpointError(f"{'; '.join(troubles)}; delete the folder or give another")
        return None


def _read(path: Path) -> Any:
    import safetensors

    try:
        with safetensors.safe_open(path, "pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise CheckpointError(f"checkpoint {path}: expected format {FORMAT}, got {header.get('format')}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        if header.get("crc32") != str(checksum(header.get("tree"), tensors)):
            raise CheckpointError(f"checkpoint {path}: damaged (the checksum is wrong)")
        return _decode(json.loads(header["tree"]), tensors)
    except MetapruneError:
        raise
    except (safetensors.SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"checkpoint {path}: damaged, or not a checkpoint ({' '.join(str(error).split())[:160]})"
        ) from error


def _encode(node: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree as JSON; each container and tensor becomes a dictionary with one key that says what it was."""
    if node is None or isinstance(node, bool | int | float | str):
        return node
    if isinstance(node, Tensor):
        name = str(len(tensors))
        tensors[name] = node.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(node, dict):
        if not all(isinstance(key, str | int) for key in node):
            raise CheckpointError(f"checkpoint: expected keys to be str or int, got {list(node)}")
        return {"dict": [[key, _encode(value, tensors)] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return {type(node).__name__: [_encode(value, tensors) for value in node]}
    raise CheckpointError(f"checkpoint: expected tensors and plain values, got {type(node).__name__}")


def _decode(node: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(node, dict):
        return node
    [(kind, content)] = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _decode(value, tensors) for key, value in content}
    return {"list": list, "tuple": tuple}[kind](_decode(value, tensors) for value in content)


def _sync(folder: Path) -> None:
    """Makes the renames last; systems that cannot open folders do so on their own."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
