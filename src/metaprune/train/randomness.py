"""The global random numbers of Python, NumPy and torch: borrowed, seeded, saved and given back."""

import random
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


def capture() -> dict[str, Any]:
    """The states of all three, as tensors and plain values that a checkpoint can hold."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, torch.tensor(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore(states: dict[str, Any]) -> None:
    """Goes back to states that `capture` returned."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])


isolated = random_numbers_kept
"""Leaves the global random numbers as they were, whatever is drawn inside."""
