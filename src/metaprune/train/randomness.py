"""The global random numbers of Python, NumPy and torch: borrowed, seeded, saved and given back."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from metaprune.graph.surroundings import random_numbers_kept

__all__ = ["capture", "isolated", "restore", "seed"]


def seed(*numbers: int) -> None:
    """Seeds all three from some whole numbers; each tuple gives streams of its own."""
    words = np.random.SeedSequence([len(numbers), *numbers]).generate_state(2)
    random.seed(int(words[0]))
    np.random.seed(int(words[0]))
    torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def capture(*, devices: bool = True) -> dict[str, Any]:
    """The states of all three, as tensors and plain values that a checkpoint can hold; those of devices, if asked."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, torch.tensor(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "devices": _of_devices() if devices else {},
    }


def restore(states: dict[str, Any]) -> None:
    """Goes back to states that `capture` returned."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    _back(states.get("devices", {}))


@contextmanager
def isolated() -> Iterator[None]:
    """Leaves the global random numbers as they were, whatever is drawn inside; those of devices too."""
    devices = _of_devices()
    try:
        with random_numbers_kept():
            yield
    finally:
        _back(devices)


def _of_devices() -> dict[str, list[Any]]:
    """Kind of the accelerator of this machine -> the state of each; empty where there is none, or none that tells."""
    if not torch.accelerator.is_available() or (accelerator := torch.accelerator.current_accelerator()) is None:
        return {}
    module = torch.get_device_module(accelerator)
    if not hasattr(module, "get_rng_state"):
        return {}
    one = accelerator.type == "mps"  # of which there is one, without a number
    return {accelerator.type: [module.get_rng_state(*() if one else (i,)) for i in range(module.device_count())]}


def _back(states: dict[str, list[Any]]) -> None:
    """Goes back to states of devices, as far as this machine has them: a run may have moved."""
    now = _of_devices() if states else {}
    for kind, held in states.items():
        module = torch.get_device_module(kind)
        for index, state in enumerate(held[: len(now.get(kind, []))]):
            module.set_rng_state(state) if kind == "mps" else module.set_rng_state(state, index)
