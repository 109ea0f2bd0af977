"""A metanetwork on disk: safetensors, with its configuration as JSON in the header. Nothing is pickled."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from metaprune.graph.errors import MetapruneError
from metaprune.methods.graph_metanetwork.editor.metanetwork import Metanetwork

__all__ = ["load", "save"]

FORMAT = "metaprune.metanetwork.1"


def save(metanetwork: Metanetwork, path: str | Path) -> None:
    """Write a metanetwork to a file, with the precision of its parameters."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in metanetwork.state_dict().items()}
    save_file(tensors, path, {"format": FORMAT, "config": json.dumps(metanetwork.config)})


def load(path: str | Path) -> Metanetwork:
    """Read what `save` wrote; it lies on the CPU.

    Raises:
        MetapruneError: The file is missing, or holds no metanetwork.
    """
    if not Path(path).is_file():
        raise MetapruneError(f"load: expected a file that save(metanetwork, path) wrote, got no file at {path}")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dictionary
    except SafetensorError as error:
        raise MetapruneError(f"load: expected safetensors at {path}, got something else ({error})") from error
    if header.get("format") != FORMAT:
        raise MetapruneError(
            f"load: expected a metanetwork of format {FORMAT!r} at {path}, got {header.get('format')!r}; "
            "save(metanetwork, path) writes one"
        )
    try:
        metanetwork = Metanetwork(**json.loads(header["config"])).to(next(iter(tensors.values())).dtype)
        metanetwork.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, StopIteration) as error:
        raise MetapruneError(
            f"load: expected tensors that fit the configuration at {path}, got others that do not fit ({error})"
        ) from error
    return metanetwork
