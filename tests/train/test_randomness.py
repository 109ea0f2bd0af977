"""Random numbers: borrowed, seeded, saved and given back."""

import random
from pathlib import Path

import numpy as np
import torch

from metaprune.train import Checkpoint
from metaprune.train.randomness import capture, isolated, restore, seed


def draw() -> tuple[float, ...]:
    return (
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        torch.rand(1).item(),
    )


def test_seeds() -> None:
    drawn = []
    for numbers in ((0, 0), (0, 0), (0, 1), (1, 0), (0,)):
        seed(*numbers)
        drawn.append(draw())
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4  # of 5: the first two are the same


def test_states_survive_a_checkpoint(tmp_path: Path) -> None:
    draw()
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(capture())
    expected = [draw() for _ in range(3)]
    seed(9)
    states = checkpoint.load()
    assert states is not None
    restore(states)
    assert [draw() for _ in range(3)] == expected


def test_isolation() -> None:
    seed(5)
    expected = draw()
    seed(5)
    with isolated():
        seed(6)
        draw()
    assert draw() == expected
