"""Files that are there whole or not at all, whatever is killed while they are written, and that notice damage.

JSON and safetensors carry a checksum of everything: of the tree as JSON with sorted keys, and of every tensor's name,
type, shape and bytes. A file without one is of an earlier version, and is taken as it is.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaprune.graph.errors import MetapruneError
from metaprune.train.folder import UNFINISHED

__all__ = [
    "FileError",
    "checksum",
    "checksum_of",
    "read_json",
    "read_safetensors",
    "read_tensors",
    "replacing",
    "seal",
    "unseal",
    "utf8",
    "write_json",
    "write_tensors",
    "write_text",
    "write_weights",
]

CHECKSUM = "crc32"
ABOUT = "metaprune"
"""The one key of a header of safetensors; several would come in any order."""


class FileError(MetapruneError):
    """A file that cannot be written, or that does not hold what was written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to; when the block ends without an error, that file takes its place.

    Processes that may write one file at a time must agree among themselves.
    """
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8, whole or not at all; what is no text, such as odd bytes of a file name, is escaped.

    Raises:
        FileError: It cannot be written.
    """
    try:
        with replacing(path) as unfinished:
            unfinished.write_bytes(utf8(text))
    except OSError as error:
        raise FileError(f"{path} cannot be written ({error}); free space, or name another folder") from error


def utf8(text: str) -> bytes:
    """Bytes of a text; what is no text, such as odd bytes of a file name, is escaped."""
    try:
        plain = text.encode("utf-8", "surrogateescape")  # odd bytes of a file name
    except UnicodeEncodeError:
        plain = text.encode("utf-8", "backslashreplace")
    return plain.decode("utf-8", "backslashreplace").encode()


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Writes an object of JSON with its checksum, whole or not at all.

    Raises:
        FileError: It cannot be written.
        ValueError: A number that JSON has no word for: infinite, or none.
    """
    write_text(path, json.dumps(seal(tree), indent=1, allow_nan=False))


def read_json(path: Path) -> dict[str, Any]:
    """Reads what `write_json` wrote.

    Raises:
        FileError: It is missing, damaged, or no object of JSON.
    """
    try:
        tree = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise FileError(f"cannot read {path} ({error})") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is damaged, or no JSON ({_short(error)})") from error
    if not isinstance(tree, dict):
        raise FileError(f"{path} is damaged: expected an object of JSON, got {type(tree).__name__}")
    return unseal(tree, path)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes tensors and what is to be known of them, as safetensors, whole or not at all.

    Args:
        path: Where to.
        tensors: Name -> tensor.
        about: As JSON can hold it.

    Raises:
        FileError: It cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        held = tensor.detach().cpu().contiguous()
        shared = (place := held.untyped_storage().data_ptr()) in seen
        plain[name] = held.clone() if shared or held.untyped_storage().nbytes() > held.nbytes else held
        seen.add(place)
    try:
        with replacing(path) as unfinished:
            save_file(plain, unfinished, {ABOUT: json.dumps(seal(about, plain))})
    except (OSError, SafetensorError) as error:
        raise FileError(f"{path} cannot be written ({error}); free space, or name another folder") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Reads what `write_tensors` wrote, or plain safetensors, of which nothing is known.

    Raises:
        FileError: It is missing, damaged, or no safetensors file.
    """
    tensors, header = read_safetensors(path)
    if ABOUT not in header:
        return tensors, None
    try:
        about = json.loads(header[ABOUT])
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is damaged ({_short(error)})") from error
    if not isinstance(about, dict):
        raise FileError(f"{path} is damaged: expected an object in its header, got {type(about).__name__}")
    return tensors, unseal(about, path, tensors)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of any safetensors file.

    Raises:
        FileError: It is missing, or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dictionary
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise FileError(f"{path} is no safetensors file ({_short(error)})") from error


def write_weights(model: nn.Module, path: Path, about: Mapping[str, Any] | None = None) -> None:
    """Writes weights and buffers as safetensors, whole or not at all; a tied tensor under each of its names.

    Raises:
        FileError: It cannot be written.
    """
    tensors = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    write_tensors(path, tensors, about or {})


def seal(tree: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """The tree with the checksum of it and of the tensors that belong to it."""
    plain = json.loads(json.dumps(tree))
    return {**plain, CHECKSUM: checksum(plain, tensors or {})}


def unseal(tree: Mapping[str, Any], path: Path | str, tensors: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """The tree without its checksum, which must be right where there is one.

    Raises:
        FileError: It is wrong.
    """
    plain = dict(tree)
    if plain.pop(CHECKSUM, None) not in (checksum(plain, tensors or {}), None) or any(map(_meant_one, plain)):
        raise FileError(f"{path} is damaged (the checksum is wrong)")
    return plain


def _meant_one(name: str) -> bool:
    """Whether a name is the checksum's but for one letter: the damage is there."""
    return len(name) == len(CHECKSUM) and sum(map(str.__ne__, name, CHECKSUM)) == 1


def checksum(tree: Any, tensors: Mapping[str, Tensor]) -> int:
    """Of everything: the tree, and each tensor's name, type, shape and bytes."""
    total = zlib.crc32(json.dumps(tree, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total = zlib.crc32(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode(), total)
        total = zlib.crc32(tensor.detach().reshape(-1).view(torch.uint8).numpy().data, total)
    return total


def checksum_of(path: Path) -> int:
    """Of the bytes of a file, read in pieces."""
    total = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total = zlib.crc32(block, total)
    return total


def _short(error: BaseException) -> str:
    """One line of an error that may hold much of the file."""
    return " ".join(str(error).split())[:160] or type(error).__name__
