"""A metanetwork on disk: safetensors, with its configuration as JSON in the header. Nothing is pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from metaprune.graph.errors import MetapruneError
from metaprune.graph.rehearsal import on_the_cpu
from metaprune.methods.graph_metanetwork.editor.metanetwork import Metanetwork
from metaprune.methods.graph_metanetwork.expectation import Expectation
from metaprune.train.atomic import FileError, read_safetensors, read_tensors, write_tensors

__all__ = ["is_metanetwork", "load", "save"]

FORMAT = "metaprune.metanetwork.1"


def save(metanetwork: Metanetwork, path: str | Path) -> None:
    """Write a metanetwork to a file, with the precision of its parameters, and what it can expect to gain.

    Raises:
        MetapruneError: It cannot be written.
    """
    about: dict[str, Any] = {"format": FORMAT, "config": metanetwork.config}
    if metanetwork.expectation is not None:
        about["expectation"] = metanetwork.expectation.to_dict()
    write_tensors(Path(path), metanetwork.state_dict(), about)


@on_the_cpu()
def load(path: str | Path) -> Metanetwork:
    """Read what `save` wrote; it lies on the CPU.

    Raises:
        MetapruneError: The file is missing or damaged, or holds no metanetwork.
    """
    path = Path(path)
    if not path.is_file():
        raise MetapruneError(f"load: expected a file that save(metanetwork, path) wrote, got no file at {path}")
    try:
        tensors, about = _read(path)
    except FileError as error:
        raise MetapruneError(f"load: expected safetensors with a metanetwork ({error})") from error
    if about.get("format") != FORMAT:
        raise MetapruneError(
            f"load: expected a metanetwork of format {FORMAT!r} at {path}, got {about.get('format')!r:.60}; "
            "save(metanetwork, path) writes one"
        )
    try:
        config = {"held": True, **about["config"]}  # of before there was a choice
        [kind] = {tensor.dtype for tensor in tensors.values()}
        if not kind.is_floating_point or not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise ValueError("there are values that are whole, or not finite")
        if config["hidden"] != len(tensors["places"]) or config["layers"] > len(tensors):
            raise ValueError("its size is another")  # before that much memory is asked for
        metanetwork = Metanetwork(**config).to(kind)
        metanetwork.load_state_dict(tensors)
        if (expected := about.get("expectation")) is not None:
            metanetwork.expectation = Expectation.of(expected)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        raise MetapruneError(
            f"load: expected tensors that fit the configuration at {path}, got others that do not fit ({why})"
        ) from error
    return metanetwork


def is_metanetwork(path: Path) -> bool:
    """Whether a file was written by `save`."""
    try:
        return _read(path)[1].get("format") == FORMAT
    except FileError:
        return False


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, and format and configuration; files of the first version have these in a header of their own."""
    tensors, about = read_tensors(path)
    if about is not None:
        return tensors, about
    header = read_safetensors(path)[1]
    try:
        return tensors, {"format": header.get("format"), "config": json.loads(header.get("config", "null"))}
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is damaged ({' '.join(str(error).split())[:160]})") from error
