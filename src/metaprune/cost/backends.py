"""Backends: how a network is run where its time is taken."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from metaprune.graph.errors import MetapruneError

__all__ = ["BACKENDS", "check", "runner"]

BACKENDS = ("eager", "compiled", "onnxruntime")


def check(backend: str, device: str, precision: str) -> None:
    """See that a backend is known, is installed, and can do what is asked.

    Raises:
        MetapruneError: It is not, or cannot.
    """
    if backend not in BACKENDS:
        raise MetapruneError(f"clock: expected backend as one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "onnxruntime":
        missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
        if missing:
            raise MetapruneError(
                f"clock: backend 'onnxruntime' needs {', '.join(missing)}; pip install 'metaprune[export]'"
            )
        if precision != "32-true" or torch.device(device).type != "cpu":
            raise MetapruneError(
                f"clock: backend 'onnxruntime' measures single precision on the CPU, got {precision!r} on {device!r}; "
                "for others give measure= a function of your own"
            )


def runner(
    network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], backend: str, threads: int
) -> Callable[[], Any]:
    """The forward of a network on its inputs, ready to be called again and again."""
    if backend == "compiled":
        torch.compiler.reset()
        compiled = torch.compile(network, dynamic=False)
        return lambda: compiled(*args, **kwargs)
    if backend == "onnxruntime":
        return _session(network, args, kwargs, threads)
    return lambda: network(*args, **kwargs)


def _session(network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], threads: int) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        with torch.no_grad():
            written = torch.onnx.export(network, args, kwargs=dict(kwargs), dynamo=True, verbose=False)
        assert written is not None
        written.save(path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    tensors = [leaf.numpy() for leaf in tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor)]
    feed = dict(zip((one.name for one in session.get_inputs()), tensors, strict=True))
    return lambda: session.run(None, feed)
